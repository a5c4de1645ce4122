#include "fastconv/same_conv.h"

#include <algorithm>
#include <cstring>

#include "conv/kernel.h"
#include "conv/run.h"
#include "core/pool.h"
#include "fastconv_variants.h"

namespace rvc_fast {

const FastVariant kFastVariants[] = {
#define RVC_VARIANT(name, taps, inputs, outputs, planes) \
  {#name, taps, inputs, outputs, planes, &weights_##name[0][0]},
    FASTCONV_VARIANTS(RVC_VARIANT)
#undef RVC_VARIANT
};
const int kFastVariantCount = sizeof kFastVariants / sizeof kFastVariants[0];

int find_variant(const char* name) {
  if (std::strcmp(name, "direct") == 0) return kDirect;
  for (int i = 0; i < kFastVariantCount; ++i) {
    if (std::strcmp(kFastVariants[i].name, name) == 0) return i;
  }
  return kDirect - 1;
}

int best_variant(int channels, int taps) {
  // The matrix products need whole vectors of channels. Larger cyclic lengths save up to 7 % of the products,
  // and lose that to their transforms and to weights that leave the cache; measured in same_conv.inc.
  if (channels % 16 != 0) return kDirect;
  switch (taps) {
    case 3:
      return find_variant("k3n2e8");
    case 7:
      return find_variant("k7n8e10");
    case 11:
      return find_variant("k11n16e10");
    default:
      return kDirect;
  }
}

int conv_variant(int channels, int outputs, int taps) {
  // Two cores with AVX-512, 1200 rows: 192 -> 384 with 5 taps takes 1.3 ms for 2.9, 192 -> 768 and back with
  // 3 taps 1.9 for 3.6. k3n2e8 is no faster, and where a loud step lies beside one 40 dB below, the quiet one
  // keeps 78 dB of it, 91 of k3n2e6 and 100 of k5n4e6.
  if (channels % 16 != 0 || channels < 64 || outputs < 64) return kDirect;
  return taps == 3 ? find_variant("k3n2e6") : taps == 5 ? find_variant("k5n4e6") : kDirect;
}

int64_t tile_count(const SameConv& c) {
  int64_t group = int64_t(c.dilation) * kFastVariants[c.variant].outputs;
  return c.rows / group * c.dilation + std::min<int64_t>(c.rows % group, c.dilation);
}

int64_t written_rows(const SameConv& c) {
  if (c.variant == kDirect) return c.rows;
  int64_t group = int64_t(c.dilation) * kFastVariants[c.variant].outputs;
  return round_up(c.rows, group);
}

int64_t direct_rows(const SameConv& c) {
  constexpr int64_t kFloats = 65536, kTile = 12;  // a multiple of every instruction set's rows of a tile
  const int64_t group = kTile * c.dilation;
  return std::max<int64_t>(std::max(kFloats / c.channels, 8 * kTile) / group, 1) * group;
}

int64_t same_conv_workspace(const SameConv& c) {
  if (c.variant == kDirect) {
    int64_t rows = std::min(c.rows, direct_rows(c)), d = c.dilation;
    return d * (rows / d + c.taps) * c.channels;
  }
  int64_t tiles = std::min<int64_t>(c.block, tile_count(c));
  return (kFastVariants[c.variant].planes + 1) * (tiles * c.channels + 16);
}

int64_t fast_conv_floats(int variant, int64_t tiles, int64_t channels) {
  const FastVariant& v = kFastVariants[variant];
  return v.planes * (tiles * (channels + 2 * kPanel) + 32) +
         v.inputs * std::max<int64_t>(channels, 2 * kPanel);
}

int64_t fast_packed_size(int variant, int channels, int outputs) {
  return int64_t(kFastVariants[variant].planes) * channels * round_up(outputs, kNarrowPanel);
}

void pack_fast(int variant, int channels, int outputs, const void* weight, Format format, float* packed) {
  const FastVariant& v = kFastVariants[variant];
  constexpr int kMaxTaps = 16, kInputs = 8;
  int64_t panels = ceil_div(outputs, kPanel), padded = round_up(outputs, kNarrowPanel),
          plane = channels * padded;
  parallel_for(panels, [&](int64_t panel) {
    int64_t first = panel * kPanel, width = std::min<int64_t>(kPanel, padded - first);
    int64_t used = std::min<int64_t>(width, outputs - first);
    double taps[kMaxTaps][kInputs][kPanel] = {};
    for (int64_t in = 0; in < channels; in += kInputs) {
      int64_t inputs = std::min<int64_t>(kInputs, channels - in);
      for (int64_t o = 0; o < used; ++o) {
        for (int j = 0; j < v.taps; ++j) {
          const int64_t from = ((first + o) * v.taps + j) * channels + in;
          for (int64_t i = 0; i < inputs; ++i) taps[j][i][o] = widen(weight, format, from + i);
        }
      }
      for (int p = 0; p < v.planes; ++p) {
        const double* factor = v.weights + p * v.taps;
        float* to = packed + p * plane + first * channels + in * width;
        for (int64_t i = 0; i < inputs; ++i, to += width) {
          double sum[kPanel];
          for (int o = 0; o < kPanel; ++o) sum[o] = factor[0] * taps[0][i][o];
          for (int j = 1; j < v.taps; ++j) {
            for (int o = 0; o < kPanel; ++o) sum[o] += factor[j] * taps[j][i][o];
          }
          for (int64_t o = 0; o < width; ++o) to[o] = static_cast<float>(sum[o]);
        }
      }
    }
  });
}

}  // namespace rvc_fast
