// What the kernels of knn take.
#pragma once

#include <stdint.h>

namespace rvc_fast {

// Offers `rows` vectors, whose ids begin at first_id and are higher than those before, to the heaps (wanted)
// of the queries. Scores are |v|^2 - 2 q.v, with `middle` taken off both.
struct KnnBlock {
  const float* vectors;  // (rows, dim)
  int64_t rows, dim;
  int32_t first_id;
  const float* middle;  // (dim)
  const float* packed;  // panels of kPanel queries, from knn_pack
  int64_t queries, wanted;
  float* scores;  // (queries, wanted), infinity where there is no candidate yet
  int32_t* ids;   // (queries, wanted)
  float* scratch;
};

}  // namespace rvc_fast
