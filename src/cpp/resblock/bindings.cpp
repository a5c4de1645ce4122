#include "core/bindings.h"

#include "resblock/resblock.h"

namespace rvc_fast {

void bind_resblock(nb::module_& m) {
  m.def("resblock_algorithm", &resblock_algorithm, "channels"_a, "kernel"_a, "wanted"_a,
        "dtype"_a = "float32");
  m.def("resblock_pack", &resblock_pack, "weight"_a, "algorithm"_a, "dtype"_a = "float32", "stream"_a = kCpu);
  m.def("resblock", &resblock, "x"_a, "packed"_a, "biases"_a, "convs"_a, "slope"_a, "stream"_a = kCpu);
}

}  // namespace rvc_fast
