// conv2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), stride 1.
#pragma once

#include <utility>

#include "conv/conv.h"

namespace rvc_fast {

mx::array conv2d_pack(const mx::array& weight, const std::string& dtype, mx::StreamOrDevice s);

mx::array conv2d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, std::pair<int, int> kernel,
                 std::pair<int, int> padding, const std::string& activation, mx::StreamOrDevice s);

}  // namespace rvc_fast
