// A convolution C -> C that keeps the length, over some rows of a padded buffer: the unit of work that a
// residual stage is made of. Implemented once per instruction set (fastconv/same_conv.inc).
#pragma once

#include <stdint.h>

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
// kDirect - 1 if there is none of that name; "direct" is kDirect.
int find_variant(const char* name);

// Tiles of a fast variant that cover `rows`, and the rows that they write.
int64_t tile_count(const SameConv& c);
int64_t written_rows(const SameConv& c);
// Rows of a direct convolution that share one pass over the weights and stay in the cache meanwhile.
int64_t direct_rows(const SameConv& c);
int64_t same_conv_workspace(const SameConv& c);

int64_t fast_packed_size(int variant, int channels);
// weight (channels, taps, channels) = (out, tap, in) -> the planes' matrices, panels of 32 outputs (a last
// one of 16 or fewer is 16 wide): [plane][panel][in][out]. Computed in double, on all threads.
void pack_fast(int variant, int channels, const float* weight, float* packed);

}  // namespace rvc_fast
