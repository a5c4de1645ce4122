// A convolution C -> C that keeps the length, over some rows of a padded buffer: the unit of work that a
// residual stage is made of. Implemented once per instruction set (fastconv/same_conv.inc).
#pragma once

#include <stdint.h>

#include "conv/format.h"
#include "conv/kernel.h"

namespace rvc_fast {

// y[t] = bias + sum over taps of leaky(x[t + (tap - taps / 2) * dilation]) * w + residual[t] + total[t]
//
// All rows are `channels` long. A fast variant computes whole tiles: it reads x from row -reach(before) up to
// `read_rows` and writes y (and reads residual and total) up to `written_rows`, so the buffers must be that
// long; what it writes from `rows` on is meaningless, and what it reads beyond must be finite.
struct SameConv {
  const float* x;  // row of the first output
  int64_t rows;
  int channels, taps, dilation;
  float slope;
  int variant;     // of kFastVariants, or -1 for the direct method
  int block;       // fast: tiles per pass over the weights
  const float* w;  // packed for that variant
  const float* bias;
  const float* residual;  // or null
  const float* total;     // or null; only with residual
  float* y;               // may be residual or total, not x
  float* workspace;       // same_conv_workspace(...) floats
};

// Tiles of a convolution along the rows of x (length, channels), stride and dilation 1, zeros before and
// after: y = (activation(conv(leaky(x)) + bias) + residual) * scale for `columns` outputs. Tile i makes the
// rows from i * outputs on.
struct FastConv {
  int variant;     // of kFastVariants
  const float* x;  // channels a multiple of 16
  int64_t length, channels;
  int64_t before;  // zeros before x
  float slope;
  int64_t first, tiles;
  int64_t columns;
  const float* w;         // panels of the first plane, [channels][width] each
  int64_t w_plane;        // floats from a plane to the next
  const float* bias;      // or null
  const float* residual;  // or null; as y
  float* y;               // (rows, pitch)
  int64_t rows, pitch;
  float scale;
  Activation activation;
  float* scratch;  // fast_conv_floats(...)
};
int64_t fast_conv_floats(int variant, int64_t tiles, int64_t channels);

// One variant of the fast algorithm: tiles of `inputs` rows become `outputs` rows through `planes` matrix
// products.
struct FastVariant {
  const char* name;
  int taps, inputs, outputs, planes;
  const double* weights;  // [planes][taps]
};

extern const FastVariant kFastVariants[];
extern const int kFastVariantCount;

constexpr int kDirect = -1;

// The variant that is fastest for this shape, kDirect where none is or none exists.
int best_variant(int channels, int taps);
// The same for a convolution by itself. Its variants round less, since its results are not added to what they
// were made of.
int conv_variant(int channels, int outputs, int taps);
// kDirect - 1 if there is none of that name; "direct" is kDirect.
int find_variant(const char* name);

// Tiles of a fast variant that cover `rows`, and the rows that they write.
int64_t tile_count(const SameConv& c);
int64_t written_rows(const SameConv& c);
// Rows of a direct convolution that share one pass over the weights and stay in the cache meanwhile.
int64_t direct_rows(const SameConv& c);
int64_t same_conv_workspace(const SameConv& c);

int64_t fast_packed_size(int variant, int channels, int outputs);
// weight (outputs, taps, channels) -> the planes' matrices, panels of 32 outputs (a last one of 16 or fewer
// is 16 wide): [plane][panel][channel][output]. Computed in double, on all threads.
void pack_fast(int variant, int channels, int outputs, const void* weight, Format format, float* packed);

}  // namespace rvc_fast
