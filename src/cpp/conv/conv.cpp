#include "conv/conv.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>

#include "conv/run.h"
#include "mlx/backend/cpu/encoder.h"

namespace rvc_fast {
namespace {

class Pack : public CpuPrimitive {
 public:
  Pack(mx::Stream stream, ConvParams params) : CpuPrimitive(stream), params_(std::move(params)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const mx::array& weight = inputs[0];
    allocate(outputs[0]);
    dispatch(pack_work(params_, weight.data<void>(), format_of(weight), outputs[0].data<void>()));
  }

  const char* name() const override { return "rvc_fast_pack"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return params_ == static_cast<const Pack&>(other).params_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>&) override {
    return {{static_cast<int>(packed_size(params_))}};
  }

 protected:
  mx::Dtype output_type(int) const override { return dtype_of(params_.format); }

 private:
  ConvParams params_;
};

class Conv : public CpuPrimitive {
 public:
  Conv(mx::Stream stream, ConvParams params) : CpuPrimitive(stream), params_(std::move(params)) {}

  static mx::Shape shape(const ConvParams& p, const mx::Shape& x) {
    mx::Shape out = x;
    out.back() = p.out_channels + p.beside;
    for (int i = 0, axis = 4 - static_cast<int>(x.size()); axis < 2 && x.size() > 2; ++axis, ++i) {
      out[1 + i] = static_cast<int>(output_length(p, axis, x[1 + i]));
    }
    return out;
  }

  // Inputs: x, weight (flat if it is packed), then bias and residual or beside if there are any.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const mx::array& x = inputs[0];
    mx::array& out = outputs[0];
    const mx::array* residual = params_.has_residual ? &inputs.back() : nullptr;
    if (residual && residual->is_donatable()) {
      out.copy_shared_buffer(*residual);  // every element is read before it is written, by one thread
    } else {
      allocate(out);
    }
    ConvArrays a{};
    a.x = x.data<float>();
    mx::array weight = inputs[1];
    const bool packed = weight.ndim() == 1;
    if (!packed) {
      weight = mx::array({static_cast<int>(packed_size(params_))}, mx::float32, nullptr, {});
      allocate(weight);
    }
    a.weights = weight.data<void>();
    a.bias = params_.has_bias ? inputs[2].data<float>() : nullptr;
    a.residual = residual ? residual->data<float>() : nullptr;
    a.beside = params_.beside > 0 ? inputs.back().data<float>() : nullptr;
    a.y = out.data<float>();
    const mx::Shape &in = x.shape(), &to = out.shape();
    if (in.size() == 2) {
      a.batch = 1, a.height = a.out_height = 1, a.width = a.out_width = in[0];
    } else if (in.size() == 3) {
      a.batch = in[0], a.height = a.out_height = 1, a.width = in[1], a.out_width = to[1];
    } else {
      a.batch = in[0], a.height = in[1], a.width = in[2], a.out_height = to[1], a.out_width = to[2];
    }
    Work work = conv_work(params_, a);
    if (!packed) {
      mx::cpu::get_command_encoder(stream()).add_temporary(weight);
      work = in_order(pack_work(params_, inputs[1].data<void>(), format_of(inputs[1]), weight.data<void>()),
                      std::move(work));
    }
    dispatch(std::move(work));
  }

  const char* name() const override { return params_.op.c_str(); }
  bool is_equivalent(const mx::Primitive& other) const override {
    return params_ == static_cast<const Conv&>(other).params_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {shape(params_, inputs[0].shape())};
  }

 private:
  ConvParams params_;
};

void check(const ConvParams& p) {
  const char* op = p.op.c_str();
  require(p.in_channels >= 1 && p.out_channels >= 1, op, "weight must not be empty");
  for (int i : {0, 1}) {
    require(p.kernel[i] >= 1, op, "kernel must be at least 1");
    require(p.stride[i] >= 1 && p.dilation[i] >= 1, op, "stride and dilation must be at least 1");
    require(p.before[i] >= 0, op, "padding must be at least 0");
    require(p.transposed || p.after[i] >= 0, op, "padding must be at least 0");
  }
  require(p.groups >= 1 && p.in_channels % p.groups == 0 && p.out_channels % p.groups == 0, op,
          "groups must divide the channels");
  require(p.leaky >= 0.0f && p.leaky <= 1.0f, op,
          "leaky must be from 0 to 1, got " + std::to_string(p.leaky));
  require(p.tile == 1 || winograd_tile(p) > 1, op,
          "algorithm must be \"direct\" unless weight is float32 of shape (O, 3, 3, C), C a multiple of 16");
  require(packed_size(p) <= std::numeric_limits<int>::max(), op, "weight must have fewer than 2^31 values");
}

}  // namespace

mx::array pack_conv(const ConvParams& p, const mx::array& weight, mx::StreamOrDevice s) {
  const char* op = p.op.c_str();
  require(is_floating(weight), op, "weight must be float32, float16 or bfloat16");
  check(p);
  return mx::array({static_cast<int>(packed_size(p))}, dtype_of(p.format),
                   std::make_shared<Pack>(mx::to_stream(s), p), {readable(weight, weight.dtype(), s)});
}

mx::array conv(ConvParams p, const mx::array& x, const mx::array& weight,
               const std::optional<mx::array>& bias, const std::optional<mx::array>& residual,
               mx::StreamOrDevice s, const std::optional<mx::array>& beside) {
  const char* op = p.op.c_str();
  require(is_floating(x), op, "x must be float32, float16 or bfloat16");
  require(x.ndim() >= 2 && x.ndim() <= 4, op, "x must have 2 to 4 dimensions, got " + to_string(x.shape()));
  p.in_channels = x.shape(-1);
  const bool packed = weight.ndim() == 1;
  p.format =
      packed && (is_floating(weight) || weight.dtype() == mx::int8) ? format_of(weight) : Format::float32;
  require_format(op, p.format);
  require(x.size() > 0, op, "x must not be empty, got " + to_string(x.shape()));
  check(p);
  if (packed) {
    require(weight.dtype() == dtype_of(p.format) && weight.shape(0) == packed_size(p), op,
            "weight must be packed for these channels, kernel, stride and groups: " +
                std::to_string(packed_size(p)) + " values, got " + to_string(weight.shape()));
  } else {
    mx::Shape wanted{p.out_channels};
    for (int i = 4 - weight.ndim(); i < 2; ++i) wanted.push_back(p.kernel[std::max(i, 0)]);
    wanted.push_back(p.in_channels / p.groups);
    require(is_floating(weight), op, "weight must be float32, float16 or bfloat16");
    require(p.tile == 1, op, "algorithm must be \"direct\" unless weight is packed");
    require(weight.ndim() <= 4 && weight.shape() == wanted, op,
            "weight must be of shape " + to_string(wanted) + ", got " + to_string(weight.shape()));
  }
  if (x.ndim() > 2) {
    for (int axis = x.ndim() == 3 ? 1 : 0, i = 1; axis < 2; ++axis, ++i) {
      int64_t length = output_length(p, axis, x.shape(i));
      require(length >= 1 && length <= std::numeric_limits<int>::max(), op,
              "x must be long enough for one output, got " + to_string(x.shape()));
    }
  }
  mx::Shape shape = Conv::shape(p, x.shape());
  p.has_bias = bias.has_value();
  p.has_residual = residual.has_value();
  std::vector<mx::array> inputs{dense(x, mx::float32, s), readable(weight, weight.dtype(), s)};
  if (bias) {
    require(
        bias->shape() == mx::Shape{p.out_channels}, op,
        "bias must be of shape (" + std::to_string(p.out_channels) + ",), got " + to_string(bias->shape()));
    inputs.push_back(dense(*bias, mx::float32, s));
  }
  if (residual) {
    require(residual->shape() == shape, op,
            "residual must be of shape " + to_string(shape) + ", got " + to_string(residual->shape()));
    inputs.push_back(dense(*residual, mx::float32, s));
  }
  if (beside) {
    mx::Shape wanted = shape;
    wanted.back() = beside->ndim() > 0 ? beside->shape(-1) : 0;
    require(beside->shape() == wanted && beside->size() > 0, op,
            "beside must be of shape " + to_string(wanted) + ", got " + to_string(beside->shape()));
    require(!residual, op, "beside and residual cannot be given together");
    p.beside = wanted.back();
    shape.back() += p.beside;
    inputs.push_back(dense(*beside, mx::float32, s));
  }
  mx::array y(shape, mx::float32, std::make_shared<Conv>(mx::to_stream(s), std::move(p)), std::move(inputs));
  return mx::astype(y, x.dtype(), s);
}

Format parse_format(const char* op, const std::string& dtype) {
  std::string known;
  for (int i = 0; i < kFormats; ++i) {
    const FormatRow& format = format_row(static_cast<Format>(i));
    if (!format.pack) continue;
    if (dtype == format.name) return static_cast<Format>(i);
    known += (known.empty() ? "\"" : " or \"") + std::string(format.name) + "\"";
  }
  throw std::invalid_argument(std::string("[") + op + "] dtype must be " + known + ", got \"" + dtype + "\"");
}

void require_format(const char* op, Format format) {
  const FormatRow& wanted = format_row(format);
  require(wanted.pack, op, std::string("weight must not be packed in ") + wanted.name);
  require(kernels(format), op,
          std::string(wanted.name) + " must have " + wanted.needs + " instructions; in use is " + isa().name);
}

mx::Dtype dtype_of(Format format) {
  switch (format) {
    case Format::float32:
      return mx::float32;
    case Format::float16:
      return mx::float16;
    case Format::int8:
      return mx::int8;
    default:
      return mx::bfloat16;
  }
}

Format format_of(const mx::array& weight) {
  return weight.dtype() == mx::float32   ? Format::float32
         : weight.dtype() == mx::float16 ? Format::float16
         : weight.dtype() == mx::int8    ? Format::int8
                                         : Format::bfloat16;
}

Activation parse_activation(const char* op, const std::string& name) {
  const std::pair<const char*, Activation> known[] = {
      {"", kNone}, {"relu", kRelu}, {"gelu", kGelu}, {"sigmoid", kSigmoid}, {"tanh", kTanh}};
  for (auto [known_name, activation] : known) {
    if (name == known_name) return activation;
  }
  throw std::invalid_argument(
      std::string("[") + op +
      "] activation must be \"relu\", \"gelu\", \"sigmoid\", \"tanh\" or \"\", got \"" + name + "\"");
}

}  // namespace rvc_fast
