// The words that kernel bodies for both languages (.inc) are written in, for Metal.

// DEVICE, IN_SHARED and THREAD say where a pointer or reference points, SHARED declares shared memory in a
// body.
#define DEVICE device
#define SHARED threadgroup
#define IN_SHARED threadgroup
#define THREAD thread
#define FUNC inline
#define UNROLL _Pragma("clang loop unroll(full)")

// Every thread of the group arrives, and sees what the others wrote to shared memory, or to device memory
// too.
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#define BARRIER_DEVICE() threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device)

// The same for the 32 threads of a simdgroup and shared memory.
#define SIMD_BARRIER() simdgroup_barrier(mem_flags::mem_threadgroup)

// Options that are numbers arrive as the bits of a float.
FUNC float as_float(int bits) { return as_type<float>(bits); }
FUNC uint float_bits(float x) { return as_type<uint>(x); }

// N neighbours in memory, read or written at once; their address is a multiple of their size.
template <typename T, int N>
struct alignas(N * sizeof(T)) Packed {
  T v[N];
};
// Two float16 in 32 bits, the lower half first.
FUNC float2 unpack_half(uint bits) {
  const half2 both = as_type<half2>(bits);
  return float2(float(both.x), float(both.y));
}

// Exact functions: Metal's default ones lose digits when a kernel is compiled with fast math.
FUNC float exp_(float x) { return metal::precise::exp(x); }
FUNC float log_(float x) { return metal::precise::log(x); }
FUNC float tanh_(float x) { return metal::precise::tanh(x); }
FUNC float sin_(float x) { return metal::precise::sin(x); }
FUNC float cos_(float x) { return metal::precise::cos(x); }
FUNC float sqrt_(float x) { return metal::precise::sqrt(x); }
FUNC float fma_(float a, float b, float c) { return metal::fma(a, b, c); }
FUNC float min_(float a, float b) { return metal::min(a, b); }
FUNC float max_(float a, float b) { return metal::max(a, b); }

// Over the 32 threads of a simdgroup; every thread of it has to take part.
FUNC float simd_sum_(float x) { return metal::simd_sum(x); }
FUNC float simd_max_(float x) { return metal::simd_max(x); }
FUNC float simd_shuffle_(float x, uint lane) { return metal::simd_shuffle(x, ushort(lane)); }
FUNC float simd_shuffle_xor_(float x, uint mask) { return metal::simd_shuffle_xor(x, ushort(mask)); }
