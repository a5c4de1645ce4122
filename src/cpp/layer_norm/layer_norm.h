// layer_norm: (x + residual - mean) / sqrt(variance + eps) * weight + bias over the last axis.
#pragma once

#include <optional>

#include "core/primitive.h"

namespace rvc_fast {

mx::array layer_norm(const mx::array& x, const std::optional<mx::array>& weight,
                     const std::optional<mx::array>& bias, const std::optional<mx::array>& residual,
                     float eps, mx::StreamOrDevice s);

}  // namespace rvc_fast
