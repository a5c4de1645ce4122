// Arithmetic of whole numbers. Internal linkage: each translation unit has its own, whatever CPU it is built
// for.
#pragma once

#include <stdint.h>

namespace rvc_fast {

static constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static constexpr int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -ceil_div(-a, b); }
static constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace rvc_fast
