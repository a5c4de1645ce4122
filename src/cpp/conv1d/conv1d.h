// conv1d: (B, T, C) * (O, K, C / groups) -> (B, T', O).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "conv/conv.h"

namespace rvc_fast {

// Name of the algorithm that `wanted` means for a weight of this shape, see `choose_algorithm`.
std::string conv1d_algorithm(const std::vector<int>& shape, int groups, const std::string& wanted,
                             const std::string& dtype);

mx::array conv1d_pack(const mx::array& weight, int groups, const std::string& algorithm,
                      const std::string& dtype, mx::StreamOrDevice s);

mx::array conv1d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, int kernel, int stride,
                 std::pair<int, int> padding, int dilation, int groups, float leaky,
                 const std::string& activation, float scale, const std::string& algorithm,
                 mx::StreamOrDevice s);

}  // namespace rvc_fast
