// Softmax attention over packed keys and values.
#include <algorithm>

#include "check.h"

namespace rvc_fast::test {
namespace {

// Keys and values (count, dim) of the given strides into the kernels' layout.
void pack(const Kernels& k, const float* keys, int64_t k_row, const float* values, int64_t v_row,
          int64_t v_column, int64_t count, int64_t dim, const Floats& packed_k, const Floats& packed_v,
          const std::string& what) {
  for (int64_t begin = 0; begin < count; begin += kKeyBlock) {
    AttentionPack p{};
    p.k = keys, p.v = values;
    p.k_row = k_row, p.k_column = 1, p.v_row = v_row, p.v_column = v_column;
    p.begin = begin, p.end = std::min(count, begin + kKeyBlock), p.dim = dim;
    p.to_k = packed_k, p.to_v = packed_v;
    k.attention_pack(p);
  }
  for (const Floats* packed : {&packed_k, &packed_v})
    check(packed->intact() && std::none_of(packed->begin(), packed->end(), untouched), what + ": packed");
}

// With a window that is not negative: relative positions, the first row being that of key `first`.
void attention_case(const Kernels& k, int64_t rows, int64_t keys, int64_t dim, double size,
                    int64_t window = -1, int64_t first = 0) {
  std::mt19937_64 random = random_numbers();
  const std::string what =
      text("%lld rows from %lld, %lld keys, %lld wide, scores of %g, window %lld", (long long)rows,
           (long long)first, (long long)keys, (long long)dim, size, (long long)window);
  // Strided inputs: rows with a gap, values with columns two apart.
  const int64_t row = dim + 1, v_row = 2 * dim, wide = (dim + 15) / 16 * 16, y_row = dim + 3;
  Floats q((rows - 1) * row + dim, random, size), key((keys - 1) * row + dim, random),
      value((keys - 1) * v_row + 2 * dim - 1, random), packed_k((keys + 15) / 16 * 16 * dim),
      packed_v(keys * wide), y((rows - 1) * y_row + dim),
      scratch(k.attention_floats(rows, dim, window < 0 ? 0 : 2 * window + 1));
  pack(k, key, row, value, v_row, 2, keys, dim, packed_k, packed_v, what);
  const int64_t band = window < 0 ? 0 : 2 * window + 1;
  Floats rel_k(band * dim, random), rel_v(band * dim, random), packed_rel_k((band + 15) / 16 * 16 * dim),
      packed_rel_v(band * wide);
  if (band) pack(k, rel_k, dim, rel_v, dim, 1, band, dim, packed_rel_k, packed_rel_v, what);
  Attention a{};
  a.q = q, a.q_row = row, a.q_column = 1;
  a.rows = rows, a.keys = keys, a.dim = dim, a.scale = 1 / std::sqrt(float(dim));
  a.k = packed_k, a.v = packed_v;
  if (band) a.rel_k = packed_rel_k, a.rel_v = packed_rel_v, a.window = window, a.first = first;
  a.y = y, a.y_row = y_row, a.scratch = scratch;
  k.attention(a);
  check(scratch.intact(), what + ": written beside the scratch memory");

  std::vector<Wanted> want(y.size());
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> p(keys);
    for (int64_t i = 0; i < keys; ++i) {
      const int64_t near = i - first - r + window;
      const bool inside = near >= 0 && near < band;
      for (int64_t c = 0; c < dim; ++c)
        p[i] += q[r * row + c] * (key[i * row + c] + (inside ? double(rel_k[near * dim + c]) : 0.0));
    }
    const double top = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (double& x : p) total += x = std::exp((x - top) * double(a.scale));
    for (int64_t c = 0; c < dim; ++c) {
      double sum = 0, magnitude = 1;
      for (int64_t i = 0; i < keys; ++i) {
        const int64_t near = i - first - r + window;
        const bool inside = near >= 0 && near < band;
        sum += p[i] / total * (value[i * v_row + 2 * c] + (inside ? double(rel_v[near * dim + c]) : 0.0));
      }
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
  for (int64_t window : {0, 1, 5, 10, 20, 300}) {
    attention_case(k, 1, 1, 16, 1.0, window);
    attention_case(k, 7, 7, 17, 1.0, window);
    attention_case(k, 13, 600, 8, 1.0, window, 505);  // across two blocks of keys
    attention_case(k, 13, 600, 8, 1.0, window, 587);  // the last rows
  }
}

Test attention_test("attention", attention);

}  // namespace
}  // namespace rvc_fast::test
