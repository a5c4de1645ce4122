// Executes a planned convolution over plain pointers; no MLX inside.
#pragma once

#include <array>
#include <bit>
#include <optional>
#include <string>
#include <vector>

#include "conv/format.h"
#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {

// How a convolution is computed. Other methods than the direct one take fewer products.
enum class Method { direct, winograd, fast };
constexpr int kMethods = 3;

struct Algorithm {
  Method method = Method::direct;
  int number = 0;  // winograd: outputs of a tile along each axis, 2 or 4; fast: a variant of kFastVariants

  bool operator==(const Algorithm&) const = default;
};

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
  Algorithm algorithm{};            // that the weight is packed for

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

// What there is to know of a method.
struct MethodRow {
  const char* needs;  // of a weight and its use, for messages
  bool (*fits)(const ConvParams& p);
  // The fastest algorithm of this method for parameters that fit.
  Algorithm (*best)(const ConvParams& p);
  int64_t (*packed_size)(const ConvParams& p);
  Work (*pack)(const ConvParams& p, const void* weight, Format format, void* packed);
  Work (*work)(const ConvParams& p, const ConvArrays& a);
};

// 3 x 3 taps of stride 1 (conv/winograd.h). Packed weights are panels of outputs, [panel][plane][C][width].
extern const MethodRow kWinogradMethod;
// 3 to 11 taps of stride 1 along one axis (fastconv/).
extern const MethodRow kFastMethod;

const MethodRow& method_row(Method method);
std::string name_of(Algorithm algorithm);
std::optional<Algorithm> algorithm_of(const std::string& name);

}  // namespace rvc_fast
