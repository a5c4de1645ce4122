// Executes a planned convolution over plain pointers; no MLX inside.
#pragma once

#include <array>
#include <bit>
#include <string>
#include <vector>

#include "conv/format.h"
#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {

// Everything that does not depend on the input's shape. Index 0 is height, 1 is width (time).
struct ConvParams {
  std::string op;  // for messages
  std::array<int, 2> kernel{1, 1}, stride{1, 1}, dilation{1, 1};
  std::array<int, 2> before{0, 0},
      after{0, 0};  // zero padding; of a transposed one: what is cut off its result
  int in_channels = 1, out_channels = 1, groups = 1;
  bool transposed = false;
  float leaky = 1.0f;
  Activation activation = kNone;
  float scale = 1.0f;
  bool has_bias = false, has_residual = false;
  Format format = Format::float32;  // what the weight is packed in and multiplied in
  int beside = 0;                   // channels of another array that follow the result's own
  int tile = 1;  // outputs of a tile of Winograd's method along each axis, 2 or 4; 1 is the direct method

  bool operator==(const ConvParams&) const = default;
};

// A transposed convolution is `stride` ordinary ones, one per output phase, with every stride-th tap each.
// An ordinary one is the single phase (0, 0).
struct Phase {
  std::array<int, 2> at, taps;
  int64_t weights;  // where its packed weights start
};

std::vector<Phase> phases(const ConvParams& p);
// Values of the packed weight, of its own type.
int64_t packed_size(const ConvParams& p);

// Length of the output along one axis (0 height, 1 width); may be below 1.
int64_t output_length(const ConvParams& p, int axis, int64_t length);

struct ConvArrays {
  const float* x;  // (batch, height, width, in_channels)
  int64_t batch, height, width;
  const void* weights;  // packed
  const float* bias;
  const float* residual;
  float* y;  // (batch, out_height, out_width, out_channels + beside)
  int64_t out_height, out_width;
  const float* beside;  // (batch, out_height, out_width, beside), copied next to the result
};

Work conv_work(const ConvParams& p, const ConvArrays& a);

// weight: of any format; packed: of that of the parameters.
Work pack_work(const ConvParams& p, const void* weight, Format format, void* packed);

// Value i of a weight.
inline float widen(const void* from, Format format, int64_t i) {
  switch (format) {
    case Format::float32:
      return static_cast<const float*>(from)[i];
    case Format::bfloat16:
      return std::bit_cast<float>(uint32_t(static_cast<const uint16_t*>(from)[i]) << 16);
    default: {
      uint32_t h = static_cast<const uint16_t*>(from)[i];
      uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu, bits;
      if (magnitude < 0x0400u) {  // subnormal in float16, but not in float32
        bits = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
      } else {  // the exponent's bias is 127 in place of 15; all ones is infinity or NaN
        bits = (magnitude << 13) + (magnitude < 0x7c00u ? 112u << 23 : 0x7f800000u - (0x7c00u << 13));
      }
      return std::bit_cast<float>(bits | sign);
    }
  }
}

// Winograd's method for 3 x 3 taps of stride 1: the tile that is fastest for a shape, 1 if it cannot be.
int winograd_tile(const ConvParams& p);
int64_t winograd_packed_size(const ConvParams& p);
// weight (O, 3, 3, C) to panels of outputs, [panel][plane][C][width].
// Computed in double, on all threads.
Work pack_winograd(const ConvParams& p, const void* weight, Format format, float* packed);
Work winograd_work(const ConvParams& p, const ConvArrays& a);

}  // namespace rvc_fast
