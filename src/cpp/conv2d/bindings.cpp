#include "core/bindings.h"

#include "conv2d/conv2d.h"

namespace rvc_fast {

void bind_conv2d(nb::module_& m) {
  m.def("conv2d_algorithm", &conv2d_algorithm, "shape"_a, "wanted"_a, "dtype"_a = "float32");
  m.def("conv2d_pack", &conv2d_pack, "weight"_a, "algorithm"_a = "direct", "dtype"_a = "float32",
        "stream"_a = kCpu);
  m.def("conv2d", &conv2d, "x"_a, "packed"_a, "bias"_a.none(), "residual"_a.none(), "out_channels"_a,
        "kernel"_a, "padding"_a = std::pair<int, int>(0, 0), "activation"_a = "", "algorithm"_a = "direct",
        "stream"_a = kCpu);
}

}  // namespace rvc_fast
