#include "core/bindings.h"

#include "linear/linear.h"

namespace rvc_fast {

void bind_linear(nb::module_& m) {
  m.def("linear_pack", &linear_pack, "weight"_a, "dtype"_a = "float32", "stream"_a = kCpu);
  m.def("linear", &linear, "x"_a, "packed"_a, "bias"_a.none(), "residual"_a.none(), "out_channels"_a,
        "activation"_a = "", "stream"_a = kCpu);
}

}  // namespace rvc_fast
