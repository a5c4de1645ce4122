// Types that kernels compute with types by, for metal.h and for opencl.h, where constants have an address
// space.
#pragma once

#ifndef EMU_CONSTANT
#define EMU_CONSTANT inline
#endif

template <class T>
struct EmuSame {
  using type = T;
};
template <bool B, class T, class F>
struct EmuChoose {
  using type = T;
};
template <class T, class F>
struct EmuChoose<false, T, F> {
  using type = F;
};

namespace metal {

template <class T>
using any_t = typename EmuSame<T>::type;
template <class A, class B>
EMU_CONSTANT constexpr bool is_same_v = __is_same(A, B);
template <class A, class B>
struct is_same {
  static EMU_CONSTANT constexpr bool value = __is_same(A, B);
};
template <bool B, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  using type = T;
};
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F>
using conditional = EmuChoose<B, T, F>;
template <bool B, class T, class F>
using conditional_t = typename conditional<B, T, F>::type;

}  // namespace metal

// Vectors with the alignment of their elements. EMU_PACKED_TYPES where half, bfloat and uint are known.
#define EMU_PACKED(T, bytes)                                                   \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(bytes))); \
  typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(bytes)));
#define EMU_PACKED_TYPES \
  EMU_PACKED(float, 4) EMU_PACKED(half, 2) EMU_PACKED(bfloat, 2) EMU_PACKED(int, 4) EMU_PACKED(uint, 4)

// Vectors of every type that both have, as EMU_VECTORS declares them there.
#define EMU_SIGNED_VECTORS EMU_VECTORS(char) EMU_VECTORS(short) EMU_VECTORS(int) EMU_VECTORS(long)
#define EMU_UNSIGNED_VECTORS EMU_VECTORS(uchar) EMU_VECTORS(ushort) EMU_VECTORS(uint) EMU_VECTORS(ulong)
#define EMU_VECTOR_TYPES EMU_VECTORS(float) EMU_VECTORS(half) EMU_SIGNED_VECTORS EMU_UNSIGNED_VECTORS
