// linear: (..., C) * (O, C) -> (..., O), a convolution of one tap.
#pragma once

#include "conv/conv.h"

namespace rvc_fast {

mx::array linear_pack(const mx::array& weight, const std::string& dtype, mx::StreamOrDevice s);

mx::array linear(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, const std::string& activation,
                 mx::StreamOrDevice s);

}  // namespace rvc_fast
