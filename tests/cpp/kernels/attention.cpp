// Softmax attention over packed keys and values, with and without relative positions.
#include <algorithm>

#include "check.h"

namespace rvc_fast::test {
namespace {

// `window` below 0: no relative positions. The rows are the last ones.
void attention_case(const Kernels& k, int64_t rows, int64_t keys, int64_t dim, double size,
                    int64_t window = -1) {
  std::mt19937 random = random_numbers();
  const std::string what = text("%lld rows, %lld keys, %lld wide, scores of %g, window %lld", (long long)rows,
                                (long long)keys, (long long)dim, size, (long long)window);
  // Strided inputs: rows with a gap, values with columns two apart.
  const int64_t row = dim + 1, v_row = 2 * dim, wide = (dim + 15) / 16 * 16, y_row = dim + 3;
  Floats q((rows - 1) * row + dim, random, size), key((keys - 1) * row + dim, random),
      value((keys - 1) * v_row + 2 * dim - 1, random), packed_k((keys + 15) / 16 * 16 * dim),
      packed_v(keys * wide), y((rows - 1) * y_row + dim),
      scratch(k.attention_floats(rows, dim, window < 0 ? 0 : 2 * window + 1));
  const int64_t band = window < 0 ? 0 : 2 * window + 1, first = std::max<int64_t>(0, keys - rows);
  Floats rel_key(band * dim, random), rel_value(band * dim, random),
      packed_rel_k((band + 15) / 16 * 16 * dim), packed_rel_v(band * wide);
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
  if (band > 0) {
    AttentionPack p{};
    p.k = rel_key, p.v = rel_value;
    p.k_row = p.v_row = dim, p.k_column = p.v_column = 1;
    p.end = band, p.dim = dim;
    p.to_k = packed_rel_k, p.to_v = packed_rel_v;
    k.attention_pack(p);
    check(packed_rel_k.intact() && packed_rel_v.intact(), what + ": packed relative positions");
  }
  Attention a{};
  if (band > 0) a.rel_k = packed_rel_k, a.rel_v = packed_rel_v, a.window = window, a.first = first;
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
      for (int64_t c = 0; c < dim; ++c) {
        const int64_t near = i - (first + r) + window;
        const double relative = near >= 0 && near < band ? rel_key[near * dim + c] : 0.0;
        p[i] += double(q[r * row + c]) * (key[i * row + c] + relative);
      }
    }
    const double top = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (double& x : p) total += x = std::exp((x - top) * double(a.scale));
    for (int64_t c = 0; c < dim; ++c) {
      double sum = 0, magnitude = 1;
      for (int64_t i = 0; i < keys; ++i) {
        const int64_t near = i - (first + r) + window;
        const double relative = near >= 0 && near < band ? rel_value[near * dim + c] : 0.0;
        sum += p[i] / total * (value[i * v_row + 2 * c] + relative);
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
  for (int64_t window : {0, 1, 10, 600}) {
    for (int64_t keys : {1, 7, 512, 1031})
      attention_case(k, std::min<int64_t>(keys, 13), keys, 20, 1.0, window);
  }
  attention_case(k, 5, 1100, 24, 30.0);  // one key takes all, and the largest score grows from block to block
}

Test test("attention", attention);

}  // namespace
}  // namespace rvc_fast::test
