// Weights of 4 and 8 bits, unpacked to panels and multiplied as they are.
#include "check.h"

namespace rvc_fast::test {
namespace {

struct Codes {
  Array<uint32_t> words;
  Floats scales, biases;
  QuantizedWeight weight{};

  Codes(int64_t outputs, int64_t channels, int bits, int64_t group, std::mt19937_64& random)
      : words(outputs * channels * bits / 32),
        scales(outputs * channels / group, random, 0.01),
        biases(outputs * channels / group, random) {
    for (uint32_t& word : words) word = static_cast<uint32_t>(random());
    weight.codes = words.data(), weight.scales = scales, weight.biases = biases;
    weight.words = channels * bits / 32, weight.group = group, weight.bits = bits;
  }

  double value(int64_t output, int64_t channel) const {
    const int bits = weight.bits;
    const int64_t per_word = 32 / bits, group = output * weight.groups() + channel / weight.group;
    const uint32_t word = words.data()[output * weight.words + channel / per_word];
    const uint32_t code = word >> (channel % per_word * bits) & ((1u << bits) - 1);
    return double(code) * scales.data()[group] + biases.data()[group];
  }
};

template <class F>
void every_weight(F&& f) {
  for (int bits : {4, 8}) {
    for (int64_t group : {32, 64, 128}) {
      for (int64_t groups : {1, 3}) f(bits, group, group * groups);
    }
  }
}

void panels(const Kernels& k) {
  every_weight([&](int bits, int64_t group, int64_t channels) {
    for (int64_t columns : {1, 16, 17, 32, 35, 64}) {
      const int64_t first = 2;
      std::mt19937_64 random = random_numbers();
      Codes codes(first + columns, channels, bits, group, random);
      Floats got(round_up(columns, kNarrowPanel) * channels);
      std::vector<Wanted> want(got.size(), {0.0, 1.0});
      for (int64_t n = 0; n < columns; ++n) {
        const int64_t panel = n / kPanel * kPanel, width = panel_width(columns - panel);
        for (int64_t c = 0; c < channels; ++c)
          want[panel * channels + c * width + n - panel] = {codes.value(first + n, c), 4.0};
      }
      k.quantized_panels(codes.weight, first, columns, got);
      check_close(got, want, 1e-6,
                  text("%d bits, groups of %lld, %lld channels, %lld columns", bits, (long long)group,
                       (long long)channels, (long long)columns));
    }
  });
}

void dots(const Kernels& k) {
  int variant = 0;
  every_weight([&](int bits, int64_t group, int64_t channels) {
    for (int64_t columns : {1, 16, 19}) {
      for (int64_t rows = 1; rows <= kDotRows; ++rows) {
        const int64_t first = 3, outputs = first + columns, options = variant++ % 4;
        std::mt19937_64 random = random_numbers();
        Codes codes(outputs, channels, bits, group, random);
        Floats x(rows * channels, random), bias(outputs, random), residual(rows * outputs, random),
            y(rows * outputs);
        const int64_t row = k.quantized_row_floats(codes.weight.words, bits);
        Floats ordered(rows * row);
        for (int64_t r = 0; r < rows; ++r)
          k.quantized_row(x + r * channels, codes.weight.words, bits, ordered + r * row);
        QuantizedDots d{};
        d.weight = codes.weight, d.first = first, d.columns = columns;
        d.x = ordered, d.rows = rows, d.x_row = row;
        d.bias = options & 1 ? bias.data() : nullptr;
        d.residual = options & 2 ? residual.data() : nullptr;
        d.y = y, d.y_row = outputs, d.activation = options & 1 ? kTanh : kNone;
        std::vector<Wanted> want(y.size());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t o = first; o < outputs; ++o) {
            double v = d.bias ? bias[o] : 0.0, size = 4.0;
            for (int64_t c = 0; c < channels; ++c) {
              v += x[r * channels + c] * codes.value(o, c);
              size += std::abs(x[r * channels + c] * codes.value(o, c));
            }
            v = activate(v, d.activation) + (d.residual ? residual[r * outputs + o] : 0.0);
            want[r * outputs + o] = {v, size};
          }
        }
        k.quantized_dots(d);
        check_close(y, want, 5e-7,
                    text("%lld rows, %d bits, groups of %lld, %lld channels, %lld columns, options %lld",
                         (long long)rows, bits, (long long)group, (long long)channels, (long long)columns,
                         (long long)options));
      }
    }
  });
}

Test panels_test("quantized_panels", panels), dots_test("quantized_dots", dots);

}  // namespace
}  // namespace rvc_fast::test
