// Nearest neighbours: packing, scores and heaps.
#include <algorithm>
#include <numeric>

#include "check.h"

namespace rvc_fast::test {
namespace {

void knn_case(const Kernels& k, int64_t rows, int64_t dim, int64_t queries, int64_t wanted) {
  std::mt19937_64 random = random_numbers();
  const std::string what = text("%lld x %lld vectors, %lld queries, %lld wanted", (long long)rows,
                                (long long)dim, (long long)queries, (long long)wanted);
  const int64_t panels = (queries + 31) / 32, blocks = 2;
  Floats vectors(blocks * rows * dim, random), middle(dim, random, 0.1), query(queries * dim, random),
      packed(panels * 32 * dim), scratch(k.knn_scratch_floats(rows, dim)), scores(queries * wanted);
  Array<int32_t> ids(queries * wanted);
  for (int64_t p = 0; p < panels; ++p) {
    k.knn_pack(query + p * 32 * dim, std::min<int64_t>(32, queries - p * 32), dim, middle,
               packed + p * 32 * dim);
  }
  check(packed.intact() && std::none_of(packed.begin(), packed.end(), untouched), what + ": packed queries");
  std::fill(scores.begin(), scores.end(), HUGE_VALF);
  std::fill(ids.begin(), ids.end(), INT32_MAX);
  for (int64_t block = 0; block < blocks; ++block) {
    KnnBlock b{};
    b.vectors = vectors + block * rows * dim;
    b.rows = rows, b.dim = dim, b.first_id = int32_t(100 + block * rows);
    b.middle = middle, b.packed = packed;
    b.queries = queries, b.wanted = wanted;
    b.scores = scores, b.ids = ids, b.scratch = scratch;
    k.knn_block(b);
  }
  check(scores.intact() && ids.intact() && scratch.intact(), what + ": written beside an array");

  const int64_t found = std::min(blocks * rows, wanted);
  for (int64_t q = 0; q < queries; ++q) {
    std::vector<double> score(blocks * rows);
    for (size_t r = 0; r < score.size(); ++r) {
      for (int64_t i = 0; i < dim; ++i) {
        const double v = double(vectors[r * dim + i]) - middle[i], x = double(query[q * dim + i]) - middle[i];
        score[r] += v * v - 2 * v * x;
      }
    }
    std::vector<double> sorted = score;
    std::sort(sorted.begin(), sorted.end());
    // The heap as a set: each id once, its own score, and none worse than the last that should be in it.
    std::vector<int32_t> seen;
    bool right = true;
    for (int64_t i = 0; i < wanted; ++i) {
      const int32_t id = ids[q * wanted + i];
      if (id == INT32_MAX) continue;
      const int64_t r = id - 100;
      right = right && r >= 0 && r < blocks * rows;
      if (!right) break;
      seen.push_back(id);
      const double tolerance = 1e-5 * double(dim);
      right = std::abs(scores[q * wanted + i] - score[r]) <= tolerance &&
              score[r] <= sorted[found - 1] + tolerance;
    }
    std::sort(seen.begin(), seen.end());
    right =
        right && int64_t(seen.size()) == found && std::adjacent_find(seen.begin(), seen.end()) == seen.end();
    check(right, what + text(": query %lld", (long long)q));
  }
}

void knn(const Kernels& k) {
  for (int64_t dim : {1, 7, 16, 33, 256, 600}) {
    for (int64_t queries : {1, 31, 32, 35}) knn_case(k, 13, dim, queries, 9);
  }
  knn_case(k, 1, 3, 2, 5);  // fewer vectors than wanted
  knn_case(k, 50, 8, 3, 1);
}

void offer(const Kernels& k) {
  constexpr int64_t kSize = 5;
  Floats scores(kSize);
  Array<int32_t> ids(kSize);
  std::fill(scores.begin(), scores.end(), HUGE_VALF);
  std::fill(ids.begin(), ids.end(), INT32_MAX);
  // Ties: of equal scores the lower id stays.
  for (auto [score, id] : std::initializer_list<std::pair<float, int32_t>>{
           {3, 9}, {1, 8}, {3, 1}, {2, 7}, {3, 5}, {3, 4}, {9, 2}, {0, 6}, {3, 3}})
    k.knn_offer(scores, ids, kSize, score, id);
  std::vector<int32_t> kept(ids.begin(), ids.end());
  std::sort(kept.begin(), kept.end());
  check(kept == std::vector<int32_t>{1, 3, 6, 7, 8}, "the best five");
  check(scores[0] == 3 && ids[0] == 3, "the worst of them is first");
  check(scores.intact() && ids.intact(), "written beside the heap");
}

void distance(const Kernels& k) {
  for (int64_t dim : {1, 3, 4, 8, 15, 16, 17, 67, 256}) {
    std::mt19937_64 random = random_numbers();
    Floats a(dim, random), b(dim, random);
    double want = 0;
    for (int64_t i = 0; i < dim; ++i) want += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    check(std::abs(k.knn_distance(a, b, dim) - want) <= 1e-6 * want, text("%lld numbers", (long long)dim));
  }
}

Test knn_test("knn_block", knn), offer_test("knn_offer", offer), distance_test("knn_distance", distance);

}  // namespace
}  // namespace rvc_fast::test
