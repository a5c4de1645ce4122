#include "core/bindings.h"

#include "conv_transpose2d/conv_transpose2d.h"

namespace rvc_fast {

void bind_conv_transpose2d(nb::module_& m) {
  m.def("conv_transpose2d_pack", &conv_transpose2d_pack, "weight"_a, "stride"_a = std::pair<int, int>(1, 1),
        "dtype"_a = "float32", "stream"_a = kCpu);
  m.def("conv_transpose2d", &conv_transpose2d, "x"_a, "packed"_a, "bias"_a.none(), "out_channels"_a,
        "kernel"_a, "stride"_a = std::pair<int, int>(1, 1), "padding"_a = std::pair<int, int>(0, 0),
        "output_padding"_a = std::pair<int, int>(0, 0), "activation"_a = "", "beside"_a.none() = nb::none(),
        "stream"_a = kCpu);
}

}  // namespace rvc_fast
