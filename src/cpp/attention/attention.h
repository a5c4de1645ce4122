// attention: softmax(scale * q k^T) v.
#pragma once

#include "core/primitive.h"

namespace rvc_fast {

// q (B, H, T, D), k and v (B, H, S, D), any strides. The result (B, H, T, D) lies in memory as (B, T, H, D),
// so that joining the heads of a row costs nothing.
mx::array attention(const mx::array& q, const mx::array& k, const mx::array& v, float scale,
                    mx::StreamOrDevice s);

// What `attention` and `relpos_attention` share. inputs: q, k, v, and perhaps rel_k and rel_v (2 window + 1,
// D), whose row window + d is added to the key and the value d steps after a query.
mx::array attend(const std::vector<mx::array>& inputs, float scale, mx::StreamOrDevice s);

}  // namespace rvc_fast
