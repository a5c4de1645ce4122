// The gated activation of a WaveNet layer.
#include "check.h"

namespace rvc_fast::test {
namespace {

void gate(const Kernels& k) {
  for (int64_t hidden : {1, 3, 4, 7, 8, 15, 16, 17, 37}) {
    for (int64_t rows : {1, 5}) {
      for (bool one : {false, true}) {  // g: one row for all
        std::mt19937_64 random = random_numbers();
        Floats x(rows * 2 * hidden, random, 3.0), g((one ? 1 : rows) * 2 * hidden, random), y(rows * hidden);
        const int64_t g_row = one ? 0 : 2 * hidden;
        k.gate(x, g, g_row, rows, hidden, y);
        std::vector<Wanted> want(y.size());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t j = 0; j < hidden; ++j) {
            const double a = double(x[r * 2 * hidden + j]) + g[r * g_row + j],
                         b = double(x[(2 * r + 1) * hidden + j]) + g[r * g_row + hidden + j];
            want[r * hidden + j] = {std::tanh(a) * sigmoid(b), 1.0};
          }
        }
        check_close(y, want, 1e-6, text("%lld rows of %lld", (long long)rows, (long long)hidden));
      }
    }
  }
}

Test gate_test("gate", gate);

}  // namespace
}  // namespace rvc_fast::test
