// The residual blocks of one decoder stage over plain pointers; no MLX inside.
#pragma once

#include <stdint.h>

#include <vector>

#include "conv/format.h"
#include "core/pool.h"

namespace rvc_fast {

// A convolution C -> C that keeps the length, with what follows it.
struct ResConv {
  int taps, dilation;
  int variant;  // of kFastVariants, or kDirect
  bool ends_step, ends_block;
  Format format = Format::float32;  // another only with kDirect

  bool operator==(const ResConv&) const = default;
};

// y = mean over blocks of block(x); a block is steps x = x + conv_n(leaky(... conv_1(leaky(x)))).
struct ResStage {
  int channels;
  float slope;
  std::vector<ResConv> convs;  // all blocks, in the order they run

  bool operator==(const ResStage&) const = default;
};

// What the planner decides; 0 leaves it to the planner.
struct ResTuning {
  int64_t chunk = 0;  // rows of output per work item
  int block = 0;      // tiles of the fast algorithm per pass over the weights
};

// x, y: (batch, length, channels); weights and biases: one per convolution, packed for its variant
// and type.
Work resblock_work(ResStage stage, const float* x, int64_t batch, int64_t length,
                   std::vector<const void*> weights, std::vector<const float*> biases, float* y,
                   ResTuning tuning = {});

}  // namespace rvc_fast
