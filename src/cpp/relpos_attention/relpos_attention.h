// relpos_attention: self-attention with learned relative positions in a window.
#pragma once

#include "core/primitive.h"

namespace rvc_fast {

// q, k, v (B, H, T, D), rel_k and rel_v (2 window + 1, D), any strides; the result's memory is as of
// `attention`.
mx::array relpos_attention(const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& rel_k,
                           const mx::array& rel_v, int window, mx::StreamOrDevice s);

}  // namespace rvc_fast
