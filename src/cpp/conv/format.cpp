#include "conv/format.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "conv/run.h"

namespace rvc_fast {
namespace {

// To nearest, ties to even.
uint16_t to_bfloat16(float f) {
  uint32_t bits = std::bit_cast<uint32_t>(f);
  if (f != f) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float value(const Tap& t, int64_t column, int64_t channel) {
  return widen(t.weight, t.format, t.from + column * t.row + channel);
}

// To [channels][width].
void pack_float32(const Tap& t, void* packed) {
  auto* to = static_cast<float*>(packed);
  for (int64_t block = 0; block < t.channels; block += 64) {  // 8 KB of output at a time
    const int64_t end = std::min(t.channels, block + 64);
    for (int64_t o = 0; o < t.width; ++o) {
      for (int64_t c = block; c < end; ++c) to[c * t.width + o] = o < t.columns ? value(t, o, c) : 0.0f;
    }
  }
}

// To [block of channels][columns / 16][pair][16][2].
void pack_bfloat16(const Tap& t, void* packed) {
  auto* to = static_cast<uint16_t*>(packed);
  for (int64_t block = 0; block < t.channels; block += kPairedDepth, to += kPairedDepth * t.width) {
    for (int64_t o = 0; o < t.width; ++o) {
      uint16_t* column = to + o / kNarrowPanel * kNarrowPanel * kPairedDepth + o % kNarrowPanel * 2;
      for (int64_t i = 0; i < kPairedDepth; ++i) {
        column[i / 2 * 2 * kNarrowPanel + i % 2] =
            o < t.columns && block + i < t.channels ? to_bfloat16(value(t, o, block + i)) : 0;
      }
    }
  }
}

// To [block of channels][columns / 16][four][16][4] whole numbers, then [width] float32 scales and [width]
// int32 sums.
void pack_int8(const Tap& t, void* packed) {
  auto* to = static_cast<int8_t*>(packed);
  const int64_t filled = round_up(t.channels, kQuadDepth);
  auto* scales = reinterpret_cast<float*>(to + filled * t.width);
  auto* sums = reinterpret_cast<int32_t*>(scales + t.width);
  for (int64_t o = 0; o < t.width; ++o) {
    float most = 0;
    bool finite = true;
    for (int64_t c = 0; o < t.columns && c < t.channels; ++c) {
      const float v = value(t, o, c);
      most = std::max(most, std::abs(v));
      finite = finite && std::isfinite(v);
    }
    const float scale = most / 127.0f;
    const float by = scale >= std::numeric_limits<float>::min() ? 1.0f / scale : 0.0f;
    int8_t* column = to + o / kNarrowPanel * kNarrowPanel * kQuadDepth + o % kNarrowPanel * 4;
    int32_t sum = 0;
    for (int64_t c = 0; c < filled; ++c) {
      const bool used = o < t.columns && c < t.channels && finite;
      const auto q =
          static_cast<int8_t>(used ? std::clamp(std::nearbyint(value(t, o, c) * by), -127.0f, 127.0f) : 0);
      column[c / kQuadDepth * kQuadDepth * t.width + c % kQuadDepth / 4 * 4 * kNarrowPanel + c % 4] = q;
      sum += q;
    }
    scales[o] = finite ? scale : std::numeric_limits<float>::quiet_NaN();
    sums[o] = sum;
  }
}

// In the order of Format.
constexpr FormatRow kRows[kFormats] = {
    {
        .name = "float32",
        .bytes = 4,
        .pack = pack_float32,
        .needs = "",
        .converts = false,
        .depth = 1,
        .longest = 4096,  // its panel of weights (512 KB) stays in L2
        .copy_values = 32768,
        .items_per_thread = 8,
    },
    {
        .name = "float16",
        .bytes = 2,
        .pack = nullptr,
        .needs = "",
        .converts = true,
        .depth = 1,
        .longest = 0,
        .copy_values = 0,
        .items_per_thread = 0,
    },
    {
        .name = "bfloat16",
        .bytes = 2,
        .pack = pack_bfloat16,
        .needs = "AMX-BF16 or AVX512-BF16",
        .converts = true,
        .depth = kPairedDepth,
        .longest = INT64_MAX,
        .copy_values = 65536,
        // Products take so little time that copying the same input for several splits of the columns would
        // take as much.
        .items_per_thread = 3,
    },
    {
        .name = "int8",
        .bytes = 1,
        .pack = pack_int8,
        .needs = "AVX512-VNNI, AVX-VNNI or the dot products of Arm",
        .converts = true,
        .depth = kQuadDepth,
        .longest = INT64_MAX,
        .copy_values = 131072,
        .items_per_thread = 3,
        .row_extra = kRowScaleBytes,
        .column_extra = kColumnScaleBytes,
    },
};

}  // namespace

const FormatRow& format_row(Format format) { return kRows[static_cast<int>(format)]; }

}  // namespace rvc_fast
