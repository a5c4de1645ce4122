// knn: nearest neighbours by squared L2 distance.
#pragma once

#include <utility>

#include "core/primitive.h"

namespace rvc_fast {

// queries (n, d), vectors (m, d); returns distances (n, k) float32 and rows of vectors (n, k) int32, nearest
// first, of equal distances the lower row first; infinity and -1 where m < k.
std::pair<mx::array, mx::array> knn(const mx::array& queries, const mx::array& vectors, int k,
                                    mx::StreamOrDevice s);

}  // namespace rvc_fast
