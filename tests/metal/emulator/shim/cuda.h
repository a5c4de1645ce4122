// The part of CUDA C++ that kernels use, as C++20 for the emulator.
#pragma once
#include "vectors.h"

typedef _Float16 __half;
typedef __half half;
typedef __bf16 __nv_bfloat16;
typedef __nv_bfloat16 nv_bfloat16;
typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;

struct dim3 {
  uint32_t x, y, z;
};

// CUDA's vectors have fields and no arithmetic: as clang's vectors they are loaded whole, so that alignment
// is checked.
#define EMU_VECTOR(T, name)                                          \
  typedef emu::vec<T, 2> name##2;                                    \
  struct name##3 { T x, y, z; };                                     \
  typedef emu::vec<T, 4> name##4;                                    \
  inline name##2 make_##name##2(T x, T y) { return name##2 {x, y}; } \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return name##4 {x, y, z, w}; }
EMU_VECTOR(float, float)
EMU_VECTOR(int, int)
EMU_VECTOR(unsigned int, uint)
EMU_VECTOR(short, short)
EMU_VECTOR(unsigned short, ushort)
EMU_VECTOR(signed char, char)
EMU_VECTOR(unsigned char, uchar)

// Where a thread is.
inline uint3 emu_uint3(EmuVec3 v) { return {v.x, v.y, v.z}; }
inline dim3 emu_dim3(EmuVec3 v) { return {v.x, v.y, v.z}; }
#define threadIdx (emu_uint3(emu_thread_in_group()))
#define blockIdx (emu_uint3(emu_group_in_grid()))
#define blockDim (emu_dim3(emu_threads_per_full_group()))
#define gridDim (emu_dim3(emu_groups_per_grid()))
#define warpSize 32

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// What MLX's header offers.
template <class T, int N>
struct EmuArray {
  T values[N];
  T& operator[](size_t i) { return values[i]; }
  const T& operator[](size_t i) const { return values[i]; }
  const T* data() const { return values; }
};
using Shape = EmuArray<int32_t, 10>;
using Strides = EmuArray<int64_t, 10>;

// An argument of the kernel before it has its type.
struct emu_pointer {
  void* p;
  template <class T>
  operator T*() const {
    return static_cast<T*>(p);
  }
};

namespace cuda::std {
template <class T>
struct numeric_limits {
  static constexpr T infinity() { return static_cast<T>(__builtin_inff()); }
  static constexpr T quiet_NaN() { return static_cast<T>(__builtin_nanf("")); }
  static constexpr T max() {
    if constexpr (emu::is_same<T, float>) {
      return __FLT_MAX__;
    } else if constexpr (emu::is_same<T, int>) {
      return __INT_MAX__;
    } else {
      static_assert(emu::is_same<T, unsigned>, "numeric_limits of float, int and unsigned");
      return ~0u;
    }
  }
  static constexpr T lowest() {
    return emu::is_same<T, unsigned> ? T(0) : emu::is_same<T, int> ? T(-__INT_MAX__ - 1) : T(-__FLT_MAX__);
  }
};
template <class A, class B>
inline constexpr bool is_same_v = emu::is_same<A, B>;
template <bool B, class T, class F>
using conditional_t = typename emu::choose<B, T, F>::type;
}  // namespace cuda::std

// ---- barriers and warps

inline void __syncthreads() { emu_group_barrier(EMU_DEVICE_MEMORY | EMU_GROUP_MEMORY, "__syncthreads"); }
inline void emu_full(unsigned mask) {
  if (mask != ~0u) {
    emu_refuse("a warp operation of some lanes only: the mask must be full");
  }
}
inline void __syncwarp(unsigned mask = ~0u) {
  emu_full(mask);
  emu_simd_barrier(EMU_DEVICE_MEMORY | EMU_GROUP_MEMORY, "__syncwarp");
}
inline void __threadfence_block() {}
inline void __threadfence() {}

// A source outside the segment leaves the lane its own value.
template <class T>
inline T emu_warp(T v, int source, bool own, const char* what) {
  uint32_t from = own ? emu::lane() : static_cast<uint32_t>(source);
  return emu::shuffle(v, from, what);
}
template <class T>
inline T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  emu_full(mask);
  int base = emu::lane() & ~(width - 1);
  return emu_warp(v, base + (source & (width - 1)), false, "__shfl_sync");
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
  emu_full(mask);
  int lane = emu::lane(), source = lane ^ bits;
  return emu_warp(v, source, source / width > lane / width, "__shfl_xor_sync");
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned n, int width = 32) {
  emu_full(mask);
  int lane = emu::lane(), source = lane + static_cast<int>(n);
  return emu_warp(v, source, source / width != lane / width, "__shfl_down_sync");
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned n, int width = 32) {
  emu_full(mask);
  int lane = emu::lane(), source = lane - static_cast<int>(n);
  return emu_warp(v, source, source < lane / width * width, "__shfl_up_sync");
}
inline unsigned __ballot_sync(unsigned mask, int v) {
  emu_full(mask);
  return emu::reduce<emu::Or>(v ? 1u << emu::lane() : 0u, "__ballot_sync");
}
inline int __any_sync(unsigned mask, int v) { return __ballot_sync(mask, v) != 0; }
inline int __all_sync(unsigned mask, int v) { return __ballot_sync(mask, v) == ~0u; }
inline unsigned __activemask() { return ~0u; }
inline unsigned __reduce_add_sync(unsigned mask, unsigned v) {
  emu_full(mask);
  return emu::reduce<emu::Add>(v, "__reduce_add_sync");
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned v) {
  emu_full(mask);
  return emu::reduce<emu::Max>(v, "__reduce_max_sync");
}

namespace cooperative_groups {
struct thread_block {
  void sync() const { __syncthreads(); }
  unsigned thread_rank() const { return emu_thread_index(); }
  dim3 group_index() const { return emu_dim3(emu_group_in_grid()); }
  dim3 thread_index() const { return emu_dim3(emu_thread_in_group()); }
  unsigned size() const {
    EmuVec3 n = emu_threads_per_full_group();
    return n.x * n.y * n.z;
  }
};
inline thread_block this_thread_block() { return {}; }
template <int Size>
struct thread_block_tile {
  static_assert(Size == 32, "tiles are warps");
  void sync() const { __syncwarp(); }
  unsigned thread_rank() const { return emu::lane(); }
  unsigned meta_group_rank() const { return emu_thread_index() / 32; }
  static constexpr unsigned size() { return 32; }
#define EMU_SHUFFLE(name, Lanes)           \
  template <class T>                       \
  T name(T v, Lanes lanes) const {         \
    return __##name##_sync(~0u, v, lanes); \
  }
  EMU_SHUFFLE(shfl, int)
  EMU_SHUFFLE(shfl_xor, int)
  EMU_SHUFFLE(shfl_down, unsigned)
  EMU_SHUFFLE(shfl_up, unsigned)
};
template <int Size>
inline thread_block_tile<Size> tiled_partition(thread_block) {
  return {};
}
}  // namespace cooperative_groups

// ---- half and bfloat16

inline __half __float2half(float x) { return static_cast<__half>(x); }
inline __half __float2half_rn(float x) { return static_cast<__half>(x); }
inline float __half2float(__half x) { return static_cast<float>(x); }
inline __nv_bfloat16 __float2bfloat16(float x) { return static_cast<__nv_bfloat16>(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return static_cast<__nv_bfloat16>(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return static_cast<float>(x); }
typedef emu::vec<__half, 2> __half2;
typedef __half2 half2;
typedef emu::vec<__nv_bfloat16, 2> __nv_bfloat162;
typedef __nv_bfloat162 nv_bfloat162;
inline __half2 make_half2(__half x, __half y) { return {x, y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __floats2half2_rn(float x, float y) {
  return {static_cast<__half>(x), static_cast<__half>(y)};
}
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __half22float2(__half2 v) { return {static_cast<float>(v.x), static_cast<float>(v.y)}; }
inline float __low2float(__half2 v) { return static_cast<float>(v.x); }
inline float __high2float(__half2 v) { return static_cast<float>(v.y); }
inline __half __low2half(__half2 v) { return v.x; }
inline __half __high2half(__half2 v) { return v.y; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {static_cast<__nv_bfloat16>(x), static_cast<__nv_bfloat16>(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {static_cast<float>(v.x), static_cast<float>(v.y)};
}
inline float __low2float(__nv_bfloat162 v) { return static_cast<float>(v.x); }
inline float __high2float(__nv_bfloat162 v) { return static_cast<float>(v.y); }
#define EMU_HALF_OP(name, op)                                                         \
  inline __half __h##name(__half a, __half b) { return static_cast<__half>(a op b); } \
  inline __half2 __h##name##2(__half2 a, __half2 b) {                                 \
    return {static_cast<__half>(a.x op b.x), static_cast<__half>(a.y op b.y)};        \
  }
EMU_HALF_OP(add, +)
EMU_HALF_OP(sub, -)
EMU_HALF_OP(mul, *)
inline __half __hfma(__half a, __half b, __half c) {
  return static_cast<__half>(
      __builtin_fmaf(static_cast<float>(a), static_cast<float>(b), static_cast<float>(c)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline unsigned short __half_as_ushort(__half x) { return __builtin_bit_cast(unsigned short, x); }
inline __half __ushort_as_half(unsigned short x) { return __builtin_bit_cast(__half, x); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return __builtin_bit_cast(unsigned short, x); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return __builtin_bit_cast(__nv_bfloat16, x); }

// ---- mathematics

#define EMU_MATH(name) \
  inline float name(float x) { return __builtin_##name(x); }
EMU_MATH(expf)
EMU_MATH(exp2f)
EMU_MATH(exp10f)
EMU_MATH(expm1f)
EMU_MATH(logf)
EMU_MATH(log2f)
EMU_MATH(log10f)
EMU_MATH(log1pf)
EMU_MATH(sinf)
EMU_MATH(cosf)
EMU_MATH(tanf)
EMU_MATH(tanhf)
EMU_MATH(sqrtf)
EMU_MATH(floorf)
EMU_MATH(ceilf)
EMU_MATH(rintf)
EMU_MATH(roundf)
EMU_MATH(truncf)
EMU_MATH(fabsf)
EMU_MATH(erff)
inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
inline float powf(float a, float b) { return __builtin_powf(a, b); }
inline float atan2f(float a, float b) { return __builtin_atan2f(a, b); }
inline float copysignf(float a, float b) { return __builtin_copysignf(a, b); }
inline float fmodf(float a, float b) { return __builtin_fmodf(a, b); }
inline float ldexpf(float a, int b) { return __builtin_ldexpf(a, b); }
inline float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
inline float sinpif(float x) {
  return static_cast<float>(__builtin_sin(3.14159265358979323846 * (x - 2 * __builtin_rint(x / 2))));
}
inline float cospif(float x) {
  return static_cast<float>(__builtin_cos(3.14159265358979323846 * (x - 2 * __builtin_rint(x / 2))));
}
inline void sincosf(float x, float* s, float* c) {
  *s = __builtin_sinf(x);
  *c = __builtin_cosf(x);
}
inline void sincospif(float x, float* s, float* c) {
  *s = sinpif(x);
  *c = cospif(x);
}
// The fast ones with the largest errors that their documentation allows.
inline float emu_worst(float y, float ulps) {
  float step = __builtin_fabsf(y) * 0x1p-23f * ulps;
  return y + (__builtin_popcount(__builtin_bit_cast(uint32_t, y)) % 2 ? step : -step);
}
inline float emu_off(float y, float error) {
  return y + (__builtin_popcount(__builtin_bit_cast(uint32_t, y)) % 2 ? error : -error);
}
inline float __expf(float x) {
  return emu_worst(__builtin_expf(x), 2 + __builtin_floorf(__builtin_fabsf(1.173f * x)));
}
inline float __sinf(float x) { return emu_off(__builtin_sinf(x), 0x1p-21f); }
inline float __cosf(float x) { return emu_off(__builtin_cosf(x), 0x1p-21f); }
inline float __logf(float x) {
  return x >= 0.5f && x <= 2.0f ? emu_off(__builtin_logf(x), 0x1p-21f) : emu_worst(__builtin_logf(x), 3);
}
inline float __fdividef(float a, float b) { return emu_worst(a / b, 2); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
template <class T>
inline T min(T a, typename emu::same<T>::type b) {
  return b < a ? b : a;
}
template <class T>
inline T max(T a, typename emu::same<T>::type b) {
  return a < b ? b : a;
}
inline int abs(int x) { return x < 0 ? -x : x; }
inline bool isnan(float x) { return x != x; }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) { return __builtin_bitreverse32(x); }
#define EMU_ROUND(name, f) \
  inline int __float2int_##name(float x) { return static_cast<int>(f(x)); }
EMU_ROUND(rn, __builtin_rintf)
EMU_ROUND(rd, __builtin_floorf)
EMU_ROUND(ru, __builtin_ceilf)
EMU_ROUND(rz, __builtin_truncf)
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define CUDART_PI_F 3.141592654f
#define CUDART_INF_F __builtin_inff()

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}

// ---- atomics

template <class T, class F>
inline T emu_update(T* p, F f) {
  static_assert(sizeof(T) == 4, "atomics are of 32 bits");
  emu_atomic(p, sizeof(T));
  auto* bits = reinterpret_cast<uint32_t*>(p);
  uint32_t old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(
      bits, &old, __builtin_bit_cast(uint32_t, static_cast<T>(f(__builtin_bit_cast(T, old)))), false,
      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return __builtin_bit_cast(T, old);
}
template <class T>
inline T atomicAdd(T* p, typename emu::same<T>::type v) {
  return emu_update(p, [v](T old) { return old + v; });
}
template <class T>
inline T atomicMax(T* p, typename emu::same<T>::type v) {
  return emu_update(p, [v](T old) { return old < v ? v : old; });
}
template <class T>
inline T atomicMin(T* p, typename emu::same<T>::type v) {
  return emu_update(p, [v](T old) { return v < old ? v : old; });
}
template <class T>
inline T atomicExch(T* p, typename emu::same<T>::type v) {
  return emu_update(p, [v](T) { return v; });
}

// ---- warp matrices: which lane holds what is nobody's business, so it is not CUDA's

namespace nvcuda::wmma {
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}
template <class T>
struct stored {
  using type = T;
};
template <>
struct stored<precision::tf32> {
  using type = float;
};

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  using element = typename stored<T>::type;
  static constexpr int rows = emu::is_same<Use, matrix_b> ? K : M;
  static constexpr int columns = emu::is_same<Use, matrix_a> ? K : N;
  static constexpr int num_elements = rows * columns / 32;
  element x[num_elements];
};

template <class F>
inline void fill_fragment(F& f, typename F::element v) {
  for (auto& e : f.x) {
    e = v;
  }
}
template <class F, class T, class G>
inline void emu_elements(F& f, T* p, size_t stride, bool columns, G g) {
  for (int i = 0; i < F::num_elements; ++i) {
    size_t at = emu::lane() * F::num_elements + i, r = at / F::columns, c = at % F::columns;
    g(f.x[i], p[columns ? c * stride + r : r * stride + c]);
  }
}
// Rows, and the matrix itself, must be aligned as the instructions want it.
template <class T>
inline void emu_aligned(const T* p, size_t stride) {
  if (reinterpret_cast<uintptr_t>(p) % 32 != 0 || stride * sizeof(T) % 16 != 0) {
    emu_refuse("misaligned: a wmma matrix begins at a multiple of 32 bytes, its rows at one of 16");
  }
}
template <class Use, int M, int N, int K, class T, class Layout, class P>
inline void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& f, const P* p, unsigned stride) {
  emu_aligned(p, stride);
  emu_elements(f, p, stride, emu::is_same<Layout, col_major>, [](auto& e, const P& v) { e = v; });
}
template <int M, int N, int K, class T, class P>
inline void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const P* p, unsigned stride,
                             layout_t layout) {
  emu_aligned(p, stride);
  emu_elements(f, p, stride, layout == mem_col_major, [](auto& e, const P& v) { e = v; });
}
template <int M, int N, int K, class T, class P>
inline void store_matrix_sync(P* p, const fragment<accumulator, M, N, K, T>& f, unsigned stride,
                              layout_t layout) {
  emu_aligned(p, stride);
  emu_elements(f, p, stride, layout == mem_col_major, [](const auto& e, P& v) { v = e; });
}
inline float __float_to_tf32(float x) {
  uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return __builtin_bit_cast(float, (bits + 0x1000u) & ~0x1FFFu);
}
template <int M, int N, int K, class D, class A, class LA, class B, class LB, class C>
inline void mma_sync(fragment<accumulator, M, N, K, D>& d, const fragment<matrix_a, M, N, K, A, LA>& a,
                     const fragment<matrix_b, M, N, K, B, LB>& b,
                     const fragment<accumulator, M, N, K, C>& c) {
  float fa[M * K / 32], fb[K * N / 32], fc[M * N / 32];
  for (int i = 0; i < M * K / 32; ++i) {
    fa[i] = static_cast<float>(a.x[i]);
  }
  for (int i = 0; i < K * N / 32; ++i) {
    fb[i] = static_cast<float>(b.x[i]);
  }
  for (int i = 0; i < M * N / 32; ++i) {
    fc[i] = static_cast<float>(c.x[i]);
  }
  emu_matmul(M, N, K, fa, fb, fc);
  for (int i = 0; i < M * N / 32; ++i) {
    d.x[i] = static_cast<D>(fc[i]);
  }
}
}  // namespace nvcuda::wmma
using nvcuda::wmma::__float_to_tf32;

// The instruction mma.m16n8k16: where PTX says that a lane has its numbers of a, b, and c. Registers of a and
// b hold two, the lower column of a, or row of b, in the lower half.
template <class T>
inline void emu_mma_m16n8k16(float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1,
                             unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
  auto number = [](unsigned bits, int half) {
    return static_cast<float>(__builtin_bit_cast(T, static_cast<unsigned short>(bits >> 16 * half)));
  };
  const int group = emu::lane() / 4, member = emu::lane() % 4;
  float fa[8], fb[4], fc[4] = {c0, c1, c2, c3};
  int at_a[8], at_b[4], at_c[4];
  for (int i = 0; i < 8; ++i) {
    int row = group + (i / 2 % 2) * 8, column = member * 2 + i % 2 + (i / 4) * 8;
    fa[i] = number(a[i / 2], i % 2);
    at_a[i] = row * 16 + column;
  }
  for (int i = 0; i < 4; ++i) {
    int row = member * 2 + i % 2 + (i / 2) * 8;
    fb[i] = number(b[i / 2], i % 2);
    at_b[i] = row * 8 + group;
    at_c[i] = (group + (i / 2) * 8) * 8 + member * 2 + i % 2;
  }
  emu_matmul_at(16, 8, 16, fa, at_a, fb, at_b, fc, at_c);
  c0 = fc[0], c1 = fc[1], c2 = fc[2], c3 = fc[3];
}

namespace mlx::core::cu {
using emu::elem_to_loc;
}  // namespace mlx::core::cu
