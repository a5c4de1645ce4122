// bigru: the recurrence of a bidirectional GRU over gates that are projected already.
#pragma once

#include <utility>

#include "core/primitive.h"

namespace rvc_fast {

// forward, backward: (B, T, 3H), the latter read from its end; w_hh (2, 3H, H); b_hh (2, 3H); h (2, B, H) the
// states before. Returns the states of both directions, (B, T, H) each, in order of time.
std::pair<mx::array, mx::array> bigru(const mx::array& forward, const mx::array& backward,
                                      const mx::array& w_hh, const mx::array& b_hh, const mx::array& h,
                                      mx::StreamOrDevice s);

}  // namespace rvc_fast
