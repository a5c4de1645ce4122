#include "core/bindings.h"

#include "layer_norm/layer_norm.h"

namespace rvc_fast {

void bind_layer_norm(nb::module_& m) {
  m.def("layer_norm", &layer_norm, "x"_a, "weight"_a.none() = nb::none(), "bias"_a.none() = nb::none(),
        "residual"_a.none() = nb::none(), "eps"_a = 1e-5f, "stream"_a = kCpu);
}

}  // namespace rvc_fast
