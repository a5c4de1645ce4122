// What the kernels of all convolutions and linear layers take.
#pragma once

#include <stdint.h>

#include "core/integers.h"

namespace rvc_fast {

// Weights lie in panels of kPanel columns; a last panel of kNarrowPanel columns or fewer is that wide.
constexpr int kPanel = 32, kNarrowPanel = 16;
// The width of the panel where `columns` are left.
static constexpr int panel_width(int64_t columns) { return columns > kNarrowPanel ? kPanel : kNarrowPanel; }

// Channels that a kernel which multiplies pairs takes in one step of a tile.
constexpr int64_t kPairedDepth = 32;

// Channels that a kernel which multiplies whole numbers by fours takes in one step. What a copied row has
// after its codes (a scale and a zero), and each column of a packed tap after its values (a scale and their
// sum), in bytes.
constexpr int64_t kQuadDepth = 64, kRowScaleBytes = 64, kColumnScaleBytes = 8;

enum Activation { kNone, kRelu, kGelu, kSigmoid, kTanh };

// `length` consecutive floats of the reduction, `offset` floats from a row's start.
struct Segment {
  int64_t offset, length;
};

// y = (activation(sum over segments of x * w + bias) + residual) * scale, for `lines` x `rows` x `columns`
// outputs. Row r of line l reads x + l * x_line + r * x_row and writes y + l * y_line + r * y_row (residual
// likewise).
//
// x and w are of one number format. w holds panels, in float32 [reduction][width]. In bfloat16 segments are
// multiples of kPairedDepth, a panel is [reduction / 32][width / 16][16 pairs][16 columns][2], there is one
// block of the reduction, and whole tiles of x are read: up to tile_rows - 1 rows after the last, whatever
// they hold. In int8 a segment is a tap of a multiple of kQuadDepth codes, a panel has for each tap
// [depth / 64][width / 16][16 fours][16 columns][4], then [width] scales and [width] sums; see conv/int8.h.
// In bfloat16x2 everything is as in bfloat16, but each number of w is [2 pieces] of [16 pairs][16
// columns][2], and x is [depth / 32][2 pieces] of planes, x_plane values apart, of rows of 32 numbers; see
// conv/bf16x2.h.
struct ConvBlock {
  const void* x;
  int64_t x_line, x_row, x_plane;
  int64_t lines, rows, columns;
  const Segment* segments;
  const int32_t* block_ends;  // the segments of reduction block b end at block_ends[b]
  int32_t blocks;
  const void* w;
  const float* bias;      // or null
  const float* residual;  // or null
  float* y;
  int64_t y_line, y_row;
  float scale;
  Activation activation;
  float* partial;  // partial_floats(...) floats, needed if blocks > 1
};
static constexpr int64_t partial_floats(int64_t lines, int64_t rows, int64_t columns) {
  // Of the widest register tile; rows are filled up to what a tile of AMX has.
  return lines * round_up(rows, 16) * (columns > kPanel ? 2 * kPanel : kPanel);
}

// A block of tiles of a 3 x 3 convolution of stride 1 by Winograd's method, m x m outputs each, numbered row
// by row, `across` in a row. y = activation(conv(x) + bias) + residual for `columns` outputs.
struct Winograd {
  int m;           // 2 or 4
  const float* x;  // (height, width, channels), channels a multiple of 16
  int64_t height, width, channels;
  int64_t top, left;  // zero padding
  int64_t across, first, tiles;
  int64_t columns;
  const float* w;         // panels, [plane][channels][width]
  const float* bias;      // or null
  const float* residual;  // or null; as y
  float* y;               // (out_height, out_width, pitch)
  int64_t out_height, out_width, pitch;
  Activation activation;
  float* scratch;  // winograd_floats(...)
};

// A rectangle of x (height, width, pitch) copied to `to` (lines, rows, to_pitch), `channels` of it, through a
// leaky ReLU, in the number format of the kernel; what lies outside x becomes zero. Channels are filled with
// zeros up to the format's depth.
struct InputCopy {
  const float* x;  // first channel wanted
  int64_t height, width, pitch;
  int64_t line, row;  // upper left corner, may be negative
  int64_t lines, rows, channels;
  float slope;  // 1: plain copy
  void* to;
  int64_t to_pitch;
  int64_t to_plane = 0;  // from one plane to the next, in a format that has planes
};

}  // namespace rvc_fast
