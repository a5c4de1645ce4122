// Attention of a few dozen query rows over all keys. Included only through isa/kernels.inc.
//
// Both products are the convolution's tile over packed keys and values. The softmax runs along with the
// blocks of keys (its maximum and sum are corrected as larger scores appear), so no more than rows x
// kKeyBlock scores exist.

// Relative positions are a band around the diagonal: a row's scores against all relative keys are computed
// first and added where they belong; its weights near the diagonal are kept for the relative values.

static int64_t attention_floats(int64_t rows, int64_t dim, int64_t band) {
  return rows *
         (kKeyBlock + 2 * round_up(dim, kNarrowPanel) + 2 * round_up(band, kNarrowPanel) + 2 * RVC_LANES);
}

static void attention_pack(const AttentionPack& p) {
  for (int64_t block = p.begin; block < p.end; block += kKeyBlock) {
    int64_t keys = p.end - block < kKeyBlock ? p.end - block : kKeyBlock;
    for (int64_t panel = 0; panel < keys; panel += kPanel) {
      int64_t width = panel_width(keys - panel);
      float* to = p.to_k + (block + panel) * p.dim;
      for (int64_t i = 0; i < width; ++i) {
        const float* k = p.k + (block + panel + i) * p.k_row;
        bool used = panel + i < keys;
        for (int64_t c = 0; c < p.dim; ++c) to[c * width + i] = used ? k[c * p.k_column] : 0.0f;
      }
    }
    float* to = p.to_v + block * round_up(p.dim, kNarrowPanel);
    for (int64_t panel = 0; panel < p.dim; panel += kPanel) {
      int64_t width = panel_width(p.dim - panel);
      for (int64_t i = 0; i < keys; ++i, to += width) {
        const float* v = p.v + (block + i) * p.v_row + panel * p.v_column;
        const int64_t used = p.dim - panel < width ? p.dim - panel : width;
        if (p.v_column == 1 && used == width) {
          for (int64_t c = 0; c < width; c += RVC_LANES) store(to + c, load(v + c));
          continue;
        }
        for (int64_t c = 0; c < width; ++c) to[c] = c < used ? v[c * p.v_column] : 0.0f;
      }
    }
  }
}

// y rows = or += x rows * w, no bias, no activation.
static void product(const float* x, int64_t x_row, int64_t rows, int64_t length, const float* w,
                    int64_t columns, float* y, int64_t y_row, bool add) {
  Segment segment{0, length};
  int32_t end = 1;
  ConvBlock b{};
  b.x = x, b.x_row = x_row;
  b.lines = 1, b.rows = rows, b.columns = columns;
  b.segments = &segment, b.block_ends = &end, b.blocks = 1;
  b.w = w;
  b.residual = add ? y : nullptr;
  b.y = y, b.y_row = y_row;
  b.scale = 1.0f;
  conv_block(b);
}

static void attention(const Attention& a) {
  // Scores are taken times log2(e), so that 2^x serves for exp(x).
  const float scale = a.scale * 1.44269504088896341f;
  const int64_t wide = round_up(a.dim, kNarrowPanel), width = 2 * a.window + 1;
  const int64_t band = a.rel_k ? round_up(width, kNarrowPanel) : 0;
  float* scores = a.scratch;
  float* q = scores + a.rows * kKeyBlock;
  float* y = q + a.rows * wide;
  float* top = y + a.rows * wide;      // per row: the largest score so far
  float* total = top + a.rows;         // and the sum of 2^(score - top)
  float* bias = total + a.rows;        // per row: the scores of the band
  float* near = bias + a.rows * band;  // and its 2^(score - top)
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.dim; ++c) q[r * wide + c] = a.q[r * a.q_row + c * a.q_column] * scale;
    for (int64_t c = 0; c < wide; ++c) y[r * wide + c] = 0.0f;
    top[r] = -__builtin_inff();
    total[r] = 0.0f;
    for (int64_t c = 0; c < band; ++c) near[r * band + c] = 0.0f;
  }
  for (int64_t block = 0; block < width && a.rel_k; block += kKeyBlock) {
    const int64_t count = width - block < kKeyBlock ? width - block : kKeyBlock;
    product(q, wide, a.rows, a.dim, a.rel_k + block * a.dim, count, bias + block, band, false);
  }
  for (int64_t block = 0; block < a.keys; block += kKeyBlock) {
    const int64_t keys = a.keys - block < kKeyBlock ? a.keys - block : kKeyBlock;
    product(q, wide, a.rows, a.dim, a.k + block * a.dim, keys, scores, kKeyBlock, false);
    for (int64_t r = 0; r < a.rows; ++r) {
      float* s = scores + r * kKeyBlock;
      // The keys of this block that the band reaches; c of the band is key c + shift of the block.
      const int64_t shift = a.first + r - a.window - block;
      const int64_t low = shift < 0 ? -shift : 0, high = width < keys - shift ? width : keys - shift;
      for (int64_t c = low; c < high && band; ++c) s[c + shift] += bias[r * band + c];
      int64_t padded = round_up(keys, RVC_LANES);
      for (int64_t i = keys; i < padded; ++i) s[i] = -__builtin_inff();
      V m = splat(top[r]);
      for (int64_t i = 0; i < padded; i += RVC_LANES) m = max(m, load(s + i));
      const float larger = largest(m);
      V t = {};
      for (int64_t i = 0; i < padded; i += RVC_LANES) {
        V p = exp2_below_0(load(s + i) - larger);
        store(s + i, p);
        t += i + RVC_LANES <= keys ? p : V{};
      }
      float sum_of_block = sum(t);
      for (int64_t i = keys / RVC_LANES * RVC_LANES; i < keys; ++i) sum_of_block += s[i];
      const float shrink = block == 0 ? 0.0f : exp2_below_0(splat(top[r] - larger))[0];
      top[r] = larger;
      total[r] = total[r] * shrink + sum_of_block;
      if (shrink != 1.0f) {
        for (int64_t c = 0; c < wide; c += RVC_LANES)
          store(y + r * wide + c, load(y + r * wide + c) * shrink);
        for (int64_t c = 0; c < band; ++c) near[r * band + c] *= shrink;
      }
      for (int64_t c = low; c < high && band; ++c) near[r * band + c] = s[c + shift];
    }
    product(scores, kKeyBlock, a.rows, keys, a.v + block * wide, a.dim, y, wide, true);
  }
  for (int64_t block = 0; block < width && a.rel_k; block += kKeyBlock) {
    const int64_t count = width - block < kKeyBlock ? width - block : kKeyBlock;
    product(near + block, band, a.rows, count, a.rel_v + block * wide, a.dim, y, wide, true);
  }
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.dim; c += RVC_LANES) {
      int lanes = a.dim - c < RVC_LANES ? static_cast<int>(a.dim - c) : RVC_LANES;
      store_first(a.y + r * a.y_row + c, load(y + r * wide + c) / splat(total[r]), lanes);
    }
  }
}
