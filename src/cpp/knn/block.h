// Nearest neighbours: scores of a block of vectors for all queries, and the heaps of the best so far.
// Included only through isa/kernels.inc, after conv/block.h.

// Heaps have the worst candidate first; of equal scores the higher id is worse.
static RVC_INLINE bool knn_worse(float a, int32_t a_id, float b, int32_t b_id) {
  return a > b || (a == b && a_id > b_id);
}

// Replaces the first candidate of a heap.
static void knn_replace(float* scores, int32_t* ids, int64_t size, float score, int32_t id) {
  int64_t at = 0;
  for (int64_t child; (child = 2 * at + 1) < size; at = child) {
    if (child + 1 < size && knn_worse(scores[child + 1], ids[child + 1], scores[child], ids[child])) ++child;
    if (!knn_worse(scores[child], ids[child], score, id)) break;
    scores[at] = scores[child], ids[at] = ids[child];
  }
  scores[at] = score, ids[at] = id;
}

static void knn_offer(float* scores, int32_t* ids, int64_t size, float score, int32_t id) {
  if (knn_worse(scores[0], ids[0], score, id)) knn_replace(scores, ids, size, score, id);
}

// Rows a multiple of 1 KB apart would fall into few cache sets.
static int64_t knn_pitch(int64_t dim) { return dim % 256 == 0 ? dim + 16 : dim; }

static int64_t knn_scratch_floats(int64_t rows, int64_t dim) {
  return rows * (knn_pitch(dim) + 1 + kPanel) + partial_floats(1, rows, kPanel);
}

// Panels of kPanel queries, [dim][kPanel], the last one filled up with zeros.
static void knn_pack(const float* queries, int64_t count, int64_t dim, const float* middle, float* packed) {
  for (int64_t q = 0; q < kPanel; ++q) {
    for (int64_t i = 0; i < dim; ++i)
      packed[i * kPanel + q] = q < count ? queries[q * dim + i] - middle[i] : 0.0f;
  }
}

static void knn_block(const KnnBlock& k) {
  constexpr int64_t kAhead = 1024;  // floats; memory answers one row late
  const int64_t pitch = knn_pitch(k.dim);
  float* x = k.scratch;
  float* norms = x + k.rows * pitch;
  float* dots = norms + k.rows;
  float* partial = dots + k.rows * kPanel;
  for (int64_t r = 0; r < k.rows; ++r) {
    const float* v = k.vectors + r * k.dim;
    V sum = {};
    for (int64_t i = 0; i < k.dim; i += RVC_LANES) {
      __builtin_prefetch(v + i + kAhead);
      const int lanes = k.dim - i < RVC_LANES ? static_cast<int>(k.dim - i) : RVC_LANES;
      V centred = load_first(v + i, lanes) - load_first(k.middle + i, lanes);
      store_first(x + r * pitch + i, centred, lanes);
      sum += centred * centred;
    }
    norms[r] = 0;
    for (int lane = 0; lane < RVC_LANES; ++lane) norms[r] += sum[lane];
  }

  // A part of the reduction at a time, whose panel of queries stays in the L1 cache.
  constexpr int64_t kPart = 256;
  Segment segments[64];
  int32_t ends[64];
  int32_t parts = 0;
  const int64_t part = k.dim > 64 * kPart ? (k.dim + 63) / 64 : kPart;
  for (int64_t i = 0; i < k.dim; i += part, ++parts) {
    segments[parts] = {i, k.dim - i < part ? k.dim - i : part};
    ends[parts] = parts + 1;
  }

  for (int64_t first = 0; first < k.queries; first += kPanel) {
    ConvBlock b{};
    b.x = x;
    b.x_row = pitch;
    b.lines = 1, b.rows = k.rows, b.columns = 32;
    b.segments = segments;
    b.block_ends = ends;
    b.blocks = parts;
    b.w = k.packed + first * k.dim;
    b.y = dots;
    b.y_row = 32;
    b.scale = -2.0f;
    b.partial = partial;
    conv_block(b);

    const int64_t count = k.queries - first < 32 ? k.queries - first : 32;
    alignas(64) float worst[32];
    for (int64_t q = 0; q < kPanel; ++q)
      worst[q] = q < count ? k.scores[(first + q) * k.wanted] : -__builtin_inff();
    for (int64_t r = 0; r < k.rows; ++r) {
      for (int64_t q = 0; q < kPanel; q += RVC_LANES) {
        // Ids rise, so that an equal score never enters.
        V score = load(dots + r * 32 + q) + norms[r];
        VI better = score < load(worst + q);
        if (!any(better)) continue;
        for (int lane = 0; lane < RVC_LANES; ++lane) {
          if (!better[lane]) continue;
          float* scores = k.scores + (first + q + lane) * k.wanted;
          knn_replace(scores, k.ids + (first + q + lane) * k.wanted, k.wanted, score[lane],
                      k.first_id + static_cast<int32_t>(r));
          worst[q + lane] = scores[0];
        }
      }
    }
  }
}

static float knn_distance(const float* a, const float* b, int64_t dim) {
  V sums[4] = {};
  for (int64_t i = 0, n = 0; i < dim; i += RVC_LANES, n = (n + 1) % 4) {
    const int lanes = dim - i < RVC_LANES ? static_cast<int>(dim - i) : RVC_LANES;
    V d = load_first(a + i, lanes) - load_first(b + i, lanes);
    sums[n] += d * d;
  }
  V sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float total = 0;
  for (int lane = 0; lane < RVC_LANES; ++lane) total += sum[lane];
  return total;
}
