// A simdgroup's 32 x 32 sums of products in float32: on tensor cores for 16-bit numbers, in registers for
// float32.
//
// A lane holds 8 neighbouring columns of every eighth row, the same on both languages, and reads the second
// factor in pieces of 16 bytes. The tensor cores' instruction is written out because MLX's packages do not
// bring mma.h.

template <typename T>
struct IsHalf {
  static constexpr bool value = false;
};
template <>
struct IsHalf<__half> {
  static constexpr bool value = true;
};

// Two 16-bit numbers as the tensor cores take them.
template <typename T>
union Pair {
  uint bits;
  Packed<T, 2> numbers;

  FUNC Pair(uint from) : bits(from) {}
  FUNC Pair(const T* from) : numbers(*reinterpret_cast<const Packed<T, 2>*>(from)) {}
};

// sums (16 x 8) += a (16 x 16) times b (16 x 8), spread over the lanes as PTX defines it for mma.m16n8k16.
template <typename T>
FUNC void tensor_core(float (&sums)[4], const uint (&a)[4], uint b0, uint b1) {
#if __CUDA_ARCH__ >= 800
#define RVC_TENSOR_CORE(type)                                                \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])           \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
  if constexpr (IsHalf<T>::value) {
    RVC_TENSOR_CORE("f16");
  } else {
    RVC_TENSOR_CORE("bf16");
  }
#else
  // What the instruction does, for sm_75, which has none of this size. A lane has columns lane % 4 * 2 and
  // the next of two rows.
  using Wide = unsigned long long;
  const uint lane = threadIdx.x % 32;
  const Wide upper = Wide(a[2]) << 32 | a[0], lower = Wide(a[3]) << 32 | a[1], right = Wide(b1) << 32 | b0;
  for (uint from = 0; from < 4; ++from) {
    const Wide x[2] = {__shfl_sync(0xffffffffu, upper, lane / 4 * 4 + from),
                       __shfl_sync(0xffffffffu, lower, lane / 4 * 4 + from)};
    for (uint c = 0; c < 2; ++c) {
      const Wide w = __shfl_sync(0xffffffffu, right, (lane % 4 * 2 + c) * 4 + from);
      for (uint k = 0; k < 2; ++k) {
        const Pair<T> factor(uint(w >> 32 * k));
        for (uint r = 0; r < 2; ++r) {
          const Pair<T> pair(uint(x[r] >> 32 * k));
          sums[2 * r + c] += float(pair.numbers.v[0]) * float(factor.numbers.v[0]);
          sums[2 * r + c] += float(pair.numbers.v[1]) * float(factor.numbers.v[1]);
        }
      }
    }
  }
#endif
}

template <typename T>
struct Tile {
  // Neighbouring rows of the second factor that lie interleaved in memory.
  static constexpr uint INTERLEAVED = 2;

  float sums[2][4][4];
  uint row, column;
};
template <>
struct Tile<float> {
  static constexpr uint INTERLEAVED = 1;

  float sums[4][8];
  uint row, column;
};

template <typename T>
FUNC void clear(Tile<T>& tile, uint lane) {
  tile = {};
  tile.row = lane / 4;
  tile.column = lane % 4 * 8;
}

// Adds a (32 x depth, its rows a_step apart) times b (depth x 32, b_step), depth a multiple of 16.
template <typename T>
FUNC void add(Tile<T>& tile, const T* a, uint a_step, const T* b, uint b_step, uint depth) {
  a += tile.row * a_step + tile.column / 4;
  b += tile.column / 4 * b_step + 8 * tile.row;
  for (uint d = 0; d < depth; d += 16) {
    // The lane has columns 4 * row to 4 * row + 3 of b, one for each matrix.
    const Packed<T, 8> low = *reinterpret_cast<const Packed<T, 8>*>(b);
    const Packed<T, 8> high = *reinterpret_cast<const Packed<T, 8>*>(b + 8 * b_step);
    UNROLL for (uint i = 0; i < 2; ++i) {
      const T *upper = a + 16 * i * a_step, *lower = upper + 8 * a_step;
      const uint x[4] = {Pair<T>(upper).bits, Pair<T>(lower).bits, Pair<T>(upper + 8).bits,
                         Pair<T>(lower + 8).bits};
      UNROLL for (uint j = 0; j < 4; ++j) {
        tensor_core<T>(tile.sums[i][j], x, Pair<T>(low.v + 2 * j).bits, Pair<T>(high.v + 2 * j).bits);
      }
    }
    a += 16;
    b += 16 * b_step;
  }
}
FUNC void add(Tile<float>& tile, const float* a, uint a_step, const float* b, uint b_step, uint depth) {
  using Four = Packed<float, 4>;
  a += tile.row * a_step;
  b += tile.column;
  for (uint d = 0; d < depth; d += 4) {
    Four x[4];
    UNROLL for (uint i = 0; i < 4; ++i) x[i] = *reinterpret_cast<const Four*>(a + 8 * i * a_step + d);
    UNROLL for (uint k = 0; k < 4; ++k) {
      const Four w[2] = {*reinterpret_cast<const Four*>(b), *reinterpret_cast<const Four*>(b + 4)};
      UNROLL for (uint i = 0; i < 4; ++i) {
        UNROLL for (uint c = 0; c < 8; ++c) {
          tile.sums[i][c] = fmaf(x[i].v[k], w[c / 4].v[c % 4], tile.sums[i][c]);
        }
      }
      b += b_step;
    }
  }
}

// The sum in row `row + 8 * r` and column `column + c`.
template <typename T>
FUNC float sum(const Tile<T>& tile, uint r, uint c) {
  return tile.sums[r / 2][c % 4][r % 2 * 2 + c / 4];
}
FUNC float sum(const Tile<float>& tile, uint r, uint c) { return tile.sums[r][c]; }
