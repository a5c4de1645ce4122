// The recurrence of a GRU.
#include "check.h"

namespace rvc_fast::test {
namespace {

void gru(const Kernels& k) {
  for (int64_t hidden : {1, 3, 7, 8, 16, 17, 31, 37, 64}) {
    for (int64_t steps : {1, 2, 7}) {
      for (bool backward : {false, true}) {
        std::mt19937_64 random = random_numbers();
        const std::string what = text("%lld wide, %lld steps%s", (long long)hidden, (long long)steps,
                                      backward ? ", backward" : "");
        Floats w(3 * hidden * hidden, random, 1 / std::sqrt(double(hidden))), b(3 * hidden, random, 0.1),
            gates(steps * 3 * hidden, random), before(hidden, random, 0.5),
            packed(k.gru_packed_floats(hidden)), scratch(k.gru_scratch_floats(hidden)), y(steps * hidden);
        k.gru_pack(w, b, hidden, packed);
        check(packed.intact(), what + ": written beside the packed weights");
        GruScan s{};
        s.gates = gates, s.steps = steps, s.hidden = hidden, s.backward = backward;
        s.packed = packed, s.before = before, s.y = y, s.scratch = scratch;
        k.gru_scan(s);
        check(scratch.intact(), what + ": written beside the scratch memory");

        std::vector<Wanted> want(y.size());
        std::vector<double> h(before.begin(), before.end()), next(hidden);
        for (int64_t step = 0; step < steps; ++step) {
          const int64_t t = backward ? steps - 1 - step : step;
          for (int64_t j = 0; j < hidden; ++j) {
            double inner[3];
            for (int64_t gate = 0; gate < 3; ++gate) {
              const int64_t row = gate * hidden + j;
              inner[gate] = b[row];
              for (int64_t i = 0; i < hidden; ++i) inner[gate] += w[row * hidden + i] * h[i];
            }
            const float* outer = gates + t * 3 * hidden + j;
            const double r = sigmoid(outer[0] + inner[0]), z = sigmoid(outer[hidden] + inner[1]);
            const double n = std::tanh(outer[2 * hidden] + r * inner[2]);
            next[j] = (1 - z) * n + z * h[j];
          }
          h = next;
          for (int64_t j = 0; j < hidden; ++j) want[t * hidden + j] = {h[j], 1.0};
        }
        check_close(y, want, 3e-6, what);
      }
    }
  }
}

Test gru_test("gru", gru);

}  // namespace
}  // namespace rvc_fast::test
