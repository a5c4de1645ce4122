#include "core/bindings.h"

#include "nsf_source/nsf_source.h"

namespace rvc_fast {

void bind_nsf_source(nb::module_& m) {
  m.def("nsf_source", &nsf_source, "f0"_a, "noise"_a, "weight"_a, "bias"_a.none(), "offsets"_a.none(),
        "hop"_a, "sample_rate"_a, "phase"_a = std::vector<double>{0.0}, "interpolation"_a = "nearest",
        "accumulation"_a = "frame", "stream"_a = kCpu);
}

}  // namespace rvc_fast
