// The convolution of stride 1 along one axis by a fast variant: its plan. The kernel is in
// fastconv/same_conv.inc.
#include <algorithm>

#include "conv/run.h"
#include "core/pool.h"
#include "fastconv/same_conv.h"

namespace rvc_fast {
namespace {

// Tiles that share one pass over the weights, and the floats that their planes may take in L2.
constexpr int64_t kMostTiles = 96, kFewestTiles = 24, kPlaneFloats = 262144;
// Work items per thread where columns are split: every item transforms its inputs anew.
constexpr int64_t kItemsOfColumns = 2;

bool fast_fits(const ConvParams& p) {
  const bool line = p.kernel[0] == 1 && p.stride == std::array{1, 1} && p.dilation == std::array{1, 1} &&
                    p.before[0] == 0 && p.after[0] == 0 && p.groups == 1 && !p.transposed &&
                    p.format == Format::float32 && p.in_channels % 16 == 0;
  if (p.algorithm.method == Method::fast)
    return line && kFastVariants[p.algorithm.number].taps == p.kernel[1];
  return line && conv_variant(p.in_channels, p.out_channels, p.kernel[1]) != kDirect;
}

Algorithm fast_best(const ConvParams& p) {
  return {Method::fast, conv_variant(p.in_channels, p.out_channels, p.kernel[1])};
}

int64_t fast_size(const ConvParams& p) {
  return fast_packed_size(p.algorithm.number, p.in_channels, p.out_channels);
}

Work fast_pack(const ConvParams& p, const void* weight, Format format, void* packed) {
  return {.run = [=, variant = p.algorithm.number, channels = p.in_channels,
                  outputs = p.out_channels](const Scratch&) {
    pack_fast(variant, channels, outputs, weight, format, static_cast<float*>(packed));
  }};
}

Work fast_work(const ConvParams& p, const ConvArrays& a) {
  const Kernels& k = kernels();
  const FastVariant& v = kFastVariants[p.algorithm.number];
  const int64_t channels = p.in_channels, columns = p.out_channels, rows = a.out_width,
                lines = a.batch * a.height, tiles = ceil_div(rows, v.outputs);
  // Blocks of tiles of equal size, as many for each thread; then of pairs of panels where they are too few.
  const int64_t most = std::clamp(kPlaneFloats / (v.planes * channels), kFewestTiles, kMostTiles);
  int64_t blocks = ceil_div(tiles, most);
  if (blocks > 1) blocks = std::min(round_up(blocks, threads()), tiles);
  const int64_t block = ceil_div(tiles, blocks), pairs = ceil_div(columns, 2 * kPanel);
  blocks = ceil_div(tiles, block);
  const int64_t wanted = lines * blocks < threads() ? kItemsOfColumns * threads() / (lines * blocks) : 1;
  const int64_t split_columns = ceil_div(pairs, std::min(wanted, pairs)) * 2 * kPanel,
                splits = ceil_div(columns, split_columns);

  auto convolve = [=, &k](int64_t item, float* memory) {
    const int64_t split = item % splits, begin = item / splits % blocks * block,
                  line = item / splits / blocks, first = split * split_columns;
    const int64_t y = line * rows * columns + first;
    FastConv c{};
    c.variant = p.algorithm.number;
    c.x = a.x + line * a.width * channels;
    c.length = a.width, c.channels = channels, c.before = p.before[1];
    c.slope = p.leaky;
    c.first = begin, c.tiles = std::min(block, tiles - begin);
    c.columns = std::min(split_columns, columns - first);
    c.w = static_cast<const float*>(a.weights) + first * channels;
    c.w_plane = channels * round_up(columns, kNarrowPanel);
    c.bias = a.bias ? a.bias + first : nullptr;
    c.residual = a.residual ? a.residual + y : nullptr;
    c.y = a.y + y;
    c.rows = rows, c.pitch = columns;
    c.scale = p.scale, c.activation = p.activation;
    c.scratch = memory;
    k.fast_conv(c);
  };
  const int64_t items = lines * blocks * splits;
  return {.each = size_t(fast_conv_floats(p.algorithm.number, block, channels)),
          .run = [=](const Scratch& scratch) { parallel_for(items, scratch, convolve); }};
}

}  // namespace

const MethodRow kFastMethod = {
    .needs =
        "weight is multiplied in float32 and of shape (O, K, C), K what the algorithm is for and C a "
        "multiple of 16, and stride, dilation and groups are 1",
    .fits = fast_fits,
    .best = fast_best,
    .packed_size = fast_size,
    .pack = fast_pack,
    .work = fast_work,
};

}  // namespace rvc_fast
