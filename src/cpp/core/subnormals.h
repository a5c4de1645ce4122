// Arithmetic with numbers below 2^-126 is many times slower on some CPUs: while a `FlushToZero` lives, its
// thread reads and writes them as zeros.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rvc_fast {

class FlushToZero {
 public:
  FlushToZero() : before_(mode()) { set(before_ | kFlush); }
  ~FlushToZero() { set(before_); }
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kFlush = 0x8040;  // MXCSR: results (FTZ) and operands (DAZ)
  static uint64_t mode() { return _mm_getcsr(); }
  static void set(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = 1 << 24;  // FPCR.FZ: both
  static uint64_t mode() {
    uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#else
  static constexpr uint64_t kFlush = 0;
  static uint64_t mode() { return 0; }
  static void set(uint64_t) {}
#endif

  uint64_t before_;
};

}  // namespace rvc_fast
