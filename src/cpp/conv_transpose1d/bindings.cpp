#include "core/bindings.h"

#include "conv_transpose1d/conv_transpose1d.h"

namespace rvc_fast {

void bind_conv_transpose1d(nb::module_& m) {
  m.def("conv_transpose1d_pack", &conv_transpose1d_pack, "weight"_a, "stride"_a = 1, "dtype"_a = "float32",
        "stream"_a = kCpu);
  m.def("conv_transpose1d", &conv_transpose1d, "x"_a, "packed"_a, "bias"_a.none(), "residual"_a.none(),
        "out_channels"_a, "kernel"_a, "stride"_a = 1, "padding"_a = 0, "output_padding"_a = 0,
        "leaky"_a = 1.0f, "stream"_a = kCpu);
}

}  // namespace rvc_fast
