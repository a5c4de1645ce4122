// Weights of 4 or 8 bits: as panels for the block of conv/block.h, and multiplied as they are.
// Included only through isa/kernels.inc, after conv/block.h.

template <int Bits>
static RVC_INLINE V code(VI words, int i) {
  return __builtin_convertvector(words >> (i * Bits) & ((1 << Bits) - 1), V);
}

typedef int32_t VIU __attribute__((vector_size(4 * RVC_LANES), aligned(4), may_alias));

// The first n words; the other lanes are zero.
static RVC_INLINE VI load_words(const uint32_t* p, int n) {
  if (n == RVC_LANES) return *reinterpret_cast<const VIU*>(p);
  VI v = {};
  for (int i = 0; i < n; ++i) v[i] = static_cast<int32_t>(p[i]);
  return v;
}

// RVC_LANES columns of a panel of `width`, as [channel][width]. Those from `used` on become zeros.
template <int Bits>
static void unpack_columns(const QuantizedWeight& w, int64_t first, int64_t used, float* to, int64_t width) {
  constexpr int kCodes = 32 / Bits, kMostWords = 128 / kCodes;  // of a group
  alignas(64) uint32_t words[kMostWords * RVC_LANES] = {};
  alignas(64) float scales[RVC_LANES] = {}, biases[RVC_LANES] = {};
  const int64_t groups = w.groups(), group_words = w.group / kCodes;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t n = 0; n < used; ++n) {
      scales[n] = w.scales[(first + n) * groups + g];
      biases[n] = w.biases[(first + n) * groups + g];
      const uint32_t* from = w.codes + (first + n) * w.words + g * group_words;
      for (int64_t i = 0; i < group_words; ++i) words[i * RVC_LANES + n] = from[i];
    }
    const V scale = load(scales), bias = load(biases);
    for (int64_t i = 0; i < group_words; ++i) {
      const VI word = load_words(words + i * RVC_LANES, RVC_LANES);
#pragma GCC unroll 8
      for (int c = 0; c < kCodes; ++c, to += width) store(to, code<Bits>(word, c) * scale + bias);
    }
  }
}

// The panels of `columns` outputs from `first` on, in float32 as conv_block takes them.
static void quantized_panels(const QuantizedWeight& w, int64_t first, int64_t columns, float* panels) {
  const auto unpack = w.bits == 4 ? unpack_columns<4> : unpack_columns<8>;
  for (int64_t column = 0; column < columns; column += kPanel) {
    const int64_t width = panel_width(columns - column);
    for (int64_t n = 0; n < width; n += RVC_LANES) {
      const int64_t left = columns - column - n, used = left < 0 ? 0 : left < RVC_LANES ? left : RVC_LANES;
      unpack(w, first + column + n, used, panels + column * w.channels() + n, width);
    }
  }
}

static int64_t quantized_row_floats(int64_t words, int bits) {
  return round_up(words, RVC_LANES) * (32 / bits);
}

// A row of x in the order in which a vector of words is unpacked: their first codes, their second ones, and
// so on. Zeros fill up the last vector.
static void quantized_row(const float* x, int64_t words, int bits, float* to) {
  const int64_t codes = 32 / bits;
  for (int64_t i = 0; i < words; i += RVC_LANES) {
    for (int64_t c = 0; c < codes; ++c) {
      for (int64_t lane = i; lane < i + RVC_LANES; ++lane) *to++ = lane < words ? x[lane * codes + c] : 0.0f;
    }
  }
}

// One number for each word of a vector of them. `words` of neighbours share theirs, beginning with from[0].
static RVC_INLINE V spread(const float* from, int64_t words, int lanes) {
  VI lane = {};
  for (int i = 0; i < RVC_LANES; ++i) lane[i] = i;
  V v = splat(from[0]);
  for (int64_t i = 1; i * words < lanes; ++i)
    v = lane >= static_cast<int32_t>(i * words) ? splat(from[i]) : v;
  return v;
}

// The products of R rows of x with one output's weights, each in as many parts as a vector has lanes.
template <int Bits, int R>
static void dot(const QuantizedWeight& w, int64_t column, const float* x, int64_t x_row, V* sums) {
  constexpr int kCodes = 32 / Bits;
  const int64_t groups = w.groups(), group_words = w.group / kCodes;
  const uint32_t* codes = w.codes + column * w.words;
  V total[R][2] = {};  // two, so that additions need not wait for each other
  for (int64_t i = 0; i < w.words; i += RVC_LANES) {
    const int lanes = w.words - i < RVC_LANES ? static_cast<int>(w.words - i) : RVC_LANES;
    const int64_t group = column * groups + i / group_words;
    const VI word = load_words(codes + i, lanes);
    const V scale = spread(w.scales + group, group_words, lanes),
            bias = spread(w.biases + group, group_words, lanes);
#pragma GCC unroll 8
    for (int c = 0; c < kCodes; ++c) {
      const V value = code<Bits>(word, c) * scale + bias;
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) total[r][c % 2] += value * load(x + r * x_row + i * kCodes + c * RVC_LANES);
    }
  }
  for (int r = 0; r < R; ++r) sums[r] = total[r][0] + total[r][1];
}

template <int Bits>
static void dots(const QuantizedDots& d) {
  constexpr decltype(&dot<Bits, 1>) kDots[kDotRows] = {dot<Bits, 1>, dot<Bits, 2>, dot<Bits, 3>,
                                                       dot<Bits, 4>};
  V parts[kDotRows];
  alignas(64) float sums[kDotRows * RVC_LANES] = {};
  for (int64_t column = d.first; column < d.first + d.columns; column += RVC_LANES) {
    const int64_t left = d.first + d.columns - column;
    const int lanes = left < RVC_LANES ? static_cast<int>(left) : RVC_LANES;
    for (int n = 0; n < lanes; ++n) {
      kDots[d.rows - 1](d.weight, column + n, d.x, d.x_row, parts);
      for (int64_t r = 0; r < d.rows; ++r) sums[r * RVC_LANES + n] = sum(parts[r]);
    }
    for (int64_t r = 0; r < d.rows; ++r) {
      const int64_t at = r * d.y_row + column;
      const V v = finish(load(sums + r * RVC_LANES), d.bias ? d.bias + column : nullptr,
                         d.residual ? d.residual + at : nullptr, 1.0f, d.activation, lanes);
      store_first(d.y + at, v, lanes);
    }
  }
}

static void quantized_dots(const QuantizedDots& d) { d.weight.bits == 4 ? dots<4>(d) : dots<8>(d); }
