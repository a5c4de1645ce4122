// Layer normalisation of rows.
#include "check.h"

namespace rvc_fast::test {
namespace {

void layer_norm(const Kernels& k) {
  int variant = 0;
  for (int64_t width : {1, 3, 7, 8, 15, 16, 17, 37, 192, 769}) {
    for (int64_t rows : {1, 4}) {
      for (double mean : {0.0, 100.0}) {
        std::mt19937_64 random = random_numbers();
        const int options = variant++ % 8;
        Floats x(rows * width, random), residual(rows * width, random), weight(width, random),
            bias(width, random), y(rows * width);
        for (float& v : x) v += float(mean);
        LayerNorm a{};
        a.x = x, a.rows = rows, a.width = width, a.eps = 1e-5f, a.y = y;
        a.residual = options & 1 ? residual.data() : nullptr;
        a.weight = options & 2 ? weight.data() : nullptr;
        a.bias = options & 4 ? bias.data() : nullptr;
        std::vector<Wanted> want(y.size());
        for (int64_t r = 0; r < rows; ++r) {
          std::vector<double> row(width);
          double average = 0, variance = 0;
          for (int64_t c = 0; c < width; ++c) {
            // The sum is rounded to float32 once.
            row[c] = a.residual ? double(x[r * width + c] + residual[r * width + c]) : x[r * width + c];
            average += row[c] / double(width);
          }
          for (double v : row) variance += (v - average) * (v - average) / double(width);
          for (int64_t c = 0; c < width; ++c) {
            double v = (row[c] - average) / std::sqrt(variance + a.eps);
            if (a.weight) v *= weight[c];
            if (a.bias) v += bias[c];
            want[r * width + c] = {v, 1 + std::abs(v) + mean};
          }
        }
        const std::string what =
            text("%lld rows of %lld, mean %g, options %d", (long long)rows, (long long)width, mean, options);
        k.layer_norm(a);
        check_close(y, want, 2e-6, what);
        a.y = x;  // in place
        k.layer_norm(a);
        check_close(x, want, 2e-6, what + ", onto x");
      }
    }
  }
}

Test layer_norm_test("layer_norm", layer_norm);

}  // namespace
}  // namespace rvc_fast::test
