// The part of the Metal Shading Language that compute kernels use, as C++20 for the emulator.
#pragma once
#include "vectors.h"

typedef _Float16 half;
typedef __bf16 bfloat;
typedef half float16_t;
typedef bfloat bfloat16_t;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

#define EMU_VECTORS(T)         \
  typedef emu::vec<T, 2> T##2; \
  typedef emu::vec<T, 3> T##3; \
  typedef emu::vec<T, 4> T##4;
EMU_VECTOR_TYPES
EMU_VECTORS(bfloat)
typedef emu::vec<bool, 2> bool2;
typedef emu::vec<bool, 3> bool3;
typedef emu::vec<bool, 4> bool4;

constexpr half operator"" h(long double x) { return static_cast<half>(x); }

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return static_cast<mem_flags>(static_cast<int>(a) | static_cast<int>(b));
}

template <class T, class U>
inline T as_type(U u) {
  static_assert(sizeof(T) == sizeof(U), "as_type needs types of one size");
  return __builtin_bit_cast(T, u);
}

#define INFINITY __builtin_inff()
#define HUGE_VALF __builtin_inff()
#define NAN __builtin_nanf("")
#define FLT_MAX __FLT_MAX__
#define FLT_MIN __FLT_MIN__
#define FLT_EPSILON __FLT_EPSILON__
#define HALF_MAX static_cast<half>(65504.0f)
#define M_PI_F 3.14159265358979323846264338327950288f
#define M_PI_2_F 1.57079632679489661923132169163975144f
#define M_1_PI_F 0.318309886183790671537767526745028724f
#define M_2_PI_F 0.636619772367581343075535053490057448f
#define M_E_F 2.71828182845904523536028747135266250f
#define M_LN2_F 0.693147180559945309417232121458176568f
#define M_LOG2E_F 1.44269504088896340735992468100189214f
#define M_SQRT2_F 1.41421356237309504880168872420969808f
#define M_SQRT1_2_F 0.707106781186547524400844362104849039f

enum memory_order { memory_order_relaxed };

namespace metal {

using ::as_type;
using ::mem_flags;
using ::memory_order;
using ::memory_order_relaxed;
template <class T, int N>
using vec = emu::vec<T, N>;

// ---- types

template <class T>
inline constexpr bool is_floating_point_v = emu::is_floating<T>;

template <class T>
struct numeric_limits;
#define EMU_INTEGER_LIMITS(T, low, high)        \
  template <>                                   \
  struct numeric_limits<T> {                    \
    static constexpr T min() { return low; }    \
    static constexpr T lowest() { return low; } \
    static constexpr T max() { return high; }   \
  };
EMU_INTEGER_LIMITS(int, -__INT_MAX__ - 1, __INT_MAX__)
EMU_INTEGER_LIMITS(uint, 0, ~0u)
EMU_INTEGER_LIMITS(short, -32768, 32767)
EMU_INTEGER_LIMITS(ushort, 0, 65535)
EMU_INTEGER_LIMITS(long, -__LONG_MAX__ - 1, __LONG_MAX__)
EMU_INTEGER_LIMITS(ulong, 0, ~0ul)
EMU_INTEGER_LIMITS(signed char, -128, 127)
EMU_INTEGER_LIMITS(uchar, 0, 255)
#define EMU_FLOAT_LIMITS(T, smallest, largest, step)                              \
  template <>                                                                     \
  struct numeric_limits<T> {                                                      \
    static constexpr T min() { return static_cast<T>(smallest); }                 \
    static constexpr T lowest() { return static_cast<T>(-(largest)); }            \
    static constexpr T max() { return static_cast<T>(largest); }                  \
    static constexpr T epsilon() { return static_cast<T>(step); }                 \
    static constexpr T infinity() { return static_cast<T>(__builtin_inff()); }    \
    static constexpr T quiet_NaN() { return static_cast<T>(__builtin_nanf("")); } \
  };
EMU_FLOAT_LIMITS(float, __FLT_MIN__, __FLT_MAX__, __FLT_EPSILON__)
EMU_FLOAT_LIMITS(half, 0x1p-14f, 65504.0f, 0x1p-10f)
EMU_FLOAT_LIMITS(bfloat, 0x1p-126f, 0x1.FEp127f, 0x1p-7f)

EMU_PACKED_TYPES
template <class T>
struct EmuPacked3 {  // a vector of three would have the size of four
  T x, y, z;
  EmuPacked3() = default;
  EmuPacked3(emu::vec<T, 3> v) : x(v.x), y(v.y), z(v.z) {}
  operator emu::vec<T, 3>() const { return emu::vec<T, 3>{x, y, z}; }
  T& operator[](int i) { return (&x)[i]; }
  T operator[](int i) const { return (&x)[i]; }
};
typedef EmuPacked3<float> packed_float3;
typedef EmuPacked3<half> packed_half3;
typedef EmuPacked3<int> packed_int3;
typedef EmuPacked3<uint> packed_uint3;

// ---- mathematics, each element of a vector by itself; half and bfloat by float

#define EMU_MATH(name, f)                                                                                   \
  template <class T>                                                                                        \
  inline T name(T x) {                                                                                      \
    static_assert(emu::is_floating<typename emu::lanes<T>::element>, #name " is for floating-point types"); \
    return emu::each([](auto v) { return f(static_cast<float>(v)); }, x);                                   \
  }
#define EMU_MATH2(name, f)                                                                                  \
  template <class T>                                                                                        \
  inline T name(T x, any_t<T> y) {                                                                          \
    return emu::each([](auto v, auto w) { return f(static_cast<float>(v), static_cast<float>(w)); }, x, y); \
  }
#define EMU_ALL_MATH                       \
  EMU_MATH(exp, __builtin_expf)            \
  EMU_MATH(exp2, __builtin_exp2f)          \
  EMU_MATH(exp10, __builtin_exp10f)        \
  EMU_MATH(log, __builtin_logf)            \
  EMU_MATH(log2, __builtin_log2f)          \
  EMU_MATH(log10, __builtin_log10f)        \
  EMU_MATH(sin, __builtin_sinf)            \
  EMU_MATH(cos, __builtin_cosf)            \
  EMU_MATH(tan, __builtin_tanf)            \
  EMU_MATH(asin, __builtin_asinf)          \
  EMU_MATH(acos, __builtin_acosf)          \
  EMU_MATH(atan, __builtin_atanf)          \
  EMU_MATH(sinh, __builtin_sinhf)          \
  EMU_MATH(cosh, __builtin_coshf)          \
  EMU_MATH(tanh, __builtin_tanhf)          \
  EMU_MATH(sqrt, __builtin_sqrtf)          \
  EMU_MATH(rsqrt, 1.0f / __builtin_sqrtf)  \
  EMU_MATH(sinpi, emu_sinpi)               \
  EMU_MATH(cospi, emu_cospi)               \
  EMU_MATH(floor, __builtin_floorf)        \
  EMU_MATH(ceil, __builtin_ceilf)          \
  EMU_MATH(round, __builtin_roundf)        \
  EMU_MATH(rint, __builtin_rintf)          \
  EMU_MATH(trunc, __builtin_truncf)        \
  EMU_MATH(fabs, __builtin_fabsf)          \
  EMU_MATH(fract, emu_fract)               \
  EMU_MATH2(pow, __builtin_powf)           \
  EMU_MATH2(powr, __builtin_powf)          \
  EMU_MATH2(atan2, __builtin_atan2f)       \
  EMU_MATH2(fmod, __builtin_fmodf)         \
  EMU_MATH2(fmin, __builtin_fminf)         \
  EMU_MATH2(fmax, __builtin_fmaxf)         \
  EMU_MATH2(copysign, __builtin_copysignf) \
  EMU_MATH2(divide, emu_divide)

inline float emu_sinpi(float x) {
  return static_cast<float>(__builtin_sin(3.14159265358979323846 * (x - 2 * __builtin_rint(x / 2))));
}
inline float emu_cospi(float x) {
  return static_cast<float>(__builtin_cos(3.14159265358979323846 * (x - 2 * __builtin_rint(x / 2))));
}
inline float emu_fract(float x) { return __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f); }
inline float emu_divide(float x, float y) { return x / y; }
EMU_ALL_MATH
namespace precise {
EMU_ALL_MATH
}
// The largest errors that the language's specification allows, so that nothing depends on better ones.
namespace fast {
inline float emu_worst(float y, float ulps) {
  uint32_t bits = __builtin_bit_cast(uint32_t, y);
  float step = __builtin_fabsf(y) * 0x1p-23f * ulps;
  return y + (__builtin_popcount(bits) % 2 ? step : -step);
}
inline float emu_sin(float x) {
  return __builtin_sinf(x) + (__builtin_popcount(__builtin_bit_cast(uint32_t, x)) % 2 ? 0x1p-13f : -0x1p-13f);
}
inline float emu_cos(float x) {
  return __builtin_cosf(x) + (__builtin_popcount(__builtin_bit_cast(uint32_t, x)) % 2 ? 0x1p-13f : -0x1p-13f);
}
inline float emu_exp(float x) {
  return emu_worst(__builtin_expf(x), 3 + __builtin_floorf(__builtin_fabsf(2 * x)));
}
inline float emu_exp2(float x) {
  return emu_worst(__builtin_exp2f(x), 3 + __builtin_floorf(__builtin_fabsf(2 * x)));
}
inline float emu_log(float x) {
  return x >= 0.5f && x <= 2.0f ? __builtin_logf(x) + 0x1p-21f : emu_worst(__builtin_logf(x), 3);
}
inline float emu_log2(float x) {
  return x >= 0.5f && x <= 2.0f ? __builtin_log2f(x) + 0x1p-21f : emu_worst(__builtin_log2f(x), 3);
}
inline float emu_tanh(float x) {
  if (__builtin_fabsf(x) > 10) {
    return x < 0 ? -1.0f : 1.0f;
  }
  float t = emu_exp(2 * x);
  return (t - 1) / (t + 1);
}
EMU_MATH(sin, emu_sin)
EMU_MATH(cos, emu_cos)
EMU_MATH(exp, emu_exp)
EMU_MATH(exp2, emu_exp2)
EMU_MATH(log, emu_log)
EMU_MATH(log2, emu_log2)
EMU_MATH(tanh, emu_tanh)
EMU_MATH(sqrt, __builtin_sqrtf)
EMU_MATH(rsqrt, 1.0f / __builtin_sqrtf)
EMU_MATH2(divide, emu_divide)
EMU_MATH2(pow, __builtin_powf)
}  // namespace fast

template <class T>
inline T fma(T a, any_t<T> b, any_t<T> c) {
  return emu::each(
      [](auto x, auto y, auto z) {
        return __builtin_fmaf(static_cast<float>(x), static_cast<float>(y), static_cast<float>(z));
      },
      a, b, c);
}
template <class T>
inline T abs(T a) {
  return emu::each([](auto x) { return x < 0 ? -x : x; }, a);
}
template <class T>
inline T sign(T a) {
  return emu::each([](auto x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }, a);
}
template <class T>
inline T min(T a, any_t<T> b) {
  return emu::each([](auto x, auto y) { return y < x ? y : x; }, a, b);
}
template <class T>
inline T max(T a, any_t<T> b) {
  return emu::each([](auto x, auto y) { return x < y ? y : x; }, a, b);
}
template <class T>
inline T clamp(T x, any_t<T> low, any_t<T> high) {
  return min(max(x, low), high);
}
template <class T>
inline T saturate(T x) {
  return clamp(x, T(0), T(1));
}
template <class T>
inline T mix(T a, any_t<T> b, any_t<T> t) {
  return a + (b - a) * t;
}
template <class T>
inline T select(T no, any_t<T> yes, bool c) {
  return c ? yes : no;
}
template <class T, int N>
inline emu::vec<T, N> select(emu::vec<T, N> no, emu::vec<T, N> yes, emu::vec<bool, N> c) {
  for (int i = 0; i < N; ++i) {
    no[i] = c[i] ? yes[i] : no[i];
  }
  return no;
}
template <class V>
inline auto dot(V a, any_t<V> b) {
  auto sum = a[0] * b[0];
  for (int i = 1; i < emu::lanes<V>::count; ++i) {
    sum += a[i] * b[i];
  }
  return static_cast<typename emu::lanes<V>::element>(sum);
}
template <class T>
inline bool isnan(T x) {
  return x != x;
}
template <class T>
inline bool isinf(T x) {
  return __builtin_isinf(static_cast<float>(x));
}
template <class T>
inline bool isfinite(T x) {
  return __builtin_isfinite(static_cast<float>(x));
}
inline float ldexp(float x, int k) { return __builtin_ldexpf(x, k); }
template <class T>
inline T popcount(T x) {
  return emu::each([](auto v) { return __builtin_popcountll(static_cast<ulong>(v)); }, x);
}
inline uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
inline uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
inline uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
inline uint mulhi(uint a, uint b) { return static_cast<uint>(static_cast<ulong>(a) * b >> 32); }
inline int mulhi(int a, int b) { return static_cast<int>(static_cast<long>(a) * b >> 32); }
template <class T>
inline T mad24(T a, any_t<T> b, any_t<T> c) {
  return a * b + c;
}
template <class T>
inline T rotate(T x, uint n) {
  return (x << n % (8 * sizeof(T))) | (x >> (8 * sizeof(T) - n) % (8 * sizeof(T)));
}
template <class T>
inline T extract_bits(T x, uint offset, uint count) {
  return count == 0 ? T(0) : static_cast<T>(x << (8 * sizeof(T) - offset - count)) >> (8 * sizeof(T) - count);
}

// ---- threads

inline void threadgroup_barrier(mem_flags flags) {
  emu_group_barrier(static_cast<unsigned>(flags), "threadgroup_barrier");
}
inline void simdgroup_barrier(mem_flags flags) {
  emu_simd_barrier(static_cast<unsigned>(flags), "simdgroup_barrier");
}

#define EMU_REDUCTION(name, op)            \
  template <class T>                       \
  inline T name(T v) {                     \
    return emu::reduce<emu::op>(v, #name); \
  }
EMU_REDUCTION(simd_sum, Add)
EMU_REDUCTION(simd_product, Mul)
EMU_REDUCTION(simd_max, Max)
EMU_REDUCTION(simd_min, Min)
EMU_REDUCTION(simd_and, And)
EMU_REDUCTION(simd_or, Or)
EMU_REDUCTION(simd_xor, Xor)
#define EMU_SCAN(name, op, inclusive, identity)                                                 \
  template <class T>                                                                            \
  inline T name(T v) {                                                                          \
    return emu_unpack<T>(                                                                       \
        emu_scan(emu_pack(v), emu::fold<T, emu::op>, inclusive, emu_pack(T(identity)), #name)); \
  }
EMU_SCAN(simd_prefix_inclusive_sum, Add, true, 0)
EMU_SCAN(simd_prefix_exclusive_sum, Add, false, 0)
EMU_SCAN(simd_prefix_inclusive_product, Mul, true, 1)
EMU_SCAN(simd_prefix_exclusive_product, Mul, false, 1)
#define EMU_SHUFFLE(name, source)          \
  template <class T>                       \
  inline T name(T v, ushort n) {           \
    return emu::shuffle(v, source, #name); \
  }
EMU_SHUFFLE(simd_shuffle, n)
EMU_SHUFFLE(simd_shuffle_xor, emu::lane() ^ n)
EMU_SHUFFLE(simd_shuffle_down, emu::lane() + n)
EMU_SHUFFLE(simd_shuffle_up, emu::lane() - n)
EMU_SHUFFLE(simd_shuffle_rotate_down, (emu::lane() + n) % 32)
EMU_SHUFFLE(simd_shuffle_rotate_up, (emu::lane() - n) % 32)
EMU_SHUFFLE(simd_broadcast, n)
template <class T>
inline T simd_broadcast_first(T v) {
  return emu::shuffle(v, 0, "simd_broadcast_first");
}
template <class T>
inline T simd_shuffle_and_fill_down(T v, T fill, ushort n) {
  T moved = emu::shuffle(v, emu::lane() + n, "simd_shuffle_and_fill_down");
  T filled = emu::shuffle(fill, (emu::lane() + n) % 32, "simd_shuffle_and_fill_down");
  return emu::lane() + n < 32 ? moved : filled;
}
template <class T>
inline T simd_shuffle_and_fill_up(T v, T fill, ushort n) {
  T moved = emu::shuffle(v, emu::lane() - n, "simd_shuffle_and_fill_up");
  T filled = emu::shuffle(fill, (emu::lane() - n) % 32, "simd_shuffle_and_fill_up");
  return emu::lane() >= n ? moved : filled;
}
inline bool simd_any(bool v) { return emu::reduce<emu::Or>(static_cast<uint>(v), "simd_any"); }
inline bool simd_all(bool v) { return emu::reduce<emu::And>(static_cast<uint>(v), "simd_all"); }
inline bool simd_is_first() { return emu::lane() == 0; }
inline ulong simd_ballot(bool v) { return emu::reduce<emu::Or>(v ? 1ul << emu::lane() : 0ul, "simd_ballot"); }

// ---- simdgroup matrices

template <class T, int Rows = 8, int Columns = 8>
struct simdgroup_matrix {
  static_assert(Rows == 8 && Columns == 8, "simdgroup matrices are 8 x 8");
  emu::vec<T, 2> elements;
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T diagonal) {
    int r = row(), c = column();
    elements = emu::vec<T, 2>{r == c ? diagonal : T(0), r == c + 1 ? diagonal : T(0)};
  }
  emu::vec<T, 2>& thread_elements() { return elements; }
  // Where the first of this lane's two elements is: as MLX's own kernels have it.
  static int row() {
    int quad = emu::lane() / 4;
    return (quad & 4) + emu::lane() / 2 % 4;
  }
  static int column() {
    int quad = emu::lane() / 4;
    return (quad & 2) * 2 + emu::lane() % 2 * 2;
  }
};
typedef simdgroup_matrix<float> simdgroup_float8x8;
typedef simdgroup_matrix<half> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat> simdgroup_bfloat8x8;

template <class T, int R = 8, int C = 8>
inline simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T v) {
  simdgroup_matrix<T, R, C> m;
  m.elements = emu::vec<T, 2>{v, v};
  return m;
}
template <class T, int R = 8, int C = 8>
inline simdgroup_matrix<T, R, C> make_diagonal_simdgroup_matrix(T v) {
  return simdgroup_matrix<T, R, C>(v);
}
template <class T>
inline void simdgroup_load(simdgroup_matrix<T>& m, const T* p, ulong stride = 8, ulong2 origin = ulong2(0),
                           bool transpose = false) {
  ulong r = m.row(), c = m.column();
  p += origin.y * stride + origin.x;
  for (ulong i = 0; i < 2; ++i) {
    m.elements[i] = transpose ? p[(c + i) * stride + r] : p[r * stride + c + i];
  }
}
template <class T>
inline void simdgroup_store(simdgroup_matrix<T> m, T* p, ulong stride = 8, ulong2 origin = ulong2(0),
                            bool transpose = false) {
  ulong r = m.row(), c = m.column();
  p += origin.y * stride + origin.x;
  for (ulong i = 0; i < 2; ++i) {
    p[transpose ? (c + i) * stride + r : r * stride + c + i] = m.elements[i];
  }
}
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D>& d, simdgroup_matrix<A> a,
                                          simdgroup_matrix<B> b, simdgroup_matrix<C> c) {
  auto pair = [](auto m) {
    return EmuPair{static_cast<float>(m.elements[0]), static_cast<float>(m.elements[1])};
  };
  EmuPair sum = emu_matmul8(pair(a), pair(b), pair(c));
  d.elements = emu::vec<D, 2>{static_cast<D>(sum.x), static_cast<D>(sum.y)};
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D>& d, simdgroup_matrix<A> a, simdgroup_matrix<B> b) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D>(D(0)));
}

// ---- atomics

template <class T>
struct atomic {
  T value;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;

template <class T, class F>
inline T emu_update(volatile atomic<T>* p, F f) {
  using Bits = typename emu::choose<sizeof(T) == 8, uint64_t, uint32_t>::type;
  static_assert(sizeof(T) == sizeof(Bits), "atomics are of 32 or 64 bits");
  emu_atomic(p, sizeof(T));
  auto* bits = reinterpret_cast<volatile Bits*>(&p->value);
  Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(bits, &old,
                                      __builtin_bit_cast(Bits, static_cast<T>(f(__builtin_bit_cast(T, old)))),
                                      false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return __builtin_bit_cast(T, old);
}
#define EMU_ATOMIC(name, result)                                          \
  template <class T>                                                      \
  inline T name(volatile atomic<T>* p, any_t<T> v, memory_order) {        \
    return emu_update(p, [v]([[maybe_unused]] T old) { return result; }); \
  }
EMU_ATOMIC(atomic_fetch_add_explicit, old + v)
EMU_ATOMIC(atomic_fetch_sub_explicit, old - v)
EMU_ATOMIC(atomic_fetch_max_explicit, old < v ? v : old)
EMU_ATOMIC(atomic_fetch_min_explicit, v < old ? v : old)
EMU_ATOMIC(atomic_fetch_and_explicit, old& v)
EMU_ATOMIC(atomic_fetch_or_explicit, old | v)
EMU_ATOMIC(atomic_fetch_xor_explicit, old ^ v)
EMU_ATOMIC(atomic_exchange_explicit, v)
template <class T>
inline void atomic_store_explicit(volatile atomic<T>* p, any_t<T> v, memory_order) {
  emu_update(p, [v](T) { return v; });
}
template <class T>
inline T atomic_load_explicit(const volatile atomic<T>* p, memory_order) {
  return emu_update(const_cast<volatile atomic<T>*>(p), [](T old) { return old; });
}

}  // namespace metal
using namespace metal;

// ---- what MLX puts before every kernel, as far as kernels here use it

using emu::elem_to_loc;

#define METAL_FUNC inline __attribute__((always_inline))

// ---- the attributes of a kernel's arguments

inline uint3 emu_vec3(EmuVec3 v) { return uint3{v.x, v.y, v.z}; }
inline uint3 emu_thread_position_in_threadgroup() { return emu_vec3(emu_thread_in_group()); }
inline uint3 emu_threadgroup_position_in_grid() { return emu_vec3(emu_group_in_grid()); }
inline uint3 emu_thread_position_in_grid() {
  return emu_threadgroup_position_in_grid() * emu_vec3(emu_threads_per_full_group()) +
         emu_thread_position_in_threadgroup();
}
inline uint3 emu_threads_per_threadgroup() { return emu_vec3(emu_threads_per_group()); }
inline uint3 emu_dispatch_threads_per_threadgroup() { return emu_vec3(emu_threads_per_full_group()); }
inline uint3 emu_threadgroups_per_grid() { return emu_vec3(emu_groups_per_grid()); }
inline uint emu_thread_index_in_threadgroup() { return emu_thread_index(); }
inline uint emu_thread_index_in_simdgroup() { return emu_thread_index() % 32; }
inline uint emu_simdgroup_index_in_threadgroup() { return emu_thread_index() / 32; }
inline uint emu_threads_per_simdgroup() { return 32; }
inline uint emu_thread_execution_width() { return 32; }
inline uint emu_simdgroups_per_threadgroup() {
  EmuVec3 n = emu_threads_per_group();
  return (n.x * n.y * n.z + 31) / 32;
}
inline uint emu_dispatch_simdgroups_per_threadgroup() {
  EmuVec3 n = emu_threads_per_full_group();
  return (n.x * n.y * n.z + 31) / 32;
}

// ---- last: words of the language. Where a type is called like a function it makes a vector.

#define float2(...) emu::make<float2>(__VA_ARGS__)
#define float3(...) emu::make<float3>(__VA_ARGS__)
#define float4(...) emu::make<float4>(__VA_ARGS__)
#define half2(...) emu::make<half2>(__VA_ARGS__)
#define half3(...) emu::make<half3>(__VA_ARGS__)
#define half4(...) emu::make<half4>(__VA_ARGS__)
#define bfloat2(...) emu::make<bfloat2>(__VA_ARGS__)
#define bfloat4(...) emu::make<bfloat4>(__VA_ARGS__)
#define int2(...) emu::make<int2>(__VA_ARGS__)
#define int3(...) emu::make<int3>(__VA_ARGS__)
#define int4(...) emu::make<int4>(__VA_ARGS__)
#define uint2(...) emu::make<uint2>(__VA_ARGS__)
#define uint3(...) emu::make<uint3>(__VA_ARGS__)
#define uint4(...) emu::make<uint4>(__VA_ARGS__)
#define short2(...) emu::make<short2>(__VA_ARGS__)
#define short4(...) emu::make<short4>(__VA_ARGS__)
#define ushort2(...) emu::make<ushort2>(__VA_ARGS__)
#define ushort4(...) emu::make<ushort4>(__VA_ARGS__)
#define char4(...) emu::make<char4>(__VA_ARGS__)
#define uchar4(...) emu::make<uchar4>(__VA_ARGS__)
#define ulong2(...) emu::make<ulong2>(__VA_ARGS__)
#define device
#define constant const
#define thread
#define threadgroup
#define kernel
