#include "knn/knn.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

// Candidates beyond k whose distances are computed from differences: |v|^2 - 2 q.v alone swaps near ties.
constexpr int64_t kMargin = 8;
// Queries at a time, candidates at a time, numbers of vectors at a time, rows that their middle is taken of.
constexpr int64_t kQueries = 4096, kCandidates = 1 << 22, kNumbers = 3 << 16, kMiddleRows = 256;
constexpr int64_t kItemsPerThread = 4;

struct KnnArrays {
  const float *queries, *vectors;
  int64_t n, m, dim, k;
  float* distances;
  int32_t* rows;
};

// The product cancels least around the middle of the vectors.
void find_middle(const KnnArrays& a, float* middle) {
  std::fill_n(middle, a.dim, 0.0f);
  const int64_t count = std::min(a.m, kMiddleRows);
  for (int64_t r = 0; r < count; ++r) {
    const float* row = a.vectors + r * a.m / count * a.dim;
    for (int64_t i = 0; i < a.dim; ++i) middle[i] += row[i];
  }
  for (int64_t i = 0; i < a.dim; ++i) middle[i] /= float(count);
}

using Found = std::pair<float, int32_t>;

// Work items are a range of the vectors for a range of the panels; there are more of the former if possible.
struct KnnPlan {
  int64_t wanted, panels, rows, blocks, ranges, groups, candidates;

  KnnPlan(const KnnArrays& a, int64_t threads)
      : wanted(std::min(a.k + kMargin, a.m)),
        panels(ceil_div(a.n, kPanel)),
        rows(std::clamp<int64_t>(kNumbers / a.dim / 12 * 12, 12, 192)),
        blocks(ceil_div(a.m, rows)),
        ranges(std::clamp<int64_t>(kCandidates / (a.n * wanted), 1,
                                   std::min(blocks, kItemsPerThread * threads))),
        groups(std::min(panels, ceil_div(kItemsPerThread * threads, ranges))),
        candidates(ranges * a.n * wanted) {}

  // The packed queries, the candidates' scores and their ids.
  size_t shared(int64_t dim) const { return panels * kPanel * dim + 2 * candidates; }
  size_t each(const Kernels& k, const KnnArrays& a) const {
    return std::max<int64_t>(k.knn_scratch_floats(rows, a.dim),
                             std::max(wanted, a.k) * sizeof(Found) / sizeof(float));
  }
};

void run(const KnnArrays& a, const KnnPlan& plan, const float* middle, float* memory,
         const Scratch& scratch) {
  const Kernels& k = kernels();
  const auto [wanted, panels, rows, blocks, ranges, groups, candidates] = plan;
  float *packed = memory, *scores = packed + panels * kPanel * a.dim;
  auto* ids = reinterpret_cast<int32_t*>(scores + candidates);
  parallel_for(panels, [&](int64_t p) {
    k.knn_pack(a.queries + p * kPanel * a.dim, std::min<int64_t>(kPanel, a.n - p * kPanel), a.dim, middle,
               packed + p * kPanel * a.dim);
  });
  std::fill_n(scores, candidates, std::numeric_limits<float>::infinity());
  std::fill_n(ids, candidates, std::numeric_limits<int32_t>::max());
  parallel_for(ranges * groups, scratch, [&](int64_t item, float* memory) {
    const int64_t range = item / groups, group = item % groups;
    const int64_t first = panels * group / groups * kPanel,
                  last = std::min(panels * (group + 1) / groups * kPanel, a.n);
    KnnBlock b{};
    b.dim = a.dim;
    b.middle = middle;
    b.packed = packed + first * a.dim;
    b.queries = last - first;
    b.wanted = wanted;
    b.scores = scores + (range * a.n + first) * wanted;
    b.ids = ids + (range * a.n + first) * wanted;
    b.scratch = memory;
    for (int64_t block = blocks * range / ranges; block < blocks * (range + 1) / ranges; ++block) {
      b.vectors = a.vectors + block * rows * a.dim;
      b.rows = std::min(rows, a.m - block * rows);
      b.first_id = static_cast<int32_t>(block * rows);
      k.knn_block(b);
    }
  });
  parallel_for(a.n, scratch, [&](int64_t q, float* memory) {
    float* best = scores + q * wanted;
    int32_t* best_ids = ids + q * wanted;
    for (int64_t range = 1; range < ranges; ++range) {
      const int64_t from = (range * a.n + q) * wanted;
      for (int64_t i = 0; i < wanted; ++i)
        k.knn_offer(best, best_ids, wanted, scores[from + i], ids[from + i]);
    }
    auto* found = reinterpret_cast<Found*>(memory);
    int64_t count = 0;
    for (int64_t i = 0; i < wanted; ++i) {
      if (best_ids[i] == std::numeric_limits<int32_t>::max()) continue;  // its score was not finite
      const float distance = k.knn_distance(a.queries + q * a.dim, a.vectors + best_ids[i] * a.dim, a.dim);
      found[count++] = {distance, best_ids[i]};
    }
    std::sort(found, found + count);
    while (count < a.k) found[count++] = {std::numeric_limits<float>::infinity(), -1};
    for (int64_t i = 0; i < a.k; ++i) {
      a.distances[q * a.k + i] = found[i].first;
      a.rows[q * a.k + i] = found[i].second;
    }
  });
}

class Knn : public CpuPrimitive {
 public:
  Knn(mx::Stream stream, int k) : CpuPrimitive(stream), k_(k) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    for (mx::array& out : outputs) allocate(out);
    KnnArrays a{};
    a.queries = inputs[0].data<float>(), a.vectors = inputs[1].data<float>();
    a.n = inputs[0].shape(0), a.m = inputs[1].shape(0), a.dim = inputs[0].shape(1), a.k = k_;
    a.distances = outputs[0].data<float>(), a.rows = outputs[1].data<int32_t>();
    // All parts but the last are of the same size.
    KnnArrays most = a, last = a;
    most.n = std::min(kQueries, a.n), last.n = (a.n - 1) % kQueries + 1;
    const KnnPlan plan(most, threads()), last_plan(last, threads());
    const Kernels& k = kernels();
    const size_t middle = (a.dim + 15) / 16 * 16;
    Work work;
    work.shared = middle + std::max(plan.shared(a.dim), last_plan.shared(a.dim));
    work.each = std::max(plan.each(k, a), last_plan.each(k, a));
    work.run = [=](const Scratch& scratch) {
      float* memory = scratch.shared();
      find_middle(a, memory);
      for (int64_t q = 0; q < a.n; q += kQueries) {
        KnnArrays part = a;
        part.queries += q * a.dim;
        part.n = std::min(kQueries, a.n - q);
        part.distances += q * a.k;
        part.rows += q * a.k;
        run(part, part.n == most.n ? plan : last_plan, memory, memory + middle, scratch);
      }
    };
    dispatch(std::move(work));
  }

  const char* name() const override { return "knn"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return static_cast<const Knn&>(other).k_ == k_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    mx::Shape shape{inputs[0].shape(0), k_};
    return {shape, shape};
  }

 protected:
  mx::Dtype output_type(int output) const override { return output == 0 ? mx::float32 : mx::int32; }

 private:
  int k_;
};

}  // namespace

std::pair<mx::array, mx::array> knn(const mx::array& queries, const mx::array& vectors, int k,
                                    mx::StreamOrDevice s) {
  const char* op = "knn";
  require(is_floating(queries) && is_floating(vectors), op,
          "queries and vectors must be float32, float16 or bfloat16");
  require(queries.ndim() == 2 && queries.size() > 0, op,
          "queries must be of shape (n, d), got " + to_string(queries.shape()));
  require(vectors.ndim() == 2 && vectors.size() > 0 && vectors.shape(1) == queries.shape(1), op,
          "vectors must be of shape (m, " + std::to_string(queries.shape(1)) + "), got " +
              to_string(vectors.shape()));
  require(k >= 1, op, "k must be at least 1, got " + std::to_string(k));
  mx::Shape shape{queries.shape(0), k};
  auto y = mx::array::make_arrays({shape, shape}, {mx::float32, mx::int32},
                                  std::make_shared<Knn>(mx::to_stream(s), k),
                                  {dense(queries, mx::float32, s), dense(vectors, mx::float32, s)});
  return {y[0], y[1]};
}

}  // namespace rvc_fast
