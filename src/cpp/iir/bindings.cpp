#include "core/bindings.h"

#include <nanobind/ndarray.h>

#include <stdexcept>

#include "iir/iir.h"

namespace rvc_fast {
namespace {

using Doubles = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// x filtered from the given delays on, as a new numpy array.
nb::ndarray<nb::numpy, double> iir_filter(Doubles b, Doubles a, Doubles x, Doubles delays) {
  const size_t order = delays.shape(0);
  if (order < 1 || b.shape(0) != order + 1 || a.shape(0) != order + 1) {
    throw std::invalid_argument("[iir] b and a must have one value more than delays");
  }
  std::vector<double> state(delays.data(), delays.data() + order);
  auto* y = new double[x.shape(0)];
  nb::capsule owner(y, [](void* p) noexcept { delete[] static_cast<double*>(p); });
  iir(b.data(), a.data(), static_cast<int>(order), x.data(), static_cast<int64_t>(x.shape(0)), state.data(),
      y);
  return {y, {x.shape(0)}, owner};
}

}  // namespace

void bind_iir(nb::module_& m) { m.def("iir", &iir_filter, "b"_a, "a"_a, "x"_a, "delays"_a); }

}  // namespace rvc_fast
