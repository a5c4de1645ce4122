// A recursive filter over time, in double: what scipy.signal.lfilter computes, operation by operation.
#pragma once

#include <cstdint>

namespace rvc_fast {

// y[n] = sum b[i] x[n - i] - sum a[i] y[n - i], a[0] = 1, `order` >= 1 (order + 1 coefficients each), in
// transposed direct form II. `state` (order values) is the delays before and after; y may be x.
void iir(const double* b, const double* a, int order, const double* x, int64_t length, double* state,
         double* y);

}  // namespace rvc_fast
