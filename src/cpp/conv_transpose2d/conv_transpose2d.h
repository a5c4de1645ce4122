// conv_transpose2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), one ordinary convolution per output
// phase.
#pragma once

#include <utility>

#include "conv/conv.h"

namespace rvc_fast {

mx::array conv_transpose2d_pack(const mx::array& weight, std::pair<int, int> stride, const std::string& dtype,
                                mx::StreamOrDevice s);

mx::array conv_transpose2d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                           int out_channels, std::pair<int, int> kernel, std::pair<int, int> stride,
                           std::pair<int, int> padding, std::pair<int, int> output_padding,
                           const std::string& activation, const std::optional<mx::array>& beside,
                           mx::StreamOrDevice s);

}  // namespace rvc_fast
