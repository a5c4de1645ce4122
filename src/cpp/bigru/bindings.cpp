#include "core/bindings.h"

#include "bigru/bigru.h"

namespace rvc_fast {

void bind_bigru(nb::module_& m) {
  m.def("bigru", &bigru, "forward"_a, "backward"_a, "w_hh"_a, "b_hh"_a, "h"_a, "stream"_a = kCpu);
}

}  // namespace rvc_fast
