// What the kernels of attention and relpos_attention take.
#pragma once

#include <stdint.h>

namespace rvc_fast {

// Rows of one head's attention: y = softmax(scale * q k^T) v. Keys and values are packed in blocks of
// kKeyBlock keys: keys as panels of them, [dim][width]; values as panels of columns, [keys of the
// block][width]; see conv/kernel.h.
constexpr int64_t kKeyBlock = 512;
struct Attention {
  const float* q;
  int64_t q_row, q_column;  // strides
  int64_t rows, keys, dim;
  float scale;
  const float* k;  // packed, keys rounded up to 16, times dim
  const float* v;  // packed, keys times dim rounded up to 16
  // Null, or keys and values of relative positions, packed: row `window` + d of 2 window + 1 is added to the
  // key and the value d after a query. `first` is the position of the first row.
  const float *rel_k, *rel_v;
  int64_t window, first;
  float* y;
  int64_t y_row;
  float* scratch;  // attention_floats(rows, dim, 2 * window + 1 or 0)
};

// One head's keys and values (keys, dim), strided, into the packed layouts: those from `begin` to `end`,
// `begin` a multiple of kKeyBlock and `end` one too or all keys.
struct AttentionPack {
  const float *k, *v;
  int64_t k_row, k_column, v_row, v_column;
  int64_t begin, end, dim;
  float *to_k, *to_v;
};

}  // namespace rvc_fast
