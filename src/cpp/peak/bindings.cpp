#include "core/bindings.h"

#include "peak/peak.h"

namespace rvc_fast {

void bind_peak(nb::module_& m) {
  m.def("fma_peak", &fma_peak, "dtype"_a = "float32", nb::call_guard<nb::gil_scoped_release>());
  m.def("int8_peak", &int8_peak, nb::call_guard<nb::gil_scoped_release>());
  m.def("memory_peak", &memory_peak, "kind"_a, "bytes"_a, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace rvc_fast
