// Softmax attention over packed keys and values.
#include <algorithm>

#include "check.h"

namespace rvc_fast::test {
namespace {

void attention_case(const Kernels& k, int64_t rows, int64_t keys, int64_t dim, double size) {
  std::mt19937 random = random_numbers();
  const std::string what = text("%lld rows, %lld keys, %lld wide, scores of %g", (long long)rows,
                                (long long)keys, (long long)dim, size);
  // Strided inputs: rows with a gap, values with columns two apart.
  const int64_t row = dim + 1, v_row = 2 * dim, wide = (dim + 15) / 16 * 16, y_row = dim + 3;
  Floats q((rows - 1) * row + dim, random, size), key((keys - 1) * row + dim, random),
      value((keys - 1) * v_row + 2 * dim - 1, random), packed_k((keys + 15) / 16 * 16 * dim),
      packed_v(keys * wide), y((rows - 1) * y_row + dim), scratch(k.attention_floats(rows, dim));
  for (int64_t begin = 0; begin < keys; begin += kKeyBlock) {
    AttentionPack p{};
    p.k = key, p.v = value;
    p.k_row = row, p.k_column = 1, p.v_row = v_row, p.v_column = 2;
    p.begin = begin, p.end = std::min(keys, begin + kKeyBlock), p.dim = dim;
    p.to_k = packed_k, p.to_v = packed_v;
    k.attention_pack(p);
  }
  for (const Floats* packed : {&packed_k, &packed_v})
    check(packed->intact() && std::none_of(packed->begin(), packed->end(), untouched), what + ": packed");
  Attention a{};
  a.q = q, a.q_row = row, a.q_column = 1;
  a.rows = rows, a.keys = keys, a.dim = dim, a.scale = 1 / std::sqrt(float(dim));
  a.k = packed_k, a.v = packed_v;
  a.y = y, a.y_row = y_row, a.scratch = scratch;
  k.attention(a);
  check(scratch.intact(), what + ": written beside the scratch memory");

  std::vector<Wanted> want(y.size());
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> p(keys);
    for (int64_t i = 0; i < keys; ++i) {
      for (int64_t c = 0; c < dim; ++c) p[i] += double(q[r * row + c]) * key[i * row + c];
    }
    const double top = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (double& x : p) total += x = std::exp((x - top) * double(a.scale));
    for (int64_t c = 0; c < dim; ++c) {
      double sum = 0, magnitude = 1;
      for (int64_t i = 0; i < keys; ++i) sum += p[i] / total * value[i * v_row + 2 * c];
      // A score's rounding error becomes its weight's relative error.
      want[r * y_row + c] = {sum, magnitude + size};
    }
  }
  check_close(y, want, 3e-6, what);
}

void attention(const Kernels& k) {
  for (int64_t keys : {1, 3, 15, 16, 17, 33, 48, 511, 512, 513, 1031}) {
    for (int64_t dim : {1, 16, 37}) attention_case(k, 1 + keys % 14, keys, dim, 1.0);
  }
  attention_case(k, 48, 70, 96, 1.0);
  attention_case(k, 5, 1100, 24, 30.0);  // one key takes all, and the largest score grows from block to block
}

Test test("attention", attention);

}  // namespace
}  // namespace rvc_fast::test
