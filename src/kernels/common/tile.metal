// A simdgroup's 32 x 32 sums of products in float32, on simdgroup matrices of 8 x 8.
//
// A lane holds 8 neighbouring columns of every eighth row, the same on both languages. So that they are
// neighbours, column j of matrix i stands for column 4 * j + i of the tile. 16 matrices of sums and 8 of
// factors are 48 registers a lane. Numbers are widened to float32 as they are loaded: half precision
// multiplies no faster on these matrices.

#include <metal_simdgroup_matrix>

template <typename T>
struct Tile {
  using Matrix = metal::simdgroup_matrix<float, 8, 8>;

  // Neighbouring rows of the second factor that lie interleaved in memory.
  static constant constexpr uint INTERLEAVED = 1;

  Matrix sums[4][4];
  uint row, column;

  Tile(uint lane) : row(lane / 16 * 4 + lane / 2 % 4), column((lane / 8 % 2 * 2 + lane % 2) * 8) {
    UNROLL for (uint i = 0; i < 4; ++i) { UNROLL for (uint j = 0; j < 4; ++j) sums[i][j] = Matrix(0.0f); }
  }

  // Adds a (32 x depth, its rows a_step apart) times b (depth x 32, b_step), depth a multiple of 16.
  template <typename A, typename B>
  void add(A a, uint a_step, B b, uint b_step, uint depth) {
    a += row * a_step + column / 4;
    b += row * b_step + column;
    for (uint d = 0; d < depth; d += 8) {
      Matrix x[4], w[4];
      UNROLL for (uint i = 0; i < 4; ++i) {
        x[i].thread_elements()[0] = float(a[8 * i * a_step]);
        x[i].thread_elements()[1] = float(a[8 * i * a_step + 1]);
        w[i].thread_elements()[0] = float(b[i]);
        w[i].thread_elements()[1] = float(b[i + 4]);
      }
      UNROLL for (uint i = 0; i < 4; ++i) {
        UNROLL for (uint j = 0; j < 4; ++j) {
          metal::simdgroup_multiply_accumulate(sums[i][j], x[i], w[j], sums[i][j]);
        }
      }
      a += 8;
      b += 8 * b_step;
    }
  }

  // The sum in row `row + 8 * r` and column `column + c`.
  float sum(uint r, uint c) { return sums[r][c % 4].thread_elements()[c / 4]; }
};
