// The direct convolution's micro-kernel. Included only through isa/kernels.inc.
//
// A tile of rows x columns of the output stays in registers while the whole reduction (a block of it, if
// long) passes by: one to four vectors of weights are loaded per step and meet one broadcast input per row.

// The register tiles, the widest first; where columns are left over, a narrower one takes them. On AVX-512
// 6 x 64 has 24 accumulators as 12 x 32 does, and 10 loads for them instead of 14.
#if defined(__AVX512F__)
constexpr int kShapeRows[] = {6, 12, 12}, kShapeColumns[] = {2 * kPanel, kPanel, kNarrowPanel};
constexpr int kTileRows = 12, kTileColumns = kPanel;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kShapeRows[] = {6}, kShapeColumns[] = {kNarrowPanel};
constexpr int kTileRows = 6, kTileColumns = kNarrowPanel;
#else
constexpr int kShapeRows[] = {3}, kShapeColumns[] = {kNarrowPanel};
constexpr int kTileRows = 3, kTileColumns = kNarrowPanel;
#endif
constexpr int kShapes = sizeof kShapeRows / sizeof kShapeRows[0];

// Where a tile's sums go: raw to (or onto) `sum`, rows `pitch` apart; or finished to y.
struct TileOutput {
  float* sum;  // or null
  int64_t pitch;
  bool accumulate;
  const float *bias, *residual;  // or null; residual and y advance by y_row
  float* y;
  int64_t y_row;
  float scale;
  const float* ahead;  // what the next tiles will want: fetched into L2 on the way, ahead_step bytes a step
  int64_t ahead_step;
};

// `panel_step` floats of w per reduction step; a second panel lies `second` floats after the first.
template <int R, int N>
static void tile(const Segment* begin, const Segment* end, const float* x, int64_t x_row, const float* w,
                 int panel_step, int64_t second, const TileOutput& out) {
  constexpr int kVectors = kPanel / RVC_LANES;  // of a panel
  const int64_t step = N >= kVectors ? kPanel : panel_step;
  V a[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) a[r][n] = V{};
  }
  if (out.residual) {  // on its way while the sum is taken
    for (int r = 0; r < R; ++r) {
      __builtin_prefetch(out.residual + r * out.y_row);
#pragma GCC unroll 4
      for (int n = 16; n < N * RVC_LANES; n += 16) __builtin_prefetch(out.residual + r * out.y_row + n);
    }
  }
  const char* ahead = reinterpret_cast<const char*>(out.ahead);
  const int64_t ahead_step = out.ahead_step;
  for (const Segment* s = begin; s != end; ++s) {
    const float* p = x + s->offset;
#pragma GCC unroll 4
    for (int64_t c = s->length; c > 0; --c, ++p, w += step) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += ahead_step;
      V b[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) b[n] = load(w + n / kVectors * second + n % kVectors * RVC_LANES);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        V xr = splat(p[r * x_row]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) a[r][n] += xr * b[n];
      }
    }
  }
  if (out.sum) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        float* to = out.sum + r * out.pitch + n * RVC_LANES;
        store(to, out.accumulate ? a[r][n] + load(to) : a[r][n]);
      }
    }
    return;
  }
  V bias[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) bias[n] = out.bias ? load(out.bias + n * RVC_LANES) : V{};
  const float* residual = out.residual;
  float* y = out.y;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      V v = a[r][n] + bias[n];
      if (residual) v += load(residual + n * RVC_LANES);
      store(y + n * RVC_LANES, v * out.scale);
    }
    y += out.y_row;
    if (residual) residual += out.y_row;
  }
}

using TileFunction = void (*)(const Segment*, const Segment*, const float*, int64_t, const float*, int,
                              int64_t, const TileOutput&);

template <int R, int N>
struct Tiles {
  static TileFunction get(int rows) { return rows == R ? tile<R, N> : Tiles<R - 1, N>::get(rows); }
};

template <int N>
struct Tiles<0, N> {
  static TileFunction get(int) { return nullptr; }
};

template <int Shape = 0>
static TileFunction tile_function(int shape, int rows) {
  if constexpr (Shape == kShapes) {
    return nullptr;
  } else {
    if (shape != Shape) return tile_function<Shape + 1>(shape, rows);
    return Tiles<kShapeRows[Shape], kShapeColumns[Shape] / RVC_LANES>::get(rows);
  }
}

// The widest shape for the columns left, as many of them as are packed.
static int widest_shape(int64_t columns) {
  int shape = 0;
  while (round_up(columns, kNarrowPanel) < kShapeColumns[shape]) ++shape;
  return shape;
}

// Rows dealt evenly to register tiles: 13 rows are 7 + 6, not 12 + 1.
struct Deal {
  int64_t tiles;
  int rows, larger;  // `larger` of the tiles have a row more

  Deal(int64_t all, int most)
      : tiles(ceil_div(all, most)),
        rows(static_cast<int>(all / tiles)),
        larger(static_cast<int>(all % tiles)) {}
};

// Steps by which the first tile of a call, whose panel nobody has fetched, runs ahead of itself.
constexpr int64_t kStepsAhead = 64;

static void conv_block(const ConvBlock& b) {
  int64_t reduction = 0;
  for (const Segment* s = b.segments; s != b.segments + b.block_ends[b.blocks - 1]; ++s)
    reduction += s->length;

  const auto* x = static_cast<const float*>(b.x);
  const int64_t second = kPanel * reduction;
  alignas(64) float local[kTileRows * kTileColumns];
  // The tile's columns within the packed panel.
  auto weights = [&](int64_t column) RVC_LAMBDA {
    return static_cast<const float*>(b.w) + column / kPanel * second + column % kPanel;
  };
  for (int64_t column = 0; column < b.columns;) {
    const int shape = widest_shape(b.columns - column), width = kShapeColumns[shape];
    const int columns = static_cast<int>(b.columns - column < width ? b.columns - column : width);
    const int step = panel_width(b.columns - column / kPanel * kPanel);
    const Deal deal(b.rows, kShapeRows[shape]);
    const TileFunction function[] = {tile_function(shape, deal.rows), tile_function(shape, deal.rows + 1)};
    // Each tile fetches its share of the weights after these; the first to use them would otherwise wait for
    // the cache beyond L2 (17 % on 768 -> 3072 with 96 rows).
    const int64_t panels = width > step ? 2 : 1, sharers = ceil_div(deal.tiles * b.lines, panels);
    const float* w = weights(column);
    const Segment* begin = b.segments;
    for (int block = 0; block < b.blocks; ++block) {
      const Segment* end = b.segments + b.block_ends[block];
      const bool last = block == b.blocks - 1;
      int64_t length = 0;
      for (const Segment* s = begin; s != end; ++s) length += s->length;
      const float* next = last ? weights(column + width) : w + step * length;
      const int64_t share = step * length / sharers, ahead_step = step * 4 / sharers;
      float* partial = b.partial;
      int64_t i = 0;
      for (int64_t line = 0; line < b.lines; ++line) {
        for (int64_t t = 0, row = 0; t < deal.tiles; ++t, ++i) {
          const int more = t < deal.larger ? 1 : 0, rows = deal.rows + more;
          int64_t at = line * b.y_line + row * b.y_row + column;
          TileOutput out{};
          out.ahead = next + i / sharers * second + i % sharers * share, out.ahead_step = ahead_step;
          if (block == 0 && column == 0 && i == 0 && deal.tiles * b.lines > 1)
            out.ahead = w + kStepsAhead * step, out.ahead_step = step * 4;
          const bool bare = !b.bias && b.scale == 1.0f && (!b.residual || b.residual == b.y);
          if (b.blocks == 1 && columns == width && b.activation == kNone && bare) {
            out.sum = b.y + at, out.pitch = b.y_row, out.accumulate = b.residual != nullptr;
          } else if (b.blocks == 1 && columns == width && b.activation == kNone) {
            out.bias = b.bias ? b.bias + column : nullptr;
            out.residual = b.residual ? b.residual + at : nullptr;
            out.y = b.y + at, out.y_row = b.y_row, out.scale = b.scale;
          } else {
            out.sum = b.blocks > 1 ? partial : local;
            out.pitch = width;
            out.accumulate = block > 0;
          }
          function[more](begin, end, x + line * b.x_line + row * b.x_row, b.x_row, w, step, second, out);
          if (out.sum && out.sum != b.y + at && last) epilogue(b, out.sum, width, at, column, rows, columns);
          partial += b.blocks > 1 ? rows * width : 0;
          row += rows;
        }
      }
      w += step * length;
      begin = end;
    }
    column += width;
  }
}

static void copy_input(const InputCopy& s) {
  V slope = splat(s.slope);
  for (int64_t l = 0; l < s.lines; ++l) {
    for (int64_t r = 0; r < s.rows; ++r) {
      int64_t h = s.line + l, w = s.row + r;
      float* to = static_cast<float*>(s.to) + (l * s.rows + r) * s.to_pitch;
      const float* x = s.x + (h * s.width + w) * s.pitch;
      bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
      int64_t c = 0;
      for (; c + RVC_LANES <= s.channels; c += RVC_LANES) {
        V v = inside ? load(x + c) : V{};
        store(to + c, max(v, v * slope));
      }
      for (; c < s.channels; ++c) {
        float v = inside ? x[c] : 0.0f;
        to[c] = v > v * s.slope ? v : v * s.slope;
      }
    }
  }
}
