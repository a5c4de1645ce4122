// Direct convolution of every kind rvc_fast has, as one engine: a two-dimensional, strided, dilated, grouped
// or transposed convolution over channels-last arrays, with leaky ReLU before and bias, activation, residual
// and scale after. One dimension is height 1; a linear layer is kernel size 1. The ops are thin wrappers.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "core/primitive.h"
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
  bool bf16 = false;  // the weight is packed in bfloat16 and multiplied so

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

// weight (O, KH, KW, C / groups), float32, float16 or bfloat16, of any rank with those sizes in that order.
// The result's type is what the convolution will multiply in.
mx::array pack_conv(const ConvParams& p, const mx::array& weight, mx::StreamOrDevice s);

// x: 2-D (rows, C), 3-D (B, T, C) or 4-D (B, H, W, C).
mx::array conv(ConvParams p, const mx::array& x, const mx::array& packed,
               const std::optional<mx::array>& bias, const std::optional<mx::array>& residual,
               mx::StreamOrDevice s);

// Whether `dtype`, "float32" or "bfloat16", is the latter.
bool parse_dtype(const char* op, const std::string& dtype);

// Throws unless the instruction set in use multiplies in bfloat16.
void require_bf16(const char* op);

// "", "relu" or "gelu".
Activation parse_activation(const char* op, const std::string& name);

}  // namespace rvc_fast
