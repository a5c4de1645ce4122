// What the bindings of the ops share: an op's are in its folder, and bindings.cpp puts them together.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "core/primitive.h"

namespace rvc_fast {

namespace nb = nanobind;
using namespace nb::literals;

// The stream of every op unless a caller says another: these kernels run on the CPU, whatever MLX's default
// device is.
inline const mx::StreamOrDevice kCpu = mx::Device(mx::Device::cpu);

// Each puts the functions of one op into the module.
void bind_attention(nb::module_& m);
void bind_bigru(nb::module_& m);
void bind_conv1d(nb::module_& m);
void bind_conv2d(nb::module_& m);
void bind_conv_transpose1d(nb::module_& m);
void bind_conv_transpose2d(nb::module_& m);
void bind_iir(nb::module_& m);
void bind_knn(nb::module_& m);
void bind_layer_norm(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_mel_stft(nb::module_& m);
void bind_nsf_source(nb::module_& m);
void bind_peak(nb::module_& m);
void bind_quantized_linear(nb::module_& m);
void bind_relpos_attention(nb::module_& m);
void bind_resblock(nb::module_& m);
void bind_wavenet_gate(nb::module_& m);

}  // namespace rvc_fast
