// The kernels that multiply in bfloat16 and add in float32, for the instruction sets that can; as a table for
// the same reasons as isa/kernels.h.
#pragma once

#include "isa/kernels.h"

namespace rvc_fast {

// The reduction is padded to whole blocks of this length, with zeros in the weight.
constexpr int64_t kBf16Block = 32;

// ConvBlock, with x and w in bfloat16. Segments are whole blocks. w holds panels of 32 columns, each
// [reduction / 32][columns / 16][16 pairs][16 columns][2]; a last panel with 16 columns or fewer has 16.
// Whole tiles of x are read: up to bf16_kernels()->tile_rows - 1 rows after the last, whatever they hold.
struct Bf16ConvBlock {
  const uint16_t* x;
  int64_t x_line, x_row;
  int64_t lines, rows, columns;
  const Segment* segments;
  int32_t segment_count;
  const uint16_t* w;
  const float* bias;      // or null
  const float* residual;  // or null
  float* y;
  int64_t y_line, y_row;
  float scale;
  Activation activation;
};

// Stage, rounded to bfloat16 (nearest, ties to even); each row is filled with zeros to a whole block.
struct Bf16Stage {
  const float* x;
  int64_t height, width, pitch;
  int64_t line, row;
  int64_t lines, rows, channels;
  float slope;
  uint16_t* to;
  int64_t to_pitch;
};

struct Bf16Kernels {
  bool tiles;  // AMX: many times faster than float32, not up to twice as AVX512-BF16
  int tile_rows;
  bool (*supported)();
  void (*conv_block)(const Bf16ConvBlock&);
  void (*stage)(const Bf16Stage&);
  double (*peak)(int64_t iterations);  // floating-point operations done
};

}  // namespace rvc_fast
