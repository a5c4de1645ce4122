// The 3 x 3 convolution by Winograd's method: its weights and its plan. The kernel is conv/winograd.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "conv/run.h"
#include "core/pool.h"

namespace rvc_fast {
namespace {

// Tiles that share one pass over the weights; their planes stay in L2 as far as they can.
constexpr int64_t kTiles = 48;
// Work items per thread where columns are split: every item transforms its inputs anew.
constexpr int64_t kItemsPerThread = 2;

// One axis: from three taps to m + 2 planes, their polynomial at each point over the product of the point's
// distances from the others. The last point is infinity.
std::vector<std::array<double, 3>> tap_factors(int m) {
  const std::vector<double> points =
      m == 2 ? std::vector{0.0, 1.0, -1.0}
             : std::vector{0.0, std::sqrt(0.5), -std::sqrt(0.5), std::sqrt(2.0), -std::sqrt(2.0)};
  std::vector<std::array<double, 3>> factors;
  for (double p : points) {
    double distances = 1;
    for (double other : points) distances *= other == p ? 1 : p - other;
    factors.push_back({1 / distances, p / distances, p * p / distances});
  }
  factors.push_back({0, 0, 1});
  return factors;
}

bool winograd_fits(const ConvParams& p) {
  return p.kernel == std::array{3, 3} && p.stride == std::array{1, 1} && p.dilation == std::array{1, 1} &&
         p.groups == 1 && !p.transposed && p.format == Format::float32 && p.in_channels % 16 == 0;
}

Algorithm winograd_best(const ConvParams& p) {
  // Wide layers have few tiles: their 36 planes of weights would take longer to fetch than they save.
  return {Method::winograd, int64_t(p.in_channels) * p.out_channels <= 256 * 128 ? 4 : 2};
}

int64_t winograd_size(const ConvParams& p) {
  const int64_t side = p.algorithm.number + 2;
  return side * side * p.in_channels * round_up(p.out_channels, kNarrowPanel);
}

// Computed in double, on all threads.
Work pack_winograd(const ConvParams& p, const void* weight, Format format, void* packed) {
  const auto factors = tap_factors(p.algorithm.number);
  const int64_t side = p.algorithm.number + 2, channels = p.in_channels,
                padded = round_up(p.out_channels, kNarrowPanel);
  constexpr int64_t kInputs = 16;
  const int64_t steps = ceil_div(channels, kInputs);
  auto pack_item = [=, out_channels = p.out_channels](int64_t item) {
    const int64_t first = item / steps * kPanel, width = std::min<int64_t>(kPanel, padded - first),
                  used = std::min<int64_t>(width, out_channels - first);
    const int64_t begin = item % steps * kInputs, inputs = std::min(kInputs, channels - begin);
    double taps[3][3][kInputs][kPanel] = {};
    for (int64_t o = 0; o < used; ++o) {
      for (int tap = 0; tap < 9; ++tap) {
        const int64_t from = ((first + o) * 9 + tap) * channels + begin;
        for (int64_t i = 0; i < inputs; ++i) taps[tap / 3][tap % 3][i][o] = widen(weight, format, from + i);
      }
    }
    float* to = static_cast<float*>(packed) + first * side * side * channels + begin * width;
    for (int64_t h = 0; h < side; ++h) {
      double rows[3][kInputs][kPanel];
      for (int k = 0; k < 3; ++k) {
        for (int64_t i = 0; i < kInputs; ++i) {
          for (int o = 0; o < kPanel; ++o) {
            rows[k][i][o] = factors[h][0] * taps[0][k][i][o] + factors[h][1] * taps[1][k][i][o] +
                            factors[h][2] * taps[2][k][i][o];
          }
        }
      }
      for (int64_t w = 0; w < side; ++w) {
        const double f0 = factors[w][0], f1 = factors[w][1], f2 = factors[w][2];
        float* at = to + (h * side + w) * channels * width;
        for (int64_t i = 0; i < inputs; ++i, at += width) {
          for (int64_t o = 0; o < width; ++o)
            at[o] = static_cast<float>(f0 * rows[0][i][o] + f1 * rows[1][i][o] + f2 * rows[2][i][o]);
        }
      }
    }
  };
  const int64_t items = ceil_div(padded, 32) * steps;
  return {.run = [=](const Scratch&) { parallel_for(items, pack_item); }};
}

Work winograd_work(const ConvParams& p, const ConvArrays& a) {
  const Kernels& k = kernels();
  const int64_t m = p.algorithm.number, planes = (m + 2) * (m + 2), across = ceil_div(a.out_width, m),
                tiles = across * ceil_div(a.out_height, m);
  // Blocks of tiles of equal size, as many for each thread; then of panels of outputs where they are too few.
  int64_t blocks = ceil_div(tiles, kTiles);
  if (blocks > threads()) blocks = std::min(ceil_div(blocks, threads()) * threads(), tiles);
  const int64_t block = ceil_div(tiles, blocks), panels = ceil_div(p.out_channels, kPanel);
  blocks = ceil_div(tiles, block);
  const int64_t wanted = ceil_div(kItemsPerThread * threads(), a.batch * blocks);
  const int64_t split_panels = ceil_div(panels, std::min(wanted, panels)),
                splits = ceil_div(panels, split_panels);

  auto convolve = [=, &k](int64_t item, float* memory) {
    const int64_t split = item % splits, begin = item / splits % blocks * block,
                  batch = item / splits / blocks, first = split * split_panels * kPanel;
    const int64_t y = batch * a.out_height * a.out_width * p.out_channels + first;
    Winograd b{};
    b.m = p.algorithm.number;
    b.x = a.x + batch * a.height * a.width * p.in_channels;
    b.height = a.height, b.width = a.width, b.channels = p.in_channels;
    b.top = p.before[0], b.left = p.before[1];
    b.across = across, b.first = begin, b.tiles = std::min(block, tiles - begin);
    b.columns = std::min<int64_t>(split_panels * kPanel, p.out_channels - first);
    b.w = static_cast<const float*>(a.weights) + first * planes * p.in_channels;
    b.bias = a.bias ? a.bias + first : nullptr;
    b.residual = a.residual ? a.residual + y : nullptr;
    b.y = a.y + y;
    b.out_height = a.out_height, b.out_width = a.out_width, b.pitch = p.out_channels;
    b.activation = p.activation;
    b.scratch = memory;
    k.winograd(b);
  };
  const int64_t items = a.batch * blocks * splits;
  return {.each = size_t(k.winograd_floats(m, block, p.in_channels)),
          .run = [=](const Scratch& scratch) { parallel_for(items, scratch, convolve); }};
}

}  // namespace

const MethodRow kWinogradMethod = {
    .needs = "weight is multiplied in float32 and of shape (O, 3, 3, C), C a multiple of 16",
    .fits = winograd_fits,
    .best = winograd_best,
    .packed_size = winograd_size,
    .pack = pack_winograd,
    .work = winograd_work,
};

}  // namespace rvc_fast
