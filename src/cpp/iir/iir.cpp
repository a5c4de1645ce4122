#include "iir/iir.h"

#include "core/subnormals.h"

namespace rvc_fast {

void iir(const double* b, const double* a, int order, const double* x, int64_t length, double* state,
         double* y) {
  FlushToZero mode;  // the filter's memory of a sound decays for ever
  for (int64_t n = 0; n < length; ++n) {
    const double in = x[n], out = state[0] + b[0] * in;
    for (int i = 1; i < order; ++i) state[i - 1] = state[i] + in * b[i] - out * a[i];
    state[order - 1] = in * b[order] - out * a[order];
    y[n] = out;
  }
}

}  // namespace rvc_fast
