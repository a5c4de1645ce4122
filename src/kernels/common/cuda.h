// The words that kernel bodies for both languages (.inc) are written in, for CUDA; see metal.h.

#define DEVICE
#define SHARED __shared__
#define IN_SHARED
#define THREAD
#define FUNC __device__ __forceinline__
#define UNROLL _Pragma("unroll")

#define BARRIER() __syncthreads()
#define BARRIER_DEVICE() __syncthreads()
#define SIMD_BARRIER() __syncwarp()

using uint = unsigned int;
using ushort = unsigned short;

FUNC float as_float(int bits) { return __int_as_float(bits); }
FUNC uint float_bits(float x) { return __float_as_uint(x); }

// N neighbours in memory, read or written at once; their address is a multiple of their size.
template <typename T, int N>
struct alignas(N * sizeof(T)) Packed {
  T v[N];
};
FUNC float2 unpack_half(uint bits) {
  const ushort low = bits & 0xffffu, high = bits >> 16;
  return {float(reinterpret_cast<const __half&>(low)), float(reinterpret_cast<const __half&>(high))};
}

FUNC float exp_(float x) { return expf(x); }
FUNC float log_(float x) { return logf(x); }
FUNC float tanh_(float x) { return tanhf(x); }
FUNC float sin_(float x) { return sinf(x); }
FUNC float cos_(float x) { return cosf(x); }
FUNC float sqrt_(float x) { return sqrtf(x); }
FUNC float fma_(float a, float b, float c) { return fmaf(a, b, c); }
FUNC float min_(float a, float b) { return fminf(a, b); }
FUNC float max_(float a, float b) { return fmaxf(a, b); }

FUNC float simd_shuffle_(float x, uint lane) { return __shfl_sync(0xffffffffu, x, lane); }
FUNC float simd_shuffle_xor_(float x, uint mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
FUNC float simd_sum_(float x) {
  UNROLL for (uint mask = 16; mask > 0; mask /= 2) x += simd_shuffle_xor_(x, mask);
  return x;
}
FUNC float simd_max_(float x) {
  UNROLL for (uint mask = 16; mask > 0; mask /= 2) x = fmaxf(x, simd_shuffle_xor_(x, mask));
  return x;
}
