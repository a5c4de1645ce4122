// What compiled kernel text calls: the threads, barriers, group storage and simd operations of the emulator.
// No header but these two: the shims must not pull the standard library into each kernel.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {

struct EmuVec3 {
  uint32_t x, y, z;
};

// A value of at most 16 bytes on its way between the lanes of a simdgroup.
struct EmuBits {
  uint64_t low, high;
};

struct EmuPair {
  float x, y;
};

enum { EMU_NO_MEMORY = 0, EMU_DEVICE_MEMORY = 1, EMU_GROUP_MEMORY = 2 };
enum { EMU_NO_LANE = 0xFFFFFFFFu };

// Constant for each thread: a fiber never changes its place.
__attribute__((const)) EmuVec3 emu_thread_in_group();
__attribute__((const)) EmuVec3 emu_group_in_grid();
__attribute__((const)) EmuVec3 emu_threads_per_group();  // of this group: an edge group may be smaller
__attribute__((const)) EmuVec3 emu_threads_per_full_group();
__attribute__((const)) EmuVec3 emu_groups_per_grid();
__attribute__((const)) EmuVec3 emu_threads_per_grid();
__attribute__((const)) uint32_t emu_thread_index();  // linear, in its group

// All threads of the group (simdgroup) must arrive; `memory` says which accesses are ordered by it.
void emu_group_barrier(unsigned memory, const char* what);
void emu_simd_barrier(unsigned memory, const char* what);

// The group's storage for one declaration, the same for all its threads.
void* emu_group_storage(int declaration, size_t size, size_t align, const char* name);

// Each returns when all lanes of the simdgroup have called it. A source that no lane has gives all ones.
EmuBits emu_shuffle(EmuBits mine, uint32_t source, const char* what);
typedef EmuBits (*EmuFold)(EmuBits, EmuBits);
EmuBits emu_reduce(EmuBits mine, EmuFold fold, const char* what);
EmuBits emu_scan(EmuBits mine, EmuFold fold, bool inclusive, EmuBits identity, const char* what);
uint32_t emu_lanes();  // of this simdgroup

// d = a b + c of 8 x 8 matrices, two elements a lane in Apple's layout.
EmuPair emu_matmul8(EmuPair a, EmuPair b, EmuPair c);
// c += a b, element i of a lane with n elements being number lane * n + i of the row-major matrix.
void emu_matmul(int m, int n, int k, const float* a, const float* b, float* c);
// The same, each element being at a given place of its row-major matrix.
void emu_matmul_at(int m, int n, int k, const float* a, const int* at_a, const float* b, const int* at_b,
                   float* c, const int* at_c);

// Declares an atomic access of `size` bytes, which races with plain accesses only.
void emu_atomic(const volatile void* address, size_t size);

// The text did what the shims cannot execute, or the language forbids.
void emu_refuse(const char* what);

}  // extern "C"

template <class T>
inline EmuBits emu_pack(T v) {
  static_assert(sizeof(T) <= 16, "too wide for a simd operation");
  EmuBits bits = {0, 0};
  __builtin_memcpy(&bits, &v, sizeof(T));
  return bits;
}

template <class T>
inline T emu_unpack(EmuBits bits) {
  T v;
  __builtin_memcpy(&v, &bits, sizeof(T));
  return v;
}

// What a declaration of group storage becomes, for its type and its place in the text.
template <class T, int Declaration, size_t Align>
inline T& emu_storage(const char* name) {
  return *static_cast<T*>(
      emu_group_storage(Declaration, sizeof(T), alignof(T) < Align ? Align : alignof(T), name));
}
