#include "quantized_linear/quantized_linear.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "conv/conv.h"
#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

// Up to so many rows are multiplied with the codes as they are: panels would cost more than their products.
constexpr int64_t kFewRows = 2 * kDotRows;
// Rows that share one copy of the panels, at least and at once.
constexpr int64_t kLeastRows = 96, kRowsAtOnce = 512;
// Of the columns, for each thread: so a slow core gets fewer of them.
constexpr int64_t kShares = 8;

struct QuantizedArrays {
  QuantizedWeight weight;
  const float* x;                // (rows, channels)
  const float *bias, *residual;  // or null
  float* y;                      // (rows, columns), may be residual
  int64_t rows, columns;
  Activation activation;
};

// The largest share of the columns that keeps all threads at work, whole register tiles of them.
int64_t share(int64_t columns, int64_t tile, int64_t most) {
  return std::clamp(round_up(ceil_div(columns, kShares * threads()), tile), tile, most);
}

Work work_of_few_rows(const QuantizedArrays& a) {
  const int64_t x_row = kernels().quantized_row_floats(a.weight.words, a.weight.bits);
  const int64_t step = share(a.columns, 16, 64);
  auto run = [=](const Scratch& scratch) {
    const Kernels& k = kernels();
    float* x = scratch.shared();
    for (int64_t r = 0; r < a.rows; ++r)
      k.quantized_row(a.x + r * a.weight.channels(), a.weight.words, a.weight.bits, x + r * x_row);
    parallel_for(ceil_div(a.columns, step), [&](int64_t item) {
      QuantizedDots d{};
      d.weight = a.weight;
      d.first = item * step;
      d.columns = std::min(step, a.columns - d.first);
      d.x_row = x_row, d.y_row = a.columns;
      d.bias = a.bias, d.activation = a.activation;
      for (int64_t row = 0; row < a.rows; row += kDotRows) {
        d.rows = std::min(kDotRows, a.rows - row);
        d.x = x + row * x_row;
        d.y = a.y + row * a.columns;
        d.residual = a.residual ? a.residual + row * a.columns : nullptr;
        k.quantized_dots(d);
      }
    });
  };
  return {.shared = size_t(a.rows * x_row), .run = std::move(run)};
}

Work work_of_many_rows(const QuantizedArrays& a) {
  const int64_t channels = a.weight.channels();
  const int64_t step = share(a.columns, kPanel, 2 * kPanel), shares = ceil_div(a.columns, step);
  // Where there are few columns, threads share the rows too, and each unpacks the columns anew.
  const int64_t wanted = ceil_div(kShares * threads(), shares);
  const int64_t row_blocks = std::clamp<int64_t>(wanted, 1, ceil_div(a.rows, kLeastRows));
  const int64_t block = ceil_div(a.rows, row_blocks);

  // Long sums are taken part by part, whose panels stay in L2.
  const int64_t parts = ceil_div(channels, format_row(Format::float32).longest),
                part = ceil_div(channels, parts);
  std::vector<Segment> segments;
  std::vector<int32_t> ends;
  for (int64_t c = 0; c < channels; c += part) {
    segments.push_back({c, std::min(part, channels - c)});
    ends.push_back(static_cast<int32_t>(segments.size()));
  }
  const int64_t panels = channels * step;
  const int64_t sums = parts > 1 ? partial_floats(1, std::min(block, kRowsAtOnce), step) : 0;

  auto item = [=, segments = std::move(segments), ends = std::move(ends)](int64_t item, float* memory) {
    const int64_t first = item / row_blocks * step, begin = item % row_blocks * block,
                  end = std::min(begin + block, a.rows);
    if (begin >= end) return;
    ConvBlock b{};
    b.x_row = channels, b.y_row = a.columns;
    b.lines = 1, b.columns = std::min(step, a.columns - first);
    b.segments = segments.data(), b.block_ends = ends.data(), b.blocks = static_cast<int32_t>(ends.size());
    b.w = memory;
    b.bias = a.bias ? a.bias + first : nullptr;
    b.scale = 1.0f, b.activation = a.activation;
    b.partial = memory + panels;
    kernels().quantized_panels(a.weight, first, b.columns, memory);
    for (int64_t row = begin; row < end; row += kRowsAtOnce) {
      const int64_t at = row * a.columns + first;
      b.rows = std::min(kRowsAtOnce, end - row);
      b.x = a.x + row * channels;
      b.residual = a.residual ? a.residual + at : nullptr;
      b.y = a.y + at;
      kernels(Format::float32)->block(b);
    }
  };
  return {.each = size_t(panels + sums), .run = [=, item = std::move(item)](const Scratch& scratch) {
            parallel_for(shares * row_blocks, scratch, item);
          }};
}

class QuantizedLinear : public CpuPrimitive {
 public:
  QuantizedLinear(mx::Stream stream, int group_size, int bits, Activation activation, bool bias,
                  bool residual)
      : CpuPrimitive(stream),
        group_size_(group_size),
        bits_(bits),
        activation_(activation),
        bias_(bias),
        residual_(residual) {}

  // Inputs: x (rows, C), weight, scales, biases, then bias and residual if there are any.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    mx::array& out = outputs[0];
    const mx::array* residual = residual_ ? &inputs.back() : nullptr;
    if (residual && residual->is_donatable()) {
      out.copy_shared_buffer(*residual);  // every element is read before it is written, by one thread
    } else {
      allocate(out);
    }
    QuantizedArrays a{};
    a.weight.codes = inputs[1].data<uint32_t>();
    a.weight.scales = inputs[2].data<float>(), a.weight.biases = inputs[3].data<float>();
    a.weight.words = inputs[1].shape(1), a.weight.group = group_size_, a.weight.bits = bits_;
    a.x = inputs[0].data<float>();
    a.bias = bias_ ? inputs[4].data<float>() : nullptr;
    a.residual = residual ? residual->data<float>() : nullptr;
    a.y = out.data<float>();
    a.rows = inputs[0].shape(0), a.columns = inputs[1].shape(0);
    a.activation = activation_;
    dispatch(a.rows <= kFewRows ? work_of_few_rows(a) : work_of_many_rows(a));
  }

  const char* name() const override { return "quantized_linear"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& o = static_cast<const QuantizedLinear&>(other);
    return group_size_ == o.group_size_ && bits_ == o.bits_ && activation_ == o.activation_ &&
           bias_ == o.bias_ && residual_ == o.residual_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {{inputs[0].shape(0), inputs[1].shape(0)}};
  }

 private:
  int group_size_, bits_;
  Activation activation_;
  bool bias_, residual_;
};

}  // namespace

mx::array quantized_linear(const mx::array& x, const mx::array& weight, const mx::array& scales,
                           const mx::array& biases, const std::optional<mx::array>& bias,
                           const std::optional<mx::array>& residual, int group_size, int bits,
                           const std::string& activation, mx::StreamOrDevice s) {
  const char* op = "quantized_linear";
  require(bits == 4 || bits == 8, op, "bits must be 4 or 8, got " + std::to_string(bits));
  require(group_size == 32 || group_size == 64 || group_size == 128, op,
          "group_size must be 32, 64 or 128, got " + std::to_string(group_size));
  require(is_floating(x), op, "x must be float32, float16 or bfloat16");
  require(x.ndim() >= 1 && x.size() > 0, op, "x must be of shape (..., C), got " + to_string(x.shape()));
  const int channels = x.shape(-1);
  require(
      channels % group_size == 0, op,
      "x must have a multiple of " + std::to_string(group_size) + " channels, got " + to_string(x.shape()));
  require(weight.dtype() == mx::uint32, op, "weight must be uint32");
  require(weight.ndim() == 2 && weight.shape(0) >= 1 && weight.shape(1) == channels / (32 / bits), op,
          "weight must be of shape (O, " + std::to_string(channels / (32 / bits)) + "), got " +
              to_string(weight.shape()));
  const int columns = weight.shape(0);
  mx::Shape shape = x.shape();
  shape.back() = columns;
  std::vector<mx::array> inputs{dense(mx::reshape(x, {-1, channels}, s), mx::float32, s),
                                readable(weight, mx::uint32, s)};
  auto add = [&](const char* name, const mx::array& a, const mx::Shape& wanted) {
    require(is_floating(a) && a.shape() == wanted, op,
            std::string(name) + " must be floating and of shape " + to_string(wanted) + ", got " +
                to_string(a.shape()));
    inputs.push_back(readable(a, mx::float32, s));
  };
  add("scales", scales, {columns, channels / group_size});
  add("biases", biases, {columns, channels / group_size});
  if (bias) add("bias", *bias, {columns});
  if (residual) {
    require(is_floating(*residual) && residual->shape() == shape, op,
            "residual must be of shape " + to_string(shape) + ", got " + to_string(residual->shape()));
    inputs.push_back(dense(mx::reshape(*residual, {-1, columns}, s), mx::float32, s));
  }
  const mx::Shape rows{inputs[0].shape(0), columns};
  mx::array y(
      rows, mx::float32,
      std::make_shared<QuantizedLinear>(mx::to_stream(s), group_size, bits, parse_activation(op, activation),
                                        bias.has_value(), residual.has_value()),
      std::move(inputs));
  return mx::astype(mx::reshape(y, shape, s), x.dtype(), s);
}

}  // namespace rvc_fast
