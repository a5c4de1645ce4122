// A simdgroup's 32 x 32 sums of products in float32, on simdgroup matrices of 8 x 8.
//
// A lane holds 8 neighbouring columns of every eighth row, the same on both languages. So that they are
// neighbours, column j of matrix i stands for column 4 * j + i of the tile, and the second factor is read 16
// or 8 bytes at a time. 16 matrices of sums and 8 of factors are 48 registers a lane. Numbers are widened to
// float32 as they are loaded: these matrices multiply half precision no faster.

#include <metal_simdgroup_matrix>

template <typename T>
struct Tile {
  // Neighbouring rows of the second factor that lie interleaved in memory.
  static constant constexpr uint INTERLEAVED = 1;

  float sums[4][4][2];
  uint row, column;
};

template <typename T>
FUNC void clear(THREAD Tile<T>& tile, uint lane) {
  tile.row = lane / 16 * 4 + lane / 2 % 4;
  tile.column = (lane / 8 % 2 * 2 + lane % 2) * 8;
  UNROLL for (uint i = 0; i < 32; ++i) tile.sums[i / 8][i / 2 % 4][i % 2] = 0.0f;
}

// Adds a (32 x depth, its rows a_step apart) times b (depth x 32, b_step), depth a multiple of 16.
template <typename T>
FUNC void add(THREAD Tile<T>& tile, const IN_SHARED T* a, uint a_step, const DEVICE T* b, uint b_step,
              uint depth) {
  using Matrix = metal::simdgroup_matrix<float, 8, 8>;
  Matrix sums[4][4];
  UNROLL for (uint i = 0; i < 32; ++i) {
    sums[i / 8][i / 2 % 4].thread_elements()[i % 2] = tile.sums[i / 8][i / 2 % 4][i % 2];
  }
  a += tile.row * a_step + tile.column / 4;
  b += tile.row * b_step + tile.column;
  for (uint d = 0; d < depth; d += 8) {
    Matrix x[4], w[4];
    const Packed<T, 4> low = *reinterpret_cast<const DEVICE Packed<T, 4>*>(b);
    const Packed<T, 4> high = *reinterpret_cast<const DEVICE Packed<T, 4>*>(b + 4);
    UNROLL for (uint i = 0; i < 4; ++i) {
      const Packed<T, 2> pair = *reinterpret_cast<const IN_SHARED Packed<T, 2>*>(a + 8 * i * a_step);
      UNROLL for (uint e = 0; e < 2; ++e) {
        x[i].thread_elements()[e] = float(pair.v[e]);
        w[i].thread_elements()[e] = float(e ? high.v[i] : low.v[i]);
      }
    }
    UNROLL for (uint i = 0; i < 4; ++i) {
      UNROLL for (uint j = 0; j < 4; ++j) {
        metal::simdgroup_multiply_accumulate(sums[i][j], x[i], w[j], sums[i][j]);
      }
    }
    a += 8;
    b += 8 * b_step;
  }
  UNROLL for (uint i = 0; i < 32; ++i) {
    tile.sums[i / 8][i / 2 % 4][i % 2] = sums[i / 8][i / 2 % 4].thread_elements()[i % 2];
  }
}

// The sum in row `row + 8 * r` and column `column + c`.
template <typename T>
FUNC float sum(const THREAD Tile<T>& tile, uint r, uint c) {
  return tile.sums[r][c % 4][c / 4];
}
