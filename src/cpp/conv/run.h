// Executes a planned convolution over plain pointers; no MLX inside.
#pragma once

#include "conv/conv.h"

namespace rvc_fast {

struct ConvArrays {
  const float* x;  // (batch, height, width, in_channels)
  int64_t batch, height, width;
  const void* weights;  // packed, bfloat16 if the parameters say so
  const float* bias;
  const float* residual;
  float* y;  // (batch, out_height, out_width, out_channels)
  int64_t out_height, out_width;
};

void run_conv(const ConvParams& p, const ConvArrays& a);

enum class WeightType { float32, float16, bfloat16 };
void run_pack(const ConvParams& p, const void* weight, WeightType type, void* packed);

}  // namespace rvc_fast
