// The direct convolution's micro-kernel in whole numbers. Included only through isa/int8.inc.
//
// Each row of the input, as it is copied, is turned into codes from 0 to 255: x = scale * (code - zero), both
// of the row. Weights are whole numbers from -127 to 127 with a scale per column and tap. A tap's products
// are summed in int32, without rounding, and then added in float32:
//
//   y[column] = sum over taps of float(sum of (code - zero) * weight) * (scale of the row * scale of the
//   column)
//
// A row's scale depends on that row alone, so that a frame does not depend on the chunk it is in.

#if defined(__AVX512VNNI__)
constexpr int kTileRows = 12, kTileColumns = kPanel;
#else
constexpr int kTileRows = 6, kTileColumns = kNarrowPanel;
#endif

// What follows the codes of a row, and after each tap of a panel of weights what each column has.
struct RowScale {
  float scale;
  int32_t zero;
};
static_assert(sizeof(RowScale) <= kRowScaleBytes);

#if defined(__AVX512VNNI__)
// By name: with the intrinsic GCC 12 copies sums between registers and memory.
static RVC_INLINE void multiply(VI& sum, VI codes, VI weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(weights));
}
static RVC_INLINE VI nearest(V v) { return reinterpret_cast<VI>(_mm512_cvtps_epi32(v)); }
static RVC_INLINE void store_codes(uint8_t* to, VI v) {
  const __m512i low = _mm512_max_epi32(reinterpret_cast<__m512i>(v), _mm512_setzero_si512());
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(low));
}
#elif defined(__AVXVNNI__)
static RVC_INLINE void multiply(VI& sum, VI codes, VI weights) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(weights));
}
static RVC_INLINE VI nearest(V v) { return reinterpret_cast<VI>(_mm256_cvtps_epi32(v)); }
static RVC_INLINE void store_codes(uint8_t* to, VI v) {
  const auto all = reinterpret_cast<__m256i>(v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
}
#elif defined(__ARM_FEATURE_DOTPROD)
// Both factors are signed here: codes are stored less 128, and so is the zero.
static RVC_INLINE void multiply(VI& sum, VI codes, VI weights) {
  sum = reinterpret_cast<VI>(vdotq_s32(reinterpret_cast<int32x4_t>(sum), reinterpret_cast<int8x16_t>(codes),
                                       reinterpret_cast<int8x16_t>(weights)));
}
static RVC_INLINE VI nearest(V v) { return reinterpret_cast<VI>(vcvtnq_s32_f32(v)); }
static RVC_INLINE void store_codes(uint8_t* to, VI v) {
  const int16x4_t words = vqmovn_s32(reinterpret_cast<int32x4_t>(v - 128));
  const int8x8_t codes = vqmovn_s16(vcombine_s16(words, words));
  vst1_lane_s32(reinterpret_cast<int32_t*>(to), vreinterpret_s32_s8(codes), 0);
}
#endif

#if defined(__ARM_FEATURE_DOTPROD)
constexpr int kCodeShift = 128;
#else
constexpr int kCodeShift = 0;
#endif

typedef int32_t VIU __attribute__((vector_size(4 * RVC_LANES), aligned(4), may_alias));
static RVC_INLINE VI load_whole(const void* p) { return *static_cast<const VIU*>(p); }

// sum[R][kPanel] of R rows and C columns, from `column` on in the panel `w` of `width`. What the next tiles
// will want is fetched into L2 on the way: `ahead`, ahead_step bytes a step.
template <int R, int C>
static void tile(const Segment* begin, const Segment* end, const uint8_t* x, int64_t x_row, const uint8_t* w,
                 int64_t width, int column, float* sum, const uint8_t* ahead, int64_t ahead_step) {
  constexpr int N = C / RVC_LANES;
  for (const Segment* s = begin; s != end; ++s) {
    VI a[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) a[r][n] = VI{};
    }
    const uint8_t* p = x + s->offset;
    const uint8_t* b = w + column * kQuadDepth;
    for (int64_t k = s->length; k > 0; k -= kQuadDepth, b += width * kQuadDepth) {
#pragma GCC unroll 2
      for (int i = 0; i < 16; ++i, p += 4, ahead += ahead_step) {
        __builtin_prefetch(ahead, 0, 2);
        VI v[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          const int at = n * RVC_LANES;
          v[n] = load_whole(b + at / 16 * 16 * kQuadDepth + i * 64 + at % 16 * 4);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          int32_t four;
          __builtin_memcpy(&four, p + r * x_row, 4);
          const VI codes = VI{} + four;
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) multiply(a[r][n], codes, v[n]);
        }
      }
    }
    w += width * s->length;
    const auto* scales = reinterpret_cast<const float*>(w) + column;
    const uint8_t* sums = w + width * 4 + column * 4;
    w += width * kColumnScaleBytes;
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const V scale = load(scales + n * RVC_LANES);
      const VI whole = load_whole(sums + n * RVC_LANES * 4);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        RowScale row;
        __builtin_memcpy(&row, p + r * x_row, sizeof row);
        const V product = __builtin_convertvector(a[r][n] - whole * row.zero, V) * (scale * row.scale);
        float* to = sum + r * kPanel + n * RVC_LANES;
        store(to, s == begin ? product : product + load(to));
      }
    }
  }
}

using TileFunction = void (*)(const Segment*, const Segment*, const uint8_t*, int64_t, const uint8_t*,
                              int64_t, int, float*, const uint8_t*, int64_t);

template <int R>
static TileFunction find_tile(int rows, int columns) {
  if constexpr (R > 0) {
    if (rows != R) return find_tile<R - 1>(rows, columns);
    return columns > kNarrowPanel ? tile<R, kTileColumns> : tile<R, kNarrowPanel>;
  }
  return nullptr;
}

static void conv_block(const ConvBlock& b) {
  const Segment *begin = b.segments, *end = begin + b.block_ends[b.blocks - 1];
  int64_t reduction = 0;
  for (const Segment* s = begin; s != end; ++s) reduction += s->length + kColumnScaleBytes;
  // Rows are dealt evenly to the tiles of a line: 13 rows are 7 + 6, not 12 + 1.
  const int64_t tiles = ceil_div(b.rows, kTileRows), small = b.rows / tiles, larger = b.rows % tiles;
  alignas(64) float sum[kTileRows * kPanel];
  for (int64_t column = 0; column < b.columns;) {
    const int64_t panel = column / kPanel * kPanel;
    const int width = panel_width(b.columns - panel);
    const int taken = width < kTileColumns ? width : kTileColumns;
    const int columns = static_cast<int>(b.columns - column < taken ? b.columns - column : taken);
    const uint8_t* w = static_cast<const uint8_t*>(b.w) + panel * reduction;
    // Each tile fetches its share of the panel after this one; the first to use a panel would otherwise wait
    // for it.
    const int64_t share = width * reduction / (tiles * b.lines), ahead_step = width * 4 / (tiles * b.lines);
    const uint8_t* ahead = w + width * reduction;
    for (int64_t line = 0; line < b.lines; ++line) {
      for (int64_t t = 0, row = 0; t < tiles; ++t) {
        const int rows = static_cast<int>(small) + (t < larger ? 1 : 0);
        const uint8_t* x = static_cast<const uint8_t*>(b.x) + line * b.x_line + row * b.x_row;
        find_tile<kTileRows>(rows, taken)(begin, end, x, b.x_row, w, width, static_cast<int>(column - panel),
                                          sum, ahead, ahead_step);
        ahead += share;
        epilogue(b, sum, kPanel, line * b.y_line + row * b.y_row + column, column, rows, columns);
        row += rows;
      }
    }
    column += taken;
  }
}

// The numbers of a row that follow c, zeros after the last, through the leaky ReLU.
static RVC_INLINE V numbers(const float* x, int64_t c, int64_t channels, V slope) {
  const int64_t left = channels - c;
  const V v = left >= RVC_LANES ? load(x + c) : load_first(x + c, static_cast<int>(left));
  return max(v, v * slope);
}

// Makes codes of a row: of nothing but zeros if all of it lies outside the input. A row with NaN or infinity,
// or of more extent than float32 holds, gets the scale NaN, and so do all results that it is part of.
static void code_row(const float* x, int64_t channels, V slope, uint8_t* to) {
  const int64_t filled = round_up(channels, kQuadDepth);
  V low = {}, high = {}, odd = {};
  for (int64_t c = 0; x && c < channels; c += RVC_LANES) {
    const V v = numbers(x, c, channels, slope);
    low = min(low, v), high = max(high, v);
    odd += v * 0.0f;  // NaN of NaN and of infinity
  }
  float least = 0, most = 0, wrong = 0;
  for (int i = 0; i < RVC_LANES; ++i) {
    least = low[i] < least ? low[i] : least, most = high[i] > most ? high[i] : most, wrong += odd[i];
  }
  const float extent = most - least;
  RowScale row{.scale = extent / 255.0f, .zero = kCodeShift == 0 ? 0 : -kCodeShift};
  __builtin_memset(to, kCodeShift == 0 ? 0 : -kCodeShift, filled);
  if (wrong != 0 || !(extent <= 3.402823466e38f)) {
    row.scale = __builtin_nanf("");
  } else if (!(row.scale >= 1.17549435e-38f)) {  // all zeros, or next to it
    row.scale = 0;
  } else {
    const float by = 1.0f / row.scale;
    const int zero = static_cast<int>(__builtin_rintf(-least * by));
    for (int64_t c = 0; c < channels; c += RVC_LANES) {
      store_codes(to + c, nearest(numbers(x, c, channels, slope) * by) + zero);
    }
    row.zero = zero - kCodeShift;
  }
  __builtin_memcpy(to + filled, &row, sizeof row);
}

static void copy_input(const InputCopy& s) {
  const V slope = splat(s.slope);
  for (int64_t l = 0; l < s.lines; ++l) {
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t h = s.line + l, w = s.row + r;
      const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
      code_row(inside ? s.x + (h * s.width + w) * s.pitch : nullptr, s.channels, slope,
               static_cast<uint8_t*>(s.to) + (l * s.rows + r) * s.to_pitch);
    }
  }
}

static double peak(int64_t iterations) {
  constexpr int kChains = 12;
  VI a[kChains], one = VI{} + 0x01010101;
#pragma GCC unroll 32
  for (int i = 0; i < kChains; ++i) a[i] = VI{} + i;
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) multiply(a[i], one, one);
  }
  VI total = {};
#pragma GCC unroll 32
  for (int i = 0; i < kChains; ++i) total += a[i];
  volatile int32_t sink = total[0];
  (void)sink;
  return 2.0 * 4 * RVC_LANES * kChains * static_cast<double>(iterations);
}
