// The vector types that both languages have under Metal's names, on clang's own vectors (swizzles,
// arithmetic).
#pragma once
#include "emulator.h"
#include "types.h"

namespace emu {

template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));

template <class T>
struct lanes {
  static constexpr int count = 1;
  using element = T;
};
template <class T, int N>
struct lanes<T __attribute__((ext_vector_type(N)))> {
  static constexpr int count = N;
  using element = T;
};

// V(a, b, ...): scalars and vectors one after the other, or one scalar in every place.
template <class V, class... A>
inline V make(A... a) {
  using E = typename lanes<V>::element;
  V v = V(0);
  int n = 0;
  auto add = [&](auto x) {
    if constexpr (lanes<decltype(x)>::count == 1) {
      v[n++] = static_cast<E>(x);
    } else {
      for (int i = 0; i < lanes<decltype(x)>::count; ++i) {
        v[n++] = static_cast<E>(x[i]);
      }
    }
  };
  (add(a), ...);
  static_assert((lanes<A>::count + ... + 0) == 1 || (lanes<A>::count + ... + 0) == lanes<V>::count,
                "a vector is made of one value or of one for each place");
  for (; n > 0 && n < lanes<V>::count; ++n) {
    v[n] = v[0];
  }
  return v;
}

// f for each element of vectors, or for scalars.
template <class T, class F>
inline T each(F f, T a) {
  if constexpr (lanes<T>::count == 1) {
    return static_cast<T>(f(a));
  } else {
    for (int i = 0; i < lanes<T>::count; ++i) {
      a[i] = static_cast<typename lanes<T>::element>(f(a[i]));
    }
    return a;
  }
}
template <class T, class F>
inline T each(F f, T a, T b) {
  if constexpr (lanes<T>::count == 1) {
    return static_cast<T>(f(a, b));
  } else {
    for (int i = 0; i < lanes<T>::count; ++i) {
      a[i] = static_cast<typename lanes<T>::element>(f(a[i], b[i]));
    }
    return a;
  }
}
template <class T, class F>
inline T each(F f, T a, T b, T c) {
  if constexpr (lanes<T>::count == 1) {
    return static_cast<T>(f(a, b, c));
  } else {
    for (int i = 0; i < lanes<T>::count; ++i) {
      a[i] = static_cast<typename lanes<T>::element>(f(a[i], b[i], c[i]));
    }
    return a;
  }
}

template <class T>
using same = EmuSame<T>;
template <class A, class B>
inline constexpr bool is_same = __is_same(A, B);
template <class T>
inline constexpr bool is_floating = __is_floating_point(T) || is_same<T, _Float16> || is_same<T, __bf16>;

template <bool B, class T, class F>
using choose = EmuChoose<B, T, F>;

// What MLX puts before every kernel, as far as kernels here use it.
template <class Index = int64_t>
inline Index elem_to_loc(Index elem, const int* shape, const int64_t* strides, int ndim) {
  Index at = 0;
  for (int i = ndim - 1; i >= 0 && elem > 0; --i) {
    at += elem % shape[i] * static_cast<Index>(strides[i]);
    elem /= shape[i];
  }
  return at;
}

// An operation of a simdgroup over the bits of its values.
template <class T, class Op>
inline EmuBits fold(EmuBits a, EmuBits b) {
  return emu_pack<T>(each([](auto x, auto y) { return Op::of(x, y); }, emu_unpack<T>(a), emu_unpack<T>(b)));
}
struct Add {
  static auto of(auto a, auto b) { return static_cast<decltype(a)>(a + b); }
};
struct Mul {
  static auto of(auto a, auto b) { return static_cast<decltype(a)>(a * b); }
};
struct Max {
  static auto of(auto a, auto b) { return a < b ? b : a; }
};
struct Min {
  static auto of(auto a, auto b) { return b < a ? b : a; }
};
struct And {
  static auto of(auto a, auto b) { return static_cast<decltype(a)>(a & b); }
};
struct Or {
  static auto of(auto a, auto b) { return static_cast<decltype(a)>(a | b); }
};
struct Xor {
  static auto of(auto a, auto b) { return static_cast<decltype(a)>(a ^ b); }
};
template <class Op, class T>
inline T reduce(T v, const char* what) {
  return emu_unpack<T>(emu_reduce(emu_pack(v), fold<T, Op>, what));
}
template <class T>
inline T shuffle(T v, uint32_t source, const char* what) {
  return emu_unpack<T>(emu_shuffle(emu_pack(v), source, what));
}
inline uint32_t lane() { return emu_thread_index() % 32; }

}  // namespace emu
