// Arrays of what MLX did not compute: packed weights that are read from disk, and weights to be packed.
#pragma once

#include <stdint.h>

#include <string>
#include <tuple>
#include <vector>

#include "core/primitive.h"

namespace rvc_fast {

// Offset in bytes, number of values, "float32", "bfloat16" or "int8".
using Span = std::tuple<int64_t, int64_t, std::string>;

// One array (values,) per span of the open file `fd`, read by all threads. Throws for a span that the file
// does not hold, and where it cannot be read.
//
// All of them lie in one block of memory, which lives as long as any of them does: a block is large enough
// for the system's huge pages, and most weights are not.
//
// The file is not mapped: a process that reads from a mapped file is ended by the system if another one
// truncates it.
std::vector<mx::array> read_arrays(int fd, const std::vector<Span>& spans);

// An array over memory that is only read, without a copy where MLX allows that: for an op of ours that is
// evaluated before the memory goes. It must not reach an op of MLX's, which could write to it.
mx::array borrow(const void* data, mx::Shape shape, mx::Dtype type);

}  // namespace rvc_fast
