#include "core/bindings.h"

#include "relpos_attention/relpos_attention.h"

namespace rvc_fast {

void bind_relpos_attention(nb::module_& m) {
  m.def("relpos_attention", &relpos_attention, "q"_a, "k"_a, "v"_a, "rel_k"_a, "rel_v"_a, "window"_a,
        "stream"_a = kCpu);
}

}  // namespace rvc_fast
