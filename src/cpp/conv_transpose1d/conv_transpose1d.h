// conv_transpose1d: (B, T, C) * (O, K, C) -> (B, T', O), as `stride` ordinary convolutions: no zeros are
// multiplied.
#pragma once

#include "conv/conv.h"

namespace rvc_fast {

mx::array conv_transpose1d_pack(const mx::array& weight, int stride, const std::string& dtype,
                                mx::StreamOrDevice s);

mx::array conv_transpose1d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                           const std::optional<mx::array>& residual, int out_channels, int kernel, int stride,
                           int padding, int output_padding, float leaky, mx::StreamOrDevice s);

}  // namespace rvc_fast
