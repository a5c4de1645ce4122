// quantized_linear: (..., C) times a weight (O, C) of 4 or 8 bits in MLX's affine convention -> (..., O).
#pragma once

#include <optional>
#include <string>

#include "core/primitive.h"

namespace rvc_fast {

// weight (O, C * bits / 32) uint32; scales and biases (O, C / group_size).
mx::array quantized_linear(const mx::array& x, const mx::array& weight, const mx::array& scales,
                           const mx::array& biases, const std::optional<mx::array>& bias,
                           const std::optional<mx::array>& residual, int group_size, int bits,
                           const std::string& activation, mx::StreamOrDevice s);

}  // namespace rvc_fast
