// Layer normalisation of rows. Included only through isa/kernels.inc.

static void layer_norm(const LayerNorm& a) {
  const float inverse = 1.0f / static_cast<float>(a.width);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.width;
    const float* residual = a.residual ? a.residual + r * a.width : nullptr;
    float* y = a.y + r * a.width;
    auto lanes = [&](int64_t c) {
      return a.width - c < RVC_LANES ? static_cast<int>(a.width - c) : RVC_LANES;
    };
    // Two passes over a row that stays in L1: the variance is taken around the mean, so nothing cancels.
    V s = {};
    for (int64_t c = 0; c < a.width; c += RVC_LANES) {
      V v = load_first(x + c, lanes(c));
      if (residual) v += load_first(residual + c, lanes(c));
      store_first(y + c, v, lanes(c));
      s += v;
    }
    const float mean = sum(s) * inverse;
    // What rounding left of the mean is taken off separately.
    V rest = {};
    s = V{};
    int64_t whole = a.width / RVC_LANES * RVC_LANES;
    for (int64_t c = 0; c < whole; c += RVC_LANES) {
      V v = load(y + c) - mean;
      rest += v;
      s += v * v;
    }
    float shift = sum(rest), variance = sum(s);
    for (int64_t c = whole; c < a.width; ++c) {
      float v = y[c] - mean;
      shift += v;
      variance += v * v;
    }
    shift *= inverse;
    const float gain = 1.0f / __builtin_sqrtf(variance * inverse - shift * shift + a.eps);
    for (int64_t c = 0; c < a.width; c += RVC_LANES) {
      V v = (load_first(y + c, lanes(c)) - mean - shift) * gain;
      if (a.weight) v *= load_first(a.weight + c, lanes(c));
      if (a.bias) v += load_first(a.bias + c, lanes(c));
      store_first(y + c, v, lanes(c));
    }
  }
}
