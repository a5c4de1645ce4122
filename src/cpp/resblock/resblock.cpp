#include "resblock/resblock.h"

#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "conv1d/conv1d.h"
#include "fastconv/same_conv.h"
#include "mlx/backend/cpu/encoder.h"
#include "resblock/run.h"

namespace rvc_fast {
namespace {

constexpr const char* kResblock = "resblock";

ConvParams direct_params(int channels, int kernel, Format format) {
  return {.op = kResblock,
          .kernel = {1, kernel},
          .in_channels = channels,
          .out_channels = channels,
          .format = format};
}

int64_t packed_values(int variant, int channels, int kernel, Format format) {
  return variant == kDirect ? packed_size(direct_params(channels, kernel, format))
                            : fast_packed_size(variant, channels, channels);
}

class PackFast : public CpuPrimitive {
 public:
  PackFast(mx::Stream stream, int variant, int channels)
      : CpuPrimitive(stream), variant_(variant), channels_(channels) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0]);
    dispatch({.run = [variant = variant_, channels = channels_, from = inputs[0].data<float>(),
                      to = outputs[0].data<float>()](const Scratch&) {
      pack_fast(variant, channels, channels, from, Format::float32, to);
    }});
  }

  const char* name() const override { return "rvc_fast_resblock_pack"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& o = static_cast<const PackFast&>(other);
    return variant_ == o.variant_ && channels_ == o.channels_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>&) override {
    return {{static_cast<int>(fast_packed_size(variant_, channels_, channels_))}};
  }

 private:
  int variant_, channels_;
};

class Resblock : public CpuPrimitive {
 public:
  Resblock(mx::Stream stream, ResStage stage) : CpuPrimitive(stream), stage_(std::move(stage)) {}

  // Inputs: x, the weights (flat where they are packed), the biases.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const mx::array& x = inputs[0];
    mx::array& out = outputs[0];
    allocate(out);
    const size_t convs = stage_.convs.size();
    std::vector<const void*> weights;
    std::vector<const float*> biases;
    std::optional<Work> packing;
    for (size_t i = 1; i <= convs; ++i) {
      biases.push_back(inputs[convs + i].data<float>());
      if (inputs[i].ndim() == 1) {
        weights.push_back(inputs[i].data<void>());
        continue;
      }
      auto [packed, work] = pack(i - 1, inputs[i]);
      weights.push_back(packed);
      packing = packing ? in_order(std::move(*packing), std::move(work)) : std::move(work);
    }
    Work work = resblock_work(stage_, x.data<float>(), x.shape(0), x.shape(1), std::move(weights),
                              std::move(biases), out.data<float>());
    dispatch(packing ? in_order(std::move(*packing), std::move(work)) : std::move(work));
  }

  const char* name() const override { return "rvc_fast_resblock"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return stage_ == static_cast<const Resblock&>(other).stage_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape()};
  }

 private:
  // Where the weight (C, K, C) of a convolution will be packed, and the work of it.
  std::pair<const void*, Work> pack(size_t conv, const mx::array& weight) {
    const int channels = stage_.channels, variant = stage_.convs[conv].variant, kernel = weight.shape(1);
    mx::array packed({static_cast<int>(packed_values(variant, channels, kernel, Format::float32))},
                     mx::float32, nullptr, {});
    allocate(packed);
    mx::cpu::get_command_encoder(stream()).add_temporary(packed);
    const float* from = weight.data<float>();
    float* to = packed.data<float>();
    if (variant == kDirect)
      return {to, pack_work(direct_params(channels, kernel, Format::float32), from, Format::float32, to)};
    return {to, {.run = [=](const Scratch&) {
              pack_fast(variant, channels, channels, from, Format::float32, to);
            }}};
  }

  ResStage stage_;
};

int known_variant(const std::string& name) {
  int variant = find_variant(name.c_str());
  require(variant >= kDirect, kResblock, "algorithm must be one there is, got \"" + name + "\"");
  return variant;
}

void check_shape(int variant, int channels, int kernel) {
  if (variant == kDirect) return;
  const FastVariant& v = kFastVariants[variant];
  require(v.taps == kernel && channels % 16 == 0, kResblock,
          std::string("algorithm \"") + v.name + "\" must be used with " + std::to_string(v.taps) +
              " taps and a multiple of 16 channels, got " + std::to_string(kernel) + " and " +
              std::to_string(channels));
}

}  // namespace

std::string resblock_algorithm(int channels, int kernel, const std::string& wanted,
                               const std::string& dtype) {
  int variant = kDirect;
  const Format format = parse_format(kResblock, dtype);
  require_format(kResblock, format);
  if (wanted == "auto") {
    // Products of pairs do not save as much as the fast algorithm does, products of tiles far more.
    variant = kernels(format)->tiles ? kDirect : best_variant(channels, kernel);
  } else if (wanted == "fast") {
    variant = best_variant(channels, kernel);
    require(variant != kDirect, kResblock,
            "algorithm must not be \"fast\" for " + std::to_string(channels) + " channels and " +
                std::to_string(kernel) + " taps: there is no fast one");
  } else {
    variant = known_variant(wanted);
    check_shape(variant, channels, kernel);
  }
  return variant == kDirect ? "direct" : kFastVariants[variant].name;
}

mx::array resblock_pack(const mx::array& weight, const std::string& algorithm, const std::string& dtype,
                        mx::StreamOrDevice s) {
  require(is_floating(weight), kResblock, "weight must be float32, float16 or bfloat16");
  require(weight.ndim() == 3 && weight.size() > 0 && weight.shape(0) == weight.shape(2), kResblock,
          "weight must be of shape (C, K, C), got " + to_string(weight.shape()));
  int variant = known_variant(algorithm), channels = weight.shape(0);
  check_shape(variant, channels, weight.shape(1));
  if (variant == kDirect) return conv1d_pack(weight, 1, "direct", dtype, s);
  require(parse_format(kResblock, dtype) == Format::float32, kResblock,
          "algorithm must be \"direct\" in " + dtype + ", got \"" + algorithm + "\"");
  int64_t size = fast_packed_size(variant, channels, channels);
  require(size <= std::numeric_limits<int>::max(), kResblock,
          "weight must have fewer than 2^31 values when packed");
  return mx::array({static_cast<int>(size)}, mx::float32,
                   std::make_shared<PackFast>(mx::to_stream(s), variant, channels),
                   {readable(weight, mx::float32, s)});
}

mx::array resblock(const mx::array& x, const std::vector<mx::array>& packed,
                   const std::vector<std::optional<mx::array>>& biases, const std::vector<ResConvSpec>& convs,
                   float slope, mx::StreamOrDevice s) {
  require(is_floating(x), kResblock, "x must be float32, float16 or bfloat16");
  require(x.ndim() == 3 && x.size() > 0, kResblock,
          "x must be of shape (B, T, C) and not empty, got " + to_string(x.shape()));
  require(slope >= 0.0f && slope <= 1.0f, kResblock,
          "slope must be from 0 to 1, got " + std::to_string(slope));
  require(!convs.empty() && packed.size() == convs.size() && biases.size() == convs.size(), kResblock,
          "blocks must have a weight and a bias (or none) for each of their convolutions");
  const int channels = x.shape(2);
  ResStage stage{channels, slope, {}};
  std::vector<mx::array> inputs{dense(x, mx::float32, s)};
  for (size_t i = 0; i < convs.size(); ++i) {
    auto& [kernel, dilation, algorithm, ends_step, ends_block] = convs[i];
    require(kernel >= 1 && kernel % 2 == 1, kResblock, "kernel must be odd, got " + std::to_string(kernel));
    require(dilation >= 1, kResblock, "dilation must be at least 1, got " + std::to_string(dilation));
    require(ends_step || !ends_block, kResblock, "blocks must end with a step");
    int variant = known_variant(algorithm);
    check_shape(variant, channels, kernel);
    const bool plain = packed[i].ndim() == 3;
    const bool any = variant == kDirect && !plain && is_floating(packed[i]);
    const Format format = any ? format_of(packed[i]) : Format::float32;
    require_format(kResblock, format);
    const int64_t size = packed_values(variant, channels, kernel, format);
    require(size <= std::numeric_limits<int>::max(), kResblock,
            "weight must have fewer than 2^31 values when packed");
    if (plain) {
      const mx::Shape wanted{channels, kernel, channels};
      require(is_floating(packed[i]), kResblock, "weight must be float32, float16 or bfloat16");
      require(packed[i].shape() == wanted, kResblock,
              "weight must be of shape " + to_string(wanted) + ", got " + to_string(packed[i].shape()));
    } else {
      require(packed[i].ndim() == 1 && packed[i].dtype() == dtype_of(format) && packed[i].shape(0) == size,
              kResblock,
              "weight must be packed for these channels and taps and this algorithm: " +
                  std::to_string(size) + " values, got " + to_string(packed[i].shape()));
    }
    inputs.push_back(readable(packed[i], dtype_of(format), s));
    stage.convs.push_back({.taps = kernel,
                           .dilation = dilation,
                           .variant = variant,
                           .ends_step = ends_step,
                           .ends_block = ends_block,
                           .format = format});
  }
  require(stage.convs.back().ends_block, kResblock, "blocks must end with a step");
  for (auto& bias : biases) {
    require(
        !bias || bias->shape() == mx::Shape{channels}, kResblock,
        "bias must be of shape " + to_string({channels}) + (bias ? ", got " + to_string(bias->shape()) : ""));
    inputs.push_back(bias ? dense(*bias, mx::float32, s) : mx::zeros({channels}, mx::float32, s));
  }
  mx::array y(x.shape(), mx::float32, std::make_shared<Resblock>(mx::to_stream(s), std::move(stage)),
              std::move(inputs));
  return mx::astype(y, x.dtype(), s);
}

}  // namespace rvc_fast
