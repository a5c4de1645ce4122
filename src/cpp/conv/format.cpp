#include "conv/format.h"

#include <algorithm>
#include <bit>
#include <cstdint>

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

// In the order of Format.
constexpr FormatRow kRows[kFormats] = {
    {
        .name = "float32",
        .bytes = 4,
        .pack = pack_float32,
        .needs = "",
        .converts = false,
        .depth = 1,
        .longest = 1024,  // its pair of panels of weights (256 KB) stays in L2
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
};

}  // namespace

const FormatRow& format_row(Format format) { return kRows[static_cast<int>(format)]; }

}  // namespace rvc_fast
