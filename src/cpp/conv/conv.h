// Direct convolution of every kind rvc_fast has, as one engine: a two-dimensional, strided, dilated, grouped
// or transposed convolution over channels-last arrays, with leaky ReLU before and bias, activation, residual
// and scale after. One dimension is height 1; a linear layer is kernel size 1. The ops are thin wrappers.
#pragma once

#include <optional>
#include <string>

#include "conv/run.h"
#include "core/primitive.h"

namespace rvc_fast {

// weight (O, KH, KW, C / groups), float32, float16 or bfloat16, of any rank with those sizes in that order.
// The result's type is what the convolution will multiply in.
mx::array pack_conv(const ConvParams& p, const mx::array& weight, mx::StreamOrDevice s);

// x: 2-D (rows, C), 3-D (B, T, C) or 4-D (B, H, W, C). weight: what `pack_conv` made, or what it takes: that
// is then packed on the way, as "direct".
mx::array conv(ConvParams p, const mx::array& x, const mx::array& weight,
               const std::optional<mx::array>& bias, const std::optional<mx::array>& residual,
               mx::StreamOrDevice s, const std::optional<mx::array>& beside = std::nullopt);

// The algorithm that `wanted` ("auto", "direct", "fast" or an algorithm's name) means for a weight, direct or
// of the method; throws if it does not fit. "auto" is "direct" where that is faster in the parameters' format
// than the method in float32.
Algorithm choose_algorithm(ConvParams p, Method method, const std::string& wanted);

// The algorithm of that name; throws if there is none.
Algorithm parse_algorithm(const char* op, const std::string& name);

// The format that is called `dtype`; throws unless some CPU multiplies in it.
Format parse_format(const char* op, const std::string& dtype);

// Throws unless the instruction set in use multiplies in the format.
void require_format(const char* op, Format format);

// Arrays of a format, and the format of an array of weights (`is_floating`).
mx::Dtype dtype_of(Format format);
Format format_of(const mx::array& weight);

// "", "relu", "gelu", "sigmoid" or "tanh".
Activation parse_activation(const char* op, const std::string& name);

}  // namespace rvc_fast
