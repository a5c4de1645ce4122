#include "core/bindings.h"

#include "wavenet_gate/wavenet_gate.h"

namespace rvc_fast {

void bind_wavenet_gate(nb::module_& m) {
  m.def("wavenet_gate", &wavenet_gate, "x"_a, "g"_a, "stream"_a = kCpu);
}

}  // namespace rvc_fast
