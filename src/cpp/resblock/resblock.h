// resblock: (B, T, C) -> (B, T, C), the mean of the residual blocks of one decoder stage.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/primitive.h"

namespace rvc_fast {

// One convolution: kernel, dilation, algorithm ("direct" or the name of a fast variant), whether it ends a
// step, whether it ends a block.
using ResConvSpec = std::tuple<int, int, std::string, bool, bool>;

// Name of the algorithm that `wanted` ("auto", "direct", "fast" or a variant's name) means for this shape.
// "auto" of dtype "bfloat16" is "direct" where that is faster in bfloat16 than a fast one in float32.
std::string resblock_algorithm(int channels, int kernel, const std::string& wanted, const std::string& dtype);

// weight (C, K, C) -> the layout of one algorithm, by name; that of "direct" is conv1d's.
// Only "direct" can be of dtype "bfloat16".
mx::array resblock_pack(const mx::array& weight, const std::string& algorithm, const std::string& dtype,
                        mx::StreamOrDevice s);

// One packed weight and one bias (or none) per convolution.
mx::array resblock(const mx::array& x, const std::vector<mx::array>& packed,
                   const std::vector<std::optional<mx::array>>& biases, const std::vector<ResConvSpec>& convs,
                   float slope, mx::StreamOrDevice s);

}  // namespace rvc_fast
