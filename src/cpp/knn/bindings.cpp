#include "core/bindings.h"

#include "knn/knn.h"

namespace rvc_fast {

void bind_knn(nb::module_& m) { m.def("knn", &knn, "queries"_a, "vectors"_a, "k"_a, "stream"_a = kCpu); }

}  // namespace rvc_fast
