// Winograd's convolution F(m x m, 3 x 3), one block of tiles at a time. Included only through
// isa/kernels.inc, after conv/block.h.
//
// A tile of (m + 2) x (m + 2) inputs becomes as many planes, each a matrix product over the channels, and
// these become m x m outputs: 2.25 (m = 2) or 4 (m = 4) times fewer products than direct. Both transforms run
// across channels, so that each of their steps is one vector operation.
//
// m = 2 interpolates at 0, 1, -1 and infinity; m = 4 at 0, +-sqrt(1/2), +-sqrt(2) and infinity: pairs share
// half of the work, and points whose product is one keep the factors, and so the rounding error, small (6 dB
// better than +-1 and +-2). Weights are transformed in conv/winograd.cpp.

template <int M>
struct WinogradAxis;

template <>
struct WinogradAxis<2> {
  static RVC_INLINE void forward(const V* x, V* z) {
    z[0] = x[2] - x[0];
    z[1] = x[2] + x[1];
    z[2] = x[2] - x[1];
    z[3] = x[3] - x[1];
  }
  static RVC_INLINE void inverse(const V* z, V* y) {
    y[0] = z[0] + (z[1] + z[2]);
    y[1] = (z[1] - z[2]) + z[3];
  }
};

template <>
struct WinogradAxis<4> {
  static constexpr float kA = 0.70710678f, kB = 1.41421356f;
  static RVC_INLINE void forward(const V* x, V* z) {
    V a = x[4] - 2.0f * x[2], ia = kA * (x[3] - 2.0f * x[1]);
    V b = x[4] - 0.5f * x[2], ib = kB * (x[3] - 0.5f * x[1]);
    z[0] = (x[0] + x[4]) - 2.5f * x[2];
    z[1] = a + ia;
    z[2] = a - ia;
    z[3] = b + ib;
    z[4] = b - ib;
    z[5] = (x[1] + x[5]) - 2.5f * x[3];
  }
  static RVC_INLINE void inverse(const V* z, V* y) {
    V a = z[1] + z[2], ia = kA * (z[1] - z[2]), b = z[3] + z[4], ib = kB * (z[3] - z[4]);
    y[0] = z[0] + (a + b);
    y[1] = ia + ib;
    y[2] = 0.5f * a + 2.0f * b;
    y[3] = 0.5f * ia + 2.0f * ib + z[5];
  }
};

// Plane p of the tile goes to to[p * slot].
template <int M, class Load>
static RVC_INLINE void winograd_forward(Load load, float* to, int64_t slot) {
  constexpr int kSide = M + 2;
  V t[kSide][kSide];
#pragma GCC unroll 6
  for (int j = 0; j < kSide; ++j) {
    V x[kSide];
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) x[i] = load(i, j);
    WinogradAxis<M>::forward(x, t[j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < kSide; ++i) {
    V x[kSide], z[kSide];
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) x[j] = t[j][i];
    WinogradAxis<M>::forward(x, z);
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) store(to + (i * kSide + j) * slot, z[j]);
  }
}

// y[M][M] of the planes at from[p * slot].
template <int M>
static RVC_INLINE void winograd_inverse(const float* from, int64_t slot, V (*y)[M]) {
  constexpr int kSide = M + 2;
  V t[kSide][M];
#pragma GCC unroll 6
  for (int j = 0; j < kSide; ++j) {
    V z[kSide];
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) z[i] = load(from + (i * kSide + j) * slot);
    WinogradAxis<M>::inverse(z, t[j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i) {
    V z[kSide];
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) z[j] = t[j][i];
    WinogradAxis<M>::inverse(z, y[i]);
  }
}

// A block's planes: those of the inputs, rows of all channels, then those of the outputs, rows of a panel.
// The 16 keep planes from lying a multiple of 4 KB apart.
static int64_t winograd_floats(int64_t m, int64_t tiles, int64_t channels) {
  return (m + 2) * (m + 2) * (tiles * (channels + 32) + 32);
}

template <int M>
static void winograd_tiles(const Winograd& b) {
  constexpr int kSide = M + 2, kPlanes = kSide * kSide;
  const int64_t channels = b.channels, line = b.width * channels;
  const int64_t slot = b.tiles * channels + 16, out_slot = b.tiles * 32 + 16;
  float* products = b.scratch + kPlanes * slot;

  for (int64_t i = 0; i < b.tiles; ++i) {
    const int64_t tile = b.first + i, h = tile / b.across * M - b.top, w = tile % b.across * M - b.left;
    float* to = b.scratch + i * channels;
    if (h >= 0 && w >= 0 && h + kSide <= b.height && w + kSide <= b.width) {
      const float* x = b.x + h * line + w * channels;
      for (int64_t c = 0; c < channels; c += RVC_LANES) {
        winograd_forward<M>(
            [&](int i, int j) RVC_LAMBDA { return load(x + c + i * line + j * channels); }, to + c, slot);
      }
    } else {
      const float* x[kSide][kSide];  // null outside
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) {
          const bool inside = h + i >= 0 && h + i < b.height && w + j >= 0 && w + j < b.width;
          x[i][j] = inside ? b.x + (h + i) * line + (w + j) * channels : nullptr;
        }
      }
      for (int64_t c = 0; c < channels; c += RVC_LANES) {
        winograd_forward<M>(
            [&](int i, int j) RVC_LAMBDA { return x[i][j] ? load(x[i][j] + c) : V{}; }, to + c, slot);
      }
    }
  }

  const Segment reduction{0, channels};
  const int32_t end = 1;
  const float* w = b.w;
  for (int64_t column = 0; column < b.columns; column += 32) {
    const int64_t columns = b.columns - column < 32 ? b.columns - column : 32, panel = columns > 16 ? 32 : 16;
    ConvBlock product{};
    product.x_row = channels;
    product.lines = 1, product.rows = b.tiles, product.columns = panel;
    product.segments = &reduction, product.block_ends = &end, product.blocks = 1;
    product.y_row = panel;
    product.scale = 1.0f;
    for (int p = 0; p < kPlanes; ++p, w += channels * panel) {
      product.x = b.scratch + p * slot;
      product.w = w;
      product.y = products + p * out_slot;
      conv_block(product);
    }
    for (int64_t i = 0; i < b.tiles; ++i) {
      const int64_t tile = b.first + i, h = tile / b.across * M, w = tile % b.across * M;
      const int64_t rows = b.out_height - h < M ? b.out_height - h : M,
                    places = b.out_width - w < M ? b.out_width - w : M;
      const int64_t at = (h * b.out_width + w) * b.pitch + column;
      for (int64_t n = 0; n < columns; n += RVC_LANES) {
        const int lanes = columns - n < RVC_LANES ? static_cast<int>(columns - n) : RVC_LANES;
        V y[M][M];
        winograd_inverse<M>(products + i * panel + n, out_slot, y);
        const float* bias = b.bias ? b.bias + column + n : nullptr;
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t q = 0; q < places; ++q) {
            const int64_t to = at + (r * b.out_width + q) * b.pitch + n;
            V v = finish(y[r][q], bias, b.residual ? b.residual + to : nullptr, b.scale, b.activation, lanes);
            if (lanes == RVC_LANES) {
              store(b.y + to, v);
            } else {
              store_first(b.y + to, v, lanes);
            }
          }
        }
      }
    }
  }
}

static void winograd(const Winograd& b) {
  if (b.m == 2) {
    winograd_tiles<2>(b);
  } else {
    winograd_tiles<4>(b);
  }
}
