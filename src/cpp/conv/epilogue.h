// What follows the sum of a convolution. Included only through isa/kernels.inc and isa/bf16.inc.

static RVC_INLINE V finish(V v, const float* bias, const float* residual, float scale, Activation activation,
                           int n) {
  if (bias) v += load_first(bias, n);
  if (activation == kRelu) v = max(V{}, v);
  if (activation == kGelu) v = gelu(v);
  if (activation == kSigmoid) v = sigmoid(v);
  if (activation == kTanh) v = tanh(v);
  if (residual) v += load_first(residual, n);
  return v * scale;
}

// The way of `rows` rows of sums to y of a ConvBlock.
static void epilogue(const ConvBlock& b, const float* sum, int64_t pitch, int64_t at, int64_t column,
                     int rows, int columns) {
  for (int n = 0; n < columns; n += RVC_LANES) {
    int lanes = columns - n < RVC_LANES ? columns - n : RVC_LANES;
    const float* bias = b.bias ? b.bias + column + n : nullptr;
    const float* residual = b.residual ? b.residual + at + n : nullptr;
    float* y = b.y + at + n;
    for (int r = 0; r < rows; ++r) {
      V v = load(sum + r * pitch + n);
      v = finish(v, bias, residual, b.scale, b.activation, lanes);
      if (lanes == RVC_LANES) {
        store(y, v);
      } else {
        store_first(y, v, lanes);
      }
      y += b.y_row;
      if (residual) residual += b.y_row;
    }
  }
}
