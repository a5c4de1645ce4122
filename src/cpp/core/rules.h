// How a primitive is differentiated: by rules that Python hands in, which go by the op's reference.
#pragma once

#include <memory>
#include <vector>

#include "mlx/array.h"

namespace rvc_fast {

namespace mx = mlx::core;

class Rules {
 public:
  virtual ~Rules() = default;

  // The gradients of `primals[argnums]`, given those of all outputs.
  virtual std::vector<mx::array> vjp(const std::vector<mx::array>& primals,
                                     const std::vector<mx::array>& cotangents,
                                     const std::vector<int>& argnums) const = 0;

  // The tangents of all outputs, given those of `primals[argnums]`.
  virtual std::vector<mx::array> jvp(const std::vector<mx::array>& primals,
                                     const std::vector<mx::array>& tangents,
                                     const std::vector<int>& argnums) const = 0;

  // The rules of the primitives that this thread is making, or null.
  static std::shared_ptr<const Rules>& current();
};

}  // namespace rvc_fast
