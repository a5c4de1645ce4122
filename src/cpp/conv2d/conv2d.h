// conv2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), stride 1.
#pragma once

#include <utility>

#include "conv/conv.h"

namespace rvc_fast {

// The algorithm that "auto" or "fast" stands for with a weight (O, KH, KW, C), or the one that is named:
// "direct", or "winograd2" or "winograd4" by the outputs of a tile along each axis.
std::string conv2d_algorithm(const std::vector<int>& shape, const std::string& wanted,
                             const std::string& dtype);

mx::array conv2d_pack(const mx::array& weight, const std::string& algorithm, const std::string& dtype,
                      mx::StreamOrDevice s);

mx::array conv2d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, std::pair<int, int> kernel,
                 std::pair<int, int> padding, const std::string& activation, const std::string& algorithm,
                 mx::StreamOrDevice s);

}  // namespace rvc_fast
