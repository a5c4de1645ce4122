#include "core/bindings.h"

#include "quantized_linear/quantized_linear.h"

namespace rvc_fast {

void bind_quantized_linear(nb::module_& m) {
  m.def("quantized_linear", &quantized_linear, "x"_a, "weight"_a, "scales"_a, "biases"_a, "bias"_a.none(),
        "residual"_a.none(), "group_size"_a, "bits"_a, "activation"_a = "", "stream"_a = kCpu);
}

}  // namespace rvc_fast
