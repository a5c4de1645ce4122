// wavenet_gate: tanh of one half of the channels times the sigmoid of the other.
#pragma once

#include "core/primitive.h"

namespace rvc_fast {

// x (B, T, 2H), g (B or 1, T or 1, 2H); returns (B, T, H).
mx::array wavenet_gate(const mx::array& x, const mx::array& g, mx::StreamOrDevice s);

}  // namespace rvc_fast
