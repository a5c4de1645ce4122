// Arrays over a mapped file: packed weights used where they lie on disk.
#pragma once

#include <stdint.h>

#include <string>
#include <tuple>
#include <vector>

#include "core/primitive.h"

namespace rvc_fast {

// Offset in bytes, number of values, "float32" or "bfloat16".
using Span = std::tuple<int64_t, int64_t, std::string>;

// What must lie before each span in the file: a cache line, which MLX takes for its own.
constexpr int64_t kSpanLead = 64;

// One array (values,) per span of the open file `fd`, without reading or copying it where MLX allows that.
// The mapping is private and lives as long as the arrays do. Throws for a span that the file does not hold.
std::vector<mx::array> map_arrays(int fd, const std::vector<Span>& spans);

}  // namespace rvc_fast
