// The gated activation of a WaveNet layer. Included only through isa/kernels.inc.

static void gate(const float* x, const float* g, int64_t g_row, int64_t rows, int64_t hidden, float* y) {
  for (int64_t row = 0; row < rows; ++row, x += 2 * hidden, g += g_row, y += hidden) {
    for (int64_t j = 0; j < hidden; j += RVC_LANES) {
      int lanes = hidden - j < RVC_LANES ? static_cast<int>(hidden - j) : RVC_LANES;
      V a = load_first(x + j, lanes) + load_first(g + j, lanes);
      V b = load_first(x + hidden + j, lanes) + load_first(g + hidden + j, lanes);
      store_first(y + j, tanh(a) * sigmoid(b), lanes);
    }
  }
}
