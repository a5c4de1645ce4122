// What the kernel of layer_norm takes.
#pragma once

#include <stdint.h>

namespace rvc_fast {

// y = (x + residual - mean) / sqrt(variance + eps) * weight + bias of each row of `width`; what is null is
// left out.
struct LayerNorm {
  const float *x, *residual, *weight, *bias;
  int64_t rows, width;
  float eps;
  float* y;  // may be x or residual
};

}  // namespace rvc_fast
