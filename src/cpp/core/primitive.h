// What the primitives share: output memory and the way onto the stream.
#pragma once

#include <string>
#include <vector>

#include "mlx/ops.h"
#include "mlx/primitives.h"

namespace rvc_fast {

namespace mx = mlx::core;

// A CPU-only primitive.
class CpuPrimitive : public mx::Primitive {
 public:
  using mx::Primitive::Primitive;
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override;
};

// Gives `out` memory of its own, in huge pages where it is large and the system has them.
void allocate(mx::array& out);

// The array as the kernels want it: `type`, row-contiguous.
mx::array dense(const mx::array& x, mx::Dtype type, mx::StreamOrDevice s);

// `dense` of an array that a kernel only reads: one that is so already goes to it as it is.
mx::array readable(const mx::array& x, mx::Dtype type, mx::StreamOrDevice s);

bool is_floating(const mx::array& x);

// Throws std::invalid_argument "[op] message" unless `ok`.
void require(bool ok, const char* op, const std::string& message);

std::string to_string(const mx::Shape& shape);

}  // namespace rvc_fast
