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

// One vector of channels of a tile to its planes, `z_plane` floats apart.
template <int M, class Load>
static RVC_INLINE void winograd_forward(Load load, float* to, int64_t z_plane) {
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
    for (int j = 0; j < kSide; ++j, to += z_plane) store(to, z[j]);
  }
}

template <int M, class Store>
static RVC_INLINE void winograd_inverse(const float* from, int64_t z_plane, Store store) {
  constexpr int kSide = M + 2;
  V t[M][kSide];
#pragma GCC unroll 6
  for (int i = 0; i < kSide; ++i) {
    V z[kSide], y[M];
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j, from += z_plane) z[j] = load(from);
    WinogradAxis<M>::inverse(z, y);
#pragma GCC unroll 6
    for (int j = 0; j < M; ++j) t[j][i] = y[j];
  }
#pragma GCC unroll 6
  for (int j = 0; j < M; ++j) {
    V y[M];
    WinogradAxis<M>::inverse(t[j], y);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) store(i, j, y[i]);
  }
}

// R tiles' rows of one plane times N vectors of columns, `step` floats of w per channel; y's rows are as far
// apart. Meanwhile ahead_step bytes per channel from `ahead` on are fetched into L2. Channels: their number
// where the rows' addresses are what limits the speed, else 0.
template <int R, int N, int Channels>
static void winograd_product(const float* x, int64_t channels_, const float* w, int64_t step, float* y,
                             const char* ahead, int64_t ahead_step) {
  const int64_t channels = Channels ? Channels : channels_;
  V a[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) a[r][n] = V{};
  }
#pragma GCC unroll 2
  for (int64_t c = 0; c < channels; ++c, w += step) {
    __builtin_prefetch(ahead, 0, 2);
    if (N * RVC_LANES > 16 && ahead_step > 64) __builtin_prefetch(ahead + 64, 0, 2);
    ahead += ahead_step;
    V b[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) b[n] = load(w + n * RVC_LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      V xr = splat(x[r * channels + c]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) a[r][n] += xr * b[n];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(y + r * step + n * RVC_LANES, a[r][n]);
  }
}

using WinogradProduct = void (*)(const float*, int64_t, const float*, int64_t, float*, const char*, int64_t);

template <int R>
struct WinogradProducts {
  static WinogradProduct get(int rows, int columns, int64_t channels) {
    if (rows != R) return WinogradProducts<R - 1>::get(rows, columns, channels);
    constexpr int kWide = kTileColumns / RVC_LANES, kNarrow = kNarrowPanel / RVC_LANES;
    if (columns == kPanel) return winograd_product<R, kWide, 0>;
    return channels == 16   ? winograd_product<R, kNarrow, 16>
           : channels == 32 ? winograd_product<R, kNarrow, 32>
                            : winograd_product<R, kNarrow, 0>;
  }
};

template <>
struct WinogradProducts<0> {
  static WinogradProduct get(int, int, int64_t) { return nullptr; }
};

// A block's planes: those of the inputs, rows of all channels, then the products, rows of a panel of weights.
// The 16 keep planes from lying a multiple of 4 KB apart.
static int64_t winograd_floats(int64_t m, int64_t tiles, int64_t channels) {
  return (m + 2) * (m + 2) * (tiles * (channels + kPanel) + 32);
}

template <int M>
static void winograd_inputs(const Winograd& b, float* z, int64_t z_plane) {
  constexpr int kSide = M + 2;
  const int64_t channels = b.channels, line = b.width * channels;
  for (int64_t i = 0; i < b.tiles; ++i, z += channels) {
    const int64_t tile = b.first + i, h = tile / b.across * M - b.top, w = tile % b.across * M - b.left;
    const float* x = b.x + h * line + w * channels;
    if (h >= 0 && w >= 0 && h + kSide <= b.height && w + kSide <= b.width) {
      for (int64_t c = 0; c < channels; c += RVC_LANES) {
        winograd_forward<M>([&](int r, int q) RVC_LAMBDA { return load(x + c + r * line + q * channels); },
                            z + c, z_plane);
      }
      continue;
    }
    const float* places[kSide][kSide];  // null outside
    for (int r = 0; r < kSide; ++r) {
      for (int q = 0; q < kSide; ++q) {
        const bool inside = h + r >= 0 && h + r < b.height && w + q >= 0 && w + q < b.width;
        places[r][q] = inside ? x + r * line + q * channels : nullptr;
      }
    }
    for (int64_t c = 0; c < channels; c += RVC_LANES) {
      winograd_forward<M>([&](int r, int q)
                              RVC_LAMBDA { return places[r][q] ? load(places[r][q] + c) : V{}; },
                          z + c, z_plane);
    }
  }
}

// A panel's products of all planes: w [plane][channels][panel].
static void winograd_products(const Winograd& b, int planes, const float* z, int64_t z_plane, const float* w,
                              int panel, float* y, int64_t y_plane) {
  // Rows are dealt evenly, as in conv_block.
  const int64_t groups = ceil_div(b.tiles, kTileRows), small = b.tiles / groups, larger = b.tiles % groups;
  const int width = panel == kPanel ? kTileColumns : kNarrowPanel;
  WinogradProduct function[2];  // [one row more]
  for (int more = 0; more < 2; ++more) {
    const int rows = static_cast<int>(small) + (more && larger ? 1 : 0);
    function[more] = WinogradProducts<kTileRows>::get(rows, width, b.channels);
  }
  const int64_t plane = b.channels * panel, ahead_step = ceil_div(panel * 4, groups);
  for (int p = 0; p < planes; ++p, w += plane, z += z_plane, y += y_plane) {
    for (int column = 0; column < panel; column += width) {
      const char* ahead = reinterpret_cast<const char*>(w + plane);
      for (int64_t g = 0, row = 0; g < groups; ++g) {
        function[g < larger](z + row * b.channels, b.channels, w + column, panel, y + row * panel + column,
                             ahead, ahead_step);
        ahead += ahead_step * b.channels;
        row += small + (g < larger);
      }
    }
  }
}

// The panel's outputs, `columns` of them from `column` on.
template <int M, bool Residual>
static void winograd_outputs(const Winograd& b, const float* products, int64_t z_plane, int panel,
                             int64_t column, int columns) {
  const int64_t line = b.out_width * b.pitch;
  const bool simple = b.activation == kNone || b.activation == kRelu;
  const V least = splat(b.activation == kRelu ? 0.0f : -__builtin_inff());
  for (int64_t i = 0; i < b.tiles; ++i) {
    const int64_t tile = b.first + i, h = tile / b.across * M, w = tile % b.across * M;
    for (int n = 0; n < columns; n += RVC_LANES) {
      const int lanes = columns - n < RVC_LANES ? columns - n : RVC_LANES;
      const V bias = b.bias ? load_first(b.bias + column + n, lanes) : V{};
      const int64_t at = h * line + w * b.pitch + column + n;
      const float* from = products + i * panel + n;
      if (simple && lanes == RVC_LANES && h + M <= b.out_height && w + M <= b.out_width) {
        float* y = b.y + at;
        const float* residual = Residual ? b.residual + at : nullptr;
        for (int r = 0; Residual && r < M; ++r) {  // the next tile's
          for (int q = M; q < 2 * M; ++q) __builtin_prefetch(residual + r * line + q * b.pitch);
        }
        winograd_inverse<M>(from, z_plane, [&](int r, int q, V v) RVC_LAMBDA {
          v = max(least, v + bias);
          if (Residual) v += load(residual + r * line + q * b.pitch);
          store(y + r * line + q * b.pitch, v);
        });
        continue;
      }
      V sums[M][M];
      winograd_inverse<M>(from, z_plane, [&](int r, int q, V v) RVC_LAMBDA { sums[r][q] = v; });
      for (int64_t r = 0; r < M && h + r < b.out_height; ++r) {
        for (int64_t q = 0; q < M && w + q < b.out_width; ++q) {
          const int64_t to = at + r * line + q * b.pitch;
          const float* residual = Residual ? b.residual + to : nullptr;
          store_first(b.y + to, finish(sums[r][q] + bias, nullptr, residual, 1.0f, b.activation, lanes),
                      lanes);
        }
      }
    }
  }
}

template <int M>
static void winograd_tiles(const Winograd& b) {
  constexpr int kPlanes = (M + 2) * (M + 2);
  const int64_t z_plane = b.tiles * b.channels + 16;
  float* products = b.scratch + kPlanes * z_plane;
  winograd_inputs<M>(b, b.scratch, z_plane);
  const float* w = b.w;
  for (int64_t column = 0; column < b.columns; column += kPanel) {
    const int columns = b.columns - column < kPanel ? static_cast<int>(b.columns - column) : kPanel,
              panel = panel_width(columns);
    const int64_t y_plane = b.tiles * panel + 16;
    winograd_products(b, kPlanes, b.scratch, z_plane, w, panel, products, y_plane);
    w += kPlanes * b.channels * panel;
    if (b.residual) {
      winograd_outputs<M, true>(b, products, y_plane, panel, column, columns);
    } else {
      winograd_outputs<M, false>(b, products, y_plane, panel, column, columns);
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
