// The recurrence of a GRU. Included only through isa/kernels.inc.
//
// One step multiplies one state with all weights, each used once: it runs as fast as they come out of the L2
// cache. They are packed transposed, in panels [hidden][columns of a panel] that are read straight through
// while the panel's sums stay in registers. A gate's columns are padded to whole vectors, the last panel with
// zeros.

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kGruVectors = 24;
#else
constexpr int kGruVectors = 12;
#endif
constexpr int kGruPanel = kGruVectors * RVC_LANES;

static int64_t gru_gate(int64_t hidden) { return round_up(hidden, RVC_LANES); }
static int64_t gru_panels(int64_t hidden) { return ceil_div(3 * gru_gate(hidden), kGruPanel); }

static int64_t gru_packed_floats(int64_t hidden) { return gru_panels(hidden) * kGruPanel * (hidden + 1); }
static int64_t gru_scratch_floats(int64_t hidden) {
  return gru_panels(hidden) * kGruPanel + gru_gate(hidden);
}

// Each panel: its biases, then its rows of weights.
static void gru_pack(const float* w, const float* b, int64_t hidden, float* to) {
  int64_t gate = gru_gate(hidden);
  for (int64_t column = 0; column < gru_panels(hidden) * kGruPanel; ++column) {
    int64_t g = column / gate, j = column % gate;
    bool used = g < 3 && j < hidden;
    float* p = to + column / kGruPanel * kGruPanel * (hidden + 1) + column % kGruPanel;
    p[0] = used ? b[g * hidden + j] : 0.0f;
    for (int64_t k = 0; k < hidden; ++k)
      p[(k + 1) * kGruPanel] = used ? w[(g * hidden + j) * hidden + k] : 0.0f;
  }
}

static void gru_scan(const GruScan& s) {
  const int64_t hidden = s.hidden, gate = gru_gate(hidden), panels = gru_panels(hidden);
  float* h = s.scratch;
  float* sums = h + gate;
  for (int64_t j = 0; j < gate; ++j) h[j] = j < hidden ? s.before[j] : 0.0f;

  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t t = s.backward ? s.steps - 1 - step : step;
    const float* w = s.packed;
    for (int64_t panel = 0; panel < panels; ++panel) {
      V a[kGruVectors];
#pragma GCC unroll 24
      for (int n = 0; n < kGruVectors; ++n) a[n] = load(w + n * RVC_LANES);
      w += kGruPanel;
      for (int64_t k = 0; k < hidden; ++k, w += kGruPanel) {
        V x = splat(h[k]);
#pragma GCC unroll 24
        for (int n = 0; n < kGruVectors; ++n) a[n] += x * load(w + n * RVC_LANES);
      }
#pragma GCC unroll 24
      for (int n = 0; n < kGruVectors; ++n) store(sums + panel * kGruPanel + n * RVC_LANES, a[n]);
    }
    const float* gates = s.gates + t * 3 * hidden;
    float* y = s.y + t * hidden;
    for (int64_t j = 0; j < gate; j += RVC_LANES) {
      int lanes = hidden - j < RVC_LANES ? static_cast<int>(hidden - j) : RVC_LANES;
      V r = sigmoid(load_first(gates + j, lanes) + load(sums + j));
      V z = sigmoid(load_first(gates + hidden + j, lanes) + load(sums + gate + j));
      V n = tanh(load_first(gates + 2 * hidden + j, lanes) + r * load(sums + 2 * gate + j));
      V next = n + z * (load(h + j) - n);
      store(h + j, next);
      store_first(y + j, next, lanes);
    }
  }
}
