// The direct convolution's micro-kernel. Included only through isa/kernels.inc.
//
// A tile of rows x columns of the output stays in registers while the whole reduction (a block of it, if
// long) passes by: two to four vectors of weights are loaded per step and meet one broadcast input per row.
// 12 x 32 on AVX-512: 24 accumulators, 1 load per 1.7 multiply-adds.

#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileColumns = kPanel;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kTileRows = 6, kTileColumns = kNarrowPanel;
#else
constexpr int kTileRows = 3, kTileColumns = kNarrowPanel;
#endif

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

// `step` floats of w per reduction step.
template <int R, int N>
static void tile(const Segment* begin, const Segment* end, const float* x, int64_t x_row, const float* w,
                 int step, const TileOutput& out) {
  V a[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) a[r][n] = V{};
  }
  if (out.residual) {  // on its way while the sum is taken
    for (int r = 0; r < R; ++r) {
      __builtin_prefetch(out.residual + r * out.y_row);
      if (N * RVC_LANES > 16) __builtin_prefetch(out.residual + r * out.y_row + 16);
    }
  }
  const char* ahead = reinterpret_cast<const char*>(out.ahead);
  for (const Segment* s = begin; s != end; ++s) {
    const float* p = x + s->offset;
#pragma GCC unroll 2
    for (int64_t c = s->length; c > 0; --c, ++p, w += step) {
      __builtin_prefetch(ahead, 0, 2);
      if (N * RVC_LANES > 16 && out.ahead_step > 64) __builtin_prefetch(ahead + 64, 0, 2);
      ahead += out.ahead_step;
      V b[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) b[n] = load(w + n * RVC_LANES);
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
                              const TileOutput&);

template <int R>
struct Tiles : Tiles<R - 1> {
  static TileFunction get(int rows, int vectors) {
    if (rows != R) return Tiles<R - 1>::get(rows, vectors);
    return vectors * RVC_LANES == kPanel && kTileColumns == kPanel ? tile<R, kTileColumns / RVC_LANES>
                                                                   : tile<R, kNarrowPanel / RVC_LANES>;
  }
};

template <>
struct Tiles<0> {
  static TileFunction get(int, int) { return nullptr; }
};

// Steps by which the first tile of a call, whose panel nobody has fetched, runs ahead of itself.
constexpr int64_t kStepsAhead = 64;

static void conv_block(const ConvBlock& b) {
  // Rows are dealt evenly to the tiles of a line: 13 rows are 7 + 6, not 12 + 1.
  int64_t tiles = ceil_div(b.rows, kTileRows);
  int64_t small = b.rows / tiles, larger = b.rows % tiles;
  TileFunction function[2][2];  // [one row more][narrow]
  for (int more = 0; more < 2; ++more) {
    int rows = static_cast<int>(small) + (more && larger ? 1 : 0);
    function[more][0] = Tiles<kTileRows>::get(rows, kTileColumns / RVC_LANES);
    function[more][1] = Tiles<kTileRows>::get(rows, kNarrowPanel / RVC_LANES);
  }
  int64_t reduction = 0;
  for (const Segment* s = b.segments; s != b.segments + b.block_ends[b.blocks - 1]; ++s)
    reduction += s->length;

  const auto* x = static_cast<const float*>(b.x);
  alignas(64) float local[kTileRows * kTileColumns];
  const Segment* begin = b.segments;
  int64_t done = 0;
  for (int block = 0; block < b.blocks; ++block) {
    const Segment* end = b.segments + b.block_ends[block];
    float* partial = b.partial;
    for (int64_t column = 0; column < b.columns;) {
      // A sub-panel of kTileColumns within the packed panel.
      int64_t panel = column / kPanel * kPanel;
      int step = panel_width(b.columns - panel);
      int width = step == kPanel && kTileColumns == kPanel ? kPanel : kNarrowPanel;
      int columns = static_cast<int>(b.columns - column < width ? b.columns - column : width);
      const float* w = static_cast<const float*>(b.w) + panel * reduction + done * step + (column - panel);
      int64_t length = 0;
      for (const Segment* s = begin; s != end; ++s) length += s->length;
      // Each tile fetches its share of the panel after this one; the first to use a panel would otherwise
      // wait for the cache beyond L2 (17 % on 768 -> 3072 with 96 rows).
      const int64_t share = step * length / (tiles * b.lines), ahead_step = step * 4 / (tiles * b.lines);
      const float* ahead = w + step * length;
      for (int64_t line = 0; line < b.lines; ++line) {
        for (int64_t t = 0, row = 0; t < tiles; ++t) {
          int more = t < larger ? 1 : 0, rows = static_cast<int>(small) + more;
          int64_t at = line * b.y_line + row * b.y_row + column;
          TileOutput out{};
          out.ahead = ahead, out.ahead_step = ahead_step;
          ahead += share;
          if (block == 0 && column == 0 && line == 0 && t == 0 && tiles * b.lines > 1)
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
          function[more][width == kNarrowPanel](begin, end, x + line * b.x_line + row * b.x_row, b.x_row, w,
                                                step, out);
          if (out.sum && out.sum != b.y + at && block == b.blocks - 1)
            epilogue(b, out.sum, width, at, column, rows, columns);
          partial += b.blocks > 1 ? rows * width : 0;
          row += rows;
        }
      }
      column += width;
    }
    for (; begin != end; ++begin) done += begin->length;
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
