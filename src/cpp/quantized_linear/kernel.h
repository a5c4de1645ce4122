// What the kernels of quantized_linear take.
#pragma once

#include <stdint.h>

#include "conv/kernel.h"

namespace rvc_fast {

// Rows of x that one pass over a weight multiplies by quantized_dots.
constexpr int64_t kDotRows = 4;

// A weight of `words` * 32 / bits channels in MLX's affine convention: w = code * scale + bias. The lowest
// bits of a word are the first code. `group` neighbouring channels, 32, 64 or 128, share a scale and a bias.
struct QuantizedWeight {
  const uint32_t* codes;         // (outputs, words)
  const float *scales, *biases;  // (outputs, channels / group)
  int64_t words, group;
  int bits;  // 4 or 8

  int64_t channels() const { return words * (32 / bits); }
  int64_t groups() const { return channels() / group; }
};

// y = activation(x w + bias) + residual for `columns` outputs from the first on. bias, residual and y begin
// at output 0.
struct QuantizedDots {
  QuantizedWeight weight;
  int64_t first, columns;
  const float* x;  // (rows, x_row), each row from quantized_row
  int64_t rows, x_row;
  const float *bias, *residual;  // or null
  float* y;                      // may be residual
  int64_t y_row;                 // of y and residual
  Activation activation;
};

}  // namespace rvc_fast
