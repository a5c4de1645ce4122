// The direct convolution's micro-kernel in bfloat16x2, by AMX. Included only through isa/bf16.inc.
//
// A number is h + l: h is the number rounded to bfloat16, l what that leaves of it, rounded to bfloat16. The
// product of two numbers is h h + h l + l h. What is left out, l l and what l lost, is at most 3 x 2^-16 of
// it, on average 2^-17.8: sums have 107 dB. Three products of bfloat16 by AMX take less time than one of
// float32.
//
// Numbers from 2^128 - 2^119 on are infinite in bfloat16. An infinite number makes NaN of the sums it is in.

constexpr int kPieces = 2, kProducts = 3;
constexpr int kTileNumbers = kNarrowPanel * kPairedDepth;

// To, or onto, sum[16 R][32], R x N tiles. Rows of x are 32 numbers, of the other piece `plane` numbers on,
// of the next 32 channels two planes on; w is [reduction / 32][N][piece][16 pairs][16 columns][2].
template <int R, int N>
static void pieces_tile(const Segment* begin, const Segment* end, const uint16_t* x, int64_t x_row,
                        int64_t plane, const uint16_t* w, float* sum, bool accumulate) {
  asm volatile("" ::: "memory");  // the intrinsics do not tell that they read memory
  const int64_t stride = x_row * 2;
  if (accumulate) {
    _tile_loadd(0, sum, 128);
    if constexpr (N > 1) _tile_loadd(1, sum + 16, 128);
    if constexpr (R > 1) _tile_loadd(2, sum + 512, 128);
    if constexpr (R > 1 && N > 1) _tile_loadd(3, sum + 528, 128);
  } else {
    _tile_zero(0);
    if constexpr (N > 1) _tile_zero(1);
    if constexpr (R > 1) _tile_zero(2);
    if constexpr (R > 1 && N > 1) _tile_zero(3);
  }
  for (const Segment* s = begin; s != end; ++s) {
    const uint16_t* p = x + s->offset * kPieces;
    for (int64_t k = s->length; k > 0;
         k -= kPairedDepth, p += kPieces * plane, w += N * kPieces * kTileNumbers) {
      const auto rows = [&](int piece) RVC_LAMBDA {
        _tile_loadd(4, p + piece * plane, stride);
        if constexpr (R > 1) _tile_loadd(5, p + piece * plane + 16 * x_row, stride);
      };
      const auto columns = [&](int piece) RVC_LAMBDA {
        _tile_loadd(6, w + piece * kTileNumbers, 64);
        if constexpr (N > 1) _tile_loadd(7, w + (kPieces + piece) * kTileNumbers, 64);
      };
      const auto multiply = []() RVC_LAMBDA {
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (N > 1) _tile_dpbf16ps(1, 4, 7);
        if constexpr (R > 1) _tile_dpbf16ps(2, 5, 6);
        if constexpr (R > 1 && N > 1) _tile_dpbf16ps(3, 5, 7);
      };
      rows(1), columns(0), multiply();  // l h
      rows(0), multiply();              // h h
      columns(1), multiply();           // h l
    }
  }
  _tile_stored(0, sum, 128);
  if constexpr (N > 1) _tile_stored(1, sum + 16, 128);
  if constexpr (R > 1) _tile_stored(2, sum + 512, 128);
  if constexpr (R > 1 && N > 1) _tile_stored(3, sum + 528, 128);
  asm volatile("" ::: "memory");
}

using PiecesTile = void (*)(const Segment*, const Segment*, const uint16_t*, int64_t, int64_t,
                            const uint16_t*, float*, bool);

static PiecesTile pieces_tile_function(int rows, int columns) {
  if (rows > 16) return columns > kNarrowPanel ? pieces_tile<2, 2> : pieces_tile<2, 1>;
  return columns > kNarrowPanel ? pieces_tile<1, 2> : pieces_tile<1, 1>;
}

// Offsets and distances of a ConvBlock are in values, which take two numbers.
static void pieces_block(const ConvBlock& b) {
  Tiles tiles;
  const auto *x = static_cast<const uint16_t*>(b.x), *w = static_cast<const uint16_t*>(b.w);
  const int64_t x_row = b.x_row * kPieces, plane = b.x_plane * kPieces;
  alignas(64) float local[kTileRows * kPanel];
  for (int64_t column = 0; column < b.columns; column += kPanel) {
    const int columns = static_cast<int>(b.columns - column < kPanel ? b.columns - column : kPanel);
    const Segment* begin = b.segments;
    for (int block = 0; block < b.blocks; ++block) {
      const Segment* end = b.segments + b.block_ends[block];
      float* sum = b.blocks > 1 ? b.partial : local;
      for (int64_t line = 0; line < b.lines; ++line) {
        for (int64_t row = 0; row < b.rows; row += kTileRows) {
          const int rows = static_cast<int>(b.rows - row < kTileRows ? b.rows - row : kTileRows);
          pieces_tile_function(rows, columns)(begin, end, x + (line * b.x_line + row * b.x_row) * kPieces,
                                              x_row, plane, w, sum, block > 0);
          if (block == b.blocks - 1)
            epilogue(b, sum, kPanel, line * b.y_line + row * b.y_row + column, column, rows, columns);
          if (b.blocks > 1) sum += round_up(rows, 16) * kPanel;
        }
      }
      for (; begin != end; ++begin) w += begin->length * panel_width(columns) * kPieces;
    }
  }
}

// To [32 channels][piece][row][32], so that the rows of a tile lie side by side.
static void pieces_input(const InputCopy& s) {
  const V slope = splat(s.slope);
  const auto widen = [](__m256i x) RVC_LAMBDA {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  };
  for (int64_t l = 0; l < s.lines; ++l) {
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t h = s.line + l, w = s.row + r;
      const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
      uint16_t* to = static_cast<uint16_t*>(s.to) + (l * s.rows + r) * s.to_pitch * kPieces;
      const float* x = s.x + (h * s.width + w) * s.pitch;
      for (int64_t c = 0; c < s.channels; c += kPairedDepth) {
        const int64_t left = inside ? s.channels - c : 0;
        V low = left > 0 ? load_first(x + c, static_cast<int>(left < 16 ? left : 16)) : V{};
        V high = left > 16 ? load_first(x + c + 16, static_cast<int>(left < 32 ? left - 16 : 16)) : V{};
        low = max(low, low * slope), high = max(high, high * slope);
        for (int piece = 0; piece < kPieces; ++piece, to += s.to_plane * kPieces) {
          const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
          _mm512_storeu_si512(to, both);
          low -= widen(_mm512_castsi512_si256(both)), high -= widen(_mm512_extracti64x4_epi64(both, 1));
        }
      }
    }
  }
}
