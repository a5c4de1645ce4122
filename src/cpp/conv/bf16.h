// The direct convolution's micro-kernel in bfloat16. Included only through isa/bf16.inc.
//
// AMX: two by two tiles of 16 x 16 sums, each step a product of 16 rows x 32 by 32 x 16 columns. AVX512-BF16:
// tiles of 12 x 32 sums in registers, each step a pair of inputs.

#if defined(__AMX_BF16__)

constexpr bool kHasTiles = true;
constexpr int kTileRows = 32;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static const TileConfig tile_config;  // not a local: the intrinsic does not tell that it reads all of it

struct Tiles {
  Tiles() { _tile_loadconfig(&tile_config); }
  ~Tiles() { _tile_release(); }
};

// sum[16 R][32] of R x N tiles.
template <int R, int N>
static void tile(const Segment* begin, const Segment* end, const uint16_t* x, int64_t x_row,
                 const uint16_t* w, float* sum) {
  asm volatile("" ::: "memory");  // the intrinsics do not tell that they read memory
  const int64_t stride = x_row * 2;
  _tile_zero(0);
  if constexpr (N > 1) _tile_zero(1);
  if constexpr (R > 1) _tile_zero(2);
  if constexpr (R > 1 && N > 1) _tile_zero(3);
  for (const Segment* s = begin; s != end; ++s) {
    const uint16_t* p = x + s->offset;
    for (int64_t k = s->length; k > 0; k -= kPairedDepth, p += kPairedDepth, w += N * 512) {
      _tile_loadd(6, w, 64);
      _tile_loadd(4, p, stride);
      if constexpr (N > 1) _tile_loadd(7, w + 512, 64);
      if constexpr (R > 1) _tile_loadd(5, p + 16 * x_row, stride);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (N > 1) _tile_dpbf16ps(1, 4, 7);
      if constexpr (R > 1) _tile_dpbf16ps(2, 5, 6);
      if constexpr (R > 1 && N > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sum, 128);
  if constexpr (N > 1) _tile_stored(1, sum + 16, 128);
  if constexpr (R > 1) _tile_stored(2, sum + 512, 128);
  if constexpr (R > 1 && N > 1) _tile_stored(3, sum + 528, 128);
  asm volatile("" ::: "memory");
}

using TileFunction = void (*)(const Segment*, const Segment*, const uint16_t*, int64_t, const uint16_t*,
                              float*);

static TileFunction tile_function(int rows, int columns) {
  if (rows > 16) return columns > kNarrowPanel ? tile<2, 2> : tile<2, 1>;
  return columns > kNarrowPanel ? tile<1, 2> : tile<1, 1>;
}

static double peak(int64_t iterations) {
  Tiles tiles;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  return 4.0 * 2 * 16 * 16 * 32 * static_cast<double>(iterations);
}

#else

constexpr bool kHasTiles = false;
constexpr int kTileRows = 12;

struct Tiles {
  Tiles() {}
};

// sum[R][32] of R rows and N vectors of columns.
template <int R, int N>
static void tile(const Segment* begin, const Segment* end, const uint16_t* x, int64_t x_row,
                 const uint16_t* w, float* sum) {
  __m512 a[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) a[r][n] = _mm512_setzero_ps();
  }
  for (const Segment* s = begin; s != end; ++s) {
    const uint16_t* p = x + s->offset;
    for (int64_t k = s->length; k > 0; k -= kPairedDepth, w += N * 512) {
#pragma GCC unroll 2
      for (int i = 0; i < 16; ++i, p += 2) {
        __m512bh b[N];
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n)
          b[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + n * 512 + i * 32));
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          int32_t pair;
          __builtin_memcpy(&pair, p + r * x_row, 4);
          auto v = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 2
          for (int n = 0; n < N; ++n) a[r][n] = _mm512_dpbf16_ps(a[r][n], b[n], v);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) _mm512_storeu_ps(sum + r * 32 + n * 16, a[r][n]);
  }
}

using TileFunction = void (*)(const Segment*, const Segment*, const uint16_t*, int64_t, const uint16_t*,
                              float*);

template <int R>
static TileFunction find_tile(int rows, int columns) {
  if constexpr (R > 0) {
    if (rows != R) return find_tile<R - 1>(rows, columns);
    return columns > kNarrowPanel ? tile<R, 2> : tile<R, 1>;
  }
  return nullptr;
}

static TileFunction tile_function(int rows, int columns) { return find_tile<kTileRows>(rows, columns); }

static double peak(int64_t iterations) {
  constexpr int kChains = 16;
  __m512 a[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) a[i] = _mm512_set1_ps(static_cast<float>(i));
  auto one = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) a[i] = _mm512_dpbf16_ps(a[i], one, one);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "v"(a[i]));
  return 2.0 * 32 * kChains * static_cast<double>(iterations);
}

#endif

static void conv_block(const ConvBlock& b) {
  [[maybe_unused]] Tiles tiles;
  const Segment *begin = b.segments, *end = begin + b.block_ends[b.blocks - 1];
  const auto* x = static_cast<const uint16_t*>(b.x);
  int64_t reduction = 0;
  for (const Segment* s = begin; s != end; ++s) reduction += s->length;
  alignas(64) float sum[kTileRows * kPanel];
  for (int64_t column = 0; column < b.columns; column += kPanel) {
    const int columns = static_cast<int>(b.columns - column < kPanel ? b.columns - column : kPanel);
    const uint16_t* w = static_cast<const uint16_t*>(b.w) + column * reduction;
    for (int64_t line = 0; line < b.lines; ++line) {
      for (int64_t row = 0; row < b.rows; row += kTileRows) {
        const int rows = static_cast<int>(b.rows - row < kTileRows ? b.rows - row : kTileRows);
        tile_function(rows, columns)(begin, end, x + line * b.x_line + row * b.x_row, b.x_row, w, sum);
        epilogue(b, sum, kPanel, line * b.y_line + row * b.y_row + column, column, rows, columns);
      }
    }
  }
}

// bfloat16 of 32 floats, the first n of them; the others become zero.
static RVC_INLINE void round_to(uint16_t* to, const float* x, int n, V slope) {
  V low, high = {};
  if (n == 32) {
    low = load(x), high = load(x + 16);
  } else {
    low = load_first(x, n < 16 ? n : 16);
    if (n > 16) high = load_first(x + 16, n - 16);
  }
  low = max(low, low * slope);
  high = max(high, high * slope);
  _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

static void copy_input(const InputCopy& s) {
  const V slope = splat(s.slope);
  const int64_t filled = round_up(s.channels, kPairedDepth);
  for (int64_t l = 0; l < s.lines; ++l) {
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t h = s.line + l, w = s.row + r;
      uint16_t* to = static_cast<uint16_t*>(s.to) + (l * s.rows + r) * s.to_pitch;
      if (h < 0 || h >= s.height || w < 0 || w >= s.width) {
        __builtin_memset(to, 0, filled * sizeof *to);
        continue;
      }
      const float* x = s.x + (h * s.width + w) * s.pitch;
      int64_t c = 0;
      for (; c + 32 <= s.channels; c += 32) round_to(to + c, x + c, 32, slope);
      if (c < s.channels) round_to(to + c, x + c, static_cast<int>(s.channels - c), slope);
    }
  }
}
