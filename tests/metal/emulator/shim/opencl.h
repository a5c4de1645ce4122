// The declarations of metal.h once more, for a check only: C++ for OpenCL has Metal's four address spaces.
#pragma once
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define EMU_CONSTANT constant
#include "types.h"

#define device __global
#define threadgroup __local
#define thread __private
// `constant` and `kernel` are OpenCL's words too.

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef half float16_t;
typedef half bfloat;
typedef half bfloat16_t;
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef uchar uint8_t;
typedef ushort uint16_t;
typedef uint uint32_t;
typedef ulong uint64_t;
typedef ulong size_t;
typedef long ptrdiff_t;
typedef ulong uintptr_t;

#define EMU_VECTORS(T)                                \
  typedef T T##2 __attribute__((ext_vector_type(2))); \
  typedef T T##3 __attribute__((ext_vector_type(3))); \
  typedef T T##4 __attribute__((ext_vector_type(4)));
EMU_VECTOR_TYPES
typedef half2 bfloat2;
typedef half4 bfloat4;

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }

enum memory_order { memory_order_relaxed };

#define INFINITY __builtin_inff()
#define HUGE_VALF __builtin_inff()
#define NAN __builtin_nanf("")
#define FLT_MAX __FLT_MAX__
#define FLT_MIN __FLT_MIN__
#define FLT_EPSILON __FLT_EPSILON__
#define HALF_MAX ((half)65504.0f)
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_1_PI_F 0.318309886183790671538f
#define M_2_PI_F 0.636619772367581343076f
#define M_E_F 2.71828182845904523536f
#define M_LN2_F 0.693147180559945309417f
#define M_LOG2E_F 1.44269504088896340736f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.707106781186547524401f
#define METAL_FUNC inline

template <class T, class U>
T as_type(U);
template <class V, class... A>
V emu_make(A...);

namespace metal {
template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));

template <class T>
struct numeric_limits {
  static constexpr T min() { return T(0); }
  static constexpr T max() { return T(0); }
  static constexpr T lowest() { return T(0); }
  static constexpr T epsilon() { return T(0); }
  static constexpr T infinity() { return T(0); }
  static constexpr T quiet_NaN() { return T(0); }
};

EMU_PACKED_TYPES

#define EMU_MATH(name) \
  template <class T>   \
  T name(T);
#define EMU_MATH2(name) \
  template <class T>    \
  T name(T, any_t<T>);
#define EMU_ALL_MATH   \
  EMU_MATH(exp);       \
  EMU_MATH(exp2);      \
  EMU_MATH(exp10);     \
  EMU_MATH(log);       \
  EMU_MATH(log2);      \
  EMU_MATH(log10);     \
  EMU_MATH(sin);       \
  EMU_MATH(cos);       \
  EMU_MATH(tan);       \
  EMU_MATH(asin);      \
  EMU_MATH(acos);      \
  EMU_MATH(atan);      \
  EMU_MATH(sinh);      \
  EMU_MATH(cosh);      \
  EMU_MATH(tanh);      \
  EMU_MATH(sqrt);      \
  EMU_MATH(rsqrt);     \
  EMU_MATH(sinpi);     \
  EMU_MATH(cospi);     \
  EMU_MATH(floor);     \
  EMU_MATH(ceil);      \
  EMU_MATH(round);     \
  EMU_MATH(rint);      \
  EMU_MATH(trunc);     \
  EMU_MATH(fabs);      \
  EMU_MATH(fract);     \
  EMU_MATH2(pow);      \
  EMU_MATH2(powr);     \
  EMU_MATH2(atan2);    \
  EMU_MATH2(fmod);     \
  EMU_MATH2(fmin);     \
  EMU_MATH2(fmax);     \
  EMU_MATH2(copysign); \
  EMU_MATH2(divide);
EMU_ALL_MATH
namespace precise {
EMU_ALL_MATH
}
namespace fast {
EMU_ALL_MATH
}
EMU_MATH(abs)
EMU_MATH(sign)
EMU_MATH2(min)
EMU_MATH2(max)
EMU_MATH(saturate)
template <class T>
T fma(T, any_t<T>, any_t<T>);
template <class T>
T clamp(T, any_t<T>, any_t<T>);
template <class T>
T mix(T, any_t<T>, any_t<T>);
template <class T, class C>
T select(T, any_t<T>, C);
template <class T>
auto dot(T a, any_t<T> b) {
  return a.x;
}
template <class T>
bool isnan(T);
template <class T>
bool isinf(T);
template <class T>
bool isfinite(T);
float ldexp(float, int);
EMU_MATH(popcount)
uint clz(uint);
uint ctz(uint);
uint reverse_bits(uint);
EMU_MATH2(mulhi)
template <class T>
T mad24(T, any_t<T>, any_t<T>);
template <class T>
T rotate(T, uint);
template <class T>
T extract_bits(T, uint, uint);

void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
EMU_MATH(simd_sum)
EMU_MATH(simd_product)
EMU_MATH(simd_max)
EMU_MATH(simd_min)
EMU_MATH(simd_and)
EMU_MATH(simd_or)
EMU_MATH(simd_xor)
EMU_MATH(simd_prefix_inclusive_sum)
EMU_MATH(simd_prefix_exclusive_sum)
EMU_MATH(simd_prefix_inclusive_product)
EMU_MATH(simd_prefix_exclusive_product)
EMU_MATH(simd_broadcast_first)
#define EMU_SHUFFLE(name) \
  template <class T>      \
  T name(T, ushort);
EMU_SHUFFLE(simd_shuffle)
EMU_SHUFFLE(simd_shuffle_xor)
EMU_SHUFFLE(simd_shuffle_down)
EMU_SHUFFLE(simd_shuffle_up)
EMU_SHUFFLE(simd_shuffle_rotate_down)
EMU_SHUFFLE(simd_shuffle_rotate_up)
EMU_SHUFFLE(simd_broadcast)
template <class T>
T simd_shuffle_and_fill_down(T, T, ushort);
template <class T>
T simd_shuffle_and_fill_up(T, T, ushort);
bool simd_any(bool);
bool simd_all(bool);
bool simd_is_first();
ulong simd_ballot(bool);

#ifdef __opencl_c_generic_address_space
#define EMU_OBJECT __generic
#else
#define EMU_OBJECT __private
#endif
template <class T, int Rows = 8, int Columns = 8>
struct simdgroup_matrix {
  vec<T, 2> elements;
  simdgroup_matrix() {}
  explicit simdgroup_matrix(T) {}
  EMU_OBJECT vec<T, 2>& thread_elements() EMU_OBJECT { return elements; }
};
typedef simdgroup_matrix<float> simdgroup_float8x8;
typedef simdgroup_matrix<half> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat> simdgroup_bfloat8x8;
template <class T, int R = 8, int C = 8>
simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T);
template <class T, int R = 8, int C = 8>
simdgroup_matrix<T, R, C> make_diagonal_simdgroup_matrix(T);
// Matrices of any address space: in a member function of a class they may be generic.
#define EMU_LOAD(space)       \
  template <class M, class T> \
  void simdgroup_load(M&&, const space T*, ulong = 8, ulong2 = 0, bool = false);
#define EMU_STORE(space)      \
  template <class M, class T> \
  void simdgroup_store(M&&, space T*, ulong = 8, ulong2 = 0, bool = false);
EMU_LOAD(__global)
EMU_LOAD(__local)
EMU_STORE(__global)
EMU_STORE(__local)
template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(D&&, A&&, B&&, C&&);
template <class D, class A, class B>
void simdgroup_multiply(D&&, A&&, B&&);

// OpenCL has types of these names.
#define atomic_int emu_atomic_int
#define atomic_uint emu_atomic_uint
#define atomic_float emu_atomic_float
template <class T>
struct atomic {
  T value;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
#define EMU_ATOMIC(name)                                        \
  template <class T>                                            \
  T name(volatile __global atomic<T>*, any_t<T>, memory_order); \
  template <class T>                                            \
  T name(volatile __local atomic<T>*, any_t<T>, memory_order);
EMU_ATOMIC(atomic_fetch_add_explicit)
EMU_ATOMIC(atomic_fetch_sub_explicit)
EMU_ATOMIC(atomic_fetch_max_explicit)
EMU_ATOMIC(atomic_fetch_min_explicit)
EMU_ATOMIC(atomic_fetch_and_explicit)
EMU_ATOMIC(atomic_fetch_or_explicit)
EMU_ATOMIC(atomic_fetch_xor_explicit)
EMU_ATOMIC(atomic_exchange_explicit)
EMU_ATOMIC(atomic_store_explicit)
template <class T>
T atomic_load_explicit(const volatile __global atomic<T>*, memory_order);
template <class T>
T atomic_load_explicit(const volatile __local atomic<T>*, memory_order);
}  // namespace metal
using namespace metal;

template <class Index = long>
Index elem_to_loc(Index, constant const int*, constant const int64_t*, int);

#define float2(...) emu_make<float2>(__VA_ARGS__)
#define float3(...) emu_make<float3>(__VA_ARGS__)
#define float4(...) emu_make<float4>(__VA_ARGS__)
#define half2(...) emu_make<half2>(__VA_ARGS__)
#define half3(...) emu_make<half3>(__VA_ARGS__)
#define half4(...) emu_make<half4>(__VA_ARGS__)
#define bfloat2(...) emu_make<bfloat2>(__VA_ARGS__)
#define bfloat4(...) emu_make<bfloat4>(__VA_ARGS__)
#define int2(...) emu_make<int2>(__VA_ARGS__)
#define int3(...) emu_make<int3>(__VA_ARGS__)
#define int4(...) emu_make<int4>(__VA_ARGS__)
#define uint2(...) emu_make<uint2>(__VA_ARGS__)
#define uint3(...) emu_make<uint3>(__VA_ARGS__)
#define uint4(...) emu_make<uint4>(__VA_ARGS__)
#define short2(...) emu_make<short2>(__VA_ARGS__)
#define short4(...) emu_make<short4>(__VA_ARGS__)
#define ushort2(...) emu_make<ushort2>(__VA_ARGS__)
#define ushort4(...) emu_make<ushort4>(__VA_ARGS__)
#define char4(...) emu_make<char4>(__VA_ARGS__)
#define uchar4(...) emu_make<uchar4>(__VA_ARGS__)
#define ulong2(...) emu_make<ulong2>(__VA_ARGS__)

// OpenCL's other words are free in Metal.
#define local emu_local
#define global emu_global
#define generic emu_generic
#define read_only emu_read_only
#define write_only emu_write_only
#define read_write emu_read_write
