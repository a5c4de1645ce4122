#include "core/bindings.h"

#include "conv1d/conv1d.h"

namespace rvc_fast {

void bind_conv1d(nb::module_& m) {
  m.def("conv1d_algorithm", &conv1d_algorithm, "shape"_a, "groups"_a, "wanted"_a, "dtype"_a = "float32");
  m.def("conv1d_pack", &conv1d_pack, "weight"_a, "groups"_a = 1, "algorithm"_a = "direct",
        "dtype"_a = "float32", "stream"_a = kCpu);
  m.def("conv1d", &conv1d, "x"_a, "packed"_a, "bias"_a.none(), "residual"_a.none(), "out_channels"_a,
        "kernel"_a, "stride"_a = 1, "padding"_a = std::pair<int, int>(0, 0), "dilation"_a = 1, "groups"_a = 1,
        "leaky"_a = 1.0f, "activation"_a = "", "scale"_a = 1.0f, "algorithm"_a = "direct", "stream"_a = kCpu);
}

}  // namespace rvc_fast
