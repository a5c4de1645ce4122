#include "core/bindings.h"

#include "attention/attention.h"

namespace rvc_fast {

void bind_attention(nb::module_& m) {
  m.def("attention", &attention, "q"_a, "k"_a, "v"_a, "scale"_a, "stream"_a = kCpu);
}

}  // namespace rvc_fast
