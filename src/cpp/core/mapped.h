// Arrays over memory that MLX did not allocate: packed weights where they lie on disk, and weights to be
// packed.
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

// An array over memory that is only read, without a copy where MLX allows that: for an op of ours that is
// evaluated before the memory goes. It must not reach an op of MLX's, which could write to it.
mx::array borrow(const void* data, mx::Shape shape, mx::Dtype type);

}  // namespace rvc_fast
