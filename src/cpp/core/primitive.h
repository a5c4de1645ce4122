// What the primitives share: output memory and the way onto the stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/pool.h"
#include "core/rules.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"

namespace rvc_fast {

namespace mx = mlx::core;

// A CPU-only primitive. Every one states its `output_shapes`; its outputs are float32, or of `output_type`.
class CpuPrimitive : public mx::Primitive, public std::enable_shared_from_this<CpuPrimitive> {
 public:
  explicit CpuPrimitive(mx::Stream stream) : mx::Primitive(stream), rules_(Rules::current()) {}

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override;

  std::vector<mx::array> vjp(const std::vector<mx::array>& primals, const std::vector<mx::array>& cotangents,
                             const std::vector<int>& argnums, const std::vector<mx::array>& outputs) override;
  std::vector<mx::array> jvp(const std::vector<mx::array>& primals, const std::vector<mx::array>& tangents,
                             const std::vector<int>& argnums) override;
  // One call for each item: a kernel is fast on one already.
  std::pair<std::vector<mx::array>, std::vector<int>> vmap(const std::vector<mx::array>& inputs,
                                                           const std::vector<int>& axes) override;

 protected:
  virtual mx::Dtype output_type(int) const { return mx::float32; }
  // Takes the memory of the work, which throws std::bad_alloc where there is none, and gives both to the
  // stream.
  void dispatch(Work work);

 private:
  const Rules& rules() const;

  std::shared_ptr<const Rules> rules_;
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
