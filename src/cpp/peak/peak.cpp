#include "peak/peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "conv/conv.h"
#include "core/pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

namespace rvc_fast {
namespace {

constexpr int kRounds = 5;
constexpr int64_t kIterations = 1000000;
constexpr size_t kPage = 4096;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Independent chains of `step` hide its latency; the empty asm keeps their sums from being left out.
#define RVC_INT8_LOOP(name, features, chains, Numbers, Sums, splat, step, registers) \
  __attribute__((target(features))) double name(int64_t iterations) {                \
    const Numbers one = splat(1);                                                    \
    Sums a[chains] = {};                                                             \
    for (int64_t k = 0; k < iterations; ++k) {                                       \
      _Pragma("GCC unroll 16") for (int i = 0; i < chains; ++i) {                    \
        a[i] = step(a[i], one, one);                                                 \
        asm volatile("" : "+" registers(a[i]));                                      \
      }                                                                              \
    }                                                                                \
    return 2.0 * sizeof one * chains * static_cast<double>(iterations);              \
  }

#if defined(__x86_64__)

RVC_INT8_LOOP(int8_avx512, "avx512f,avx512bw,avx512vl,avx512vnni", 16, __m512i, __m512i, _mm512_set1_epi8,
              _mm512_dpbusd_epi32, "v")
RVC_INT8_LOOP(int8_avx, "avx2,avxvnni", 12, __m256i, __m256i, _mm256_set1_epi8, _mm256_dpbusd_avx_epi32, "x")

#if defined(__linux__)

bool have_int8_tiles() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM: tiles must be asked for
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

// Every tile is 16 rows of 64 bytes. A constant, as the intrinsics do not tell that they read memory.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kTileConfig;

__attribute__((target("amx-tile,amx-int8"))) double int8_tiles(int64_t iterations) {
  _tile_loadconfig(&kTileConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t k = 0; k < iterations / 4; ++k) {
    _tile_dpbssd(0, 4, 5);
    _tile_dpbssd(1, 4, 5);
    _tile_dpbssd(2, 4, 5);
    _tile_dpbssd(3, 4, 5);
  }
  _tile_release();
  return 2.0 * 16 * 16 * 64 * 4 * static_cast<double>(iterations / 4);
}

#endif

#elif defined(__aarch64__)

RVC_INT8_LOOP(int8_dot, "arch=armv8.2-a+dotprod", 16, int8x16_t, int32x4_t, vdupq_n_s8, vdotq_s32, "w")

bool have_dot() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;  // every Apple chip that MLX runs on
#endif
}

#endif

using Int8Loop = double (*)(int64_t);

Int8Loop int8_loop() {
#if defined(__x86_64__)
#if defined(__linux__)
  if (have_int8_tiles()) return int8_tiles;
#endif
  if (__builtin_cpu_supports("avx512vnni")) return int8_avx512;
  if (__builtin_cpu_supports("avxvnni")) return int8_avx;
#elif defined(__aarch64__)
  if (have_dot()) return int8_dot;
#endif
  return nullptr;
}

// Eight sums of lines of 64 bytes.
uint64_t sum(const uint64_t* x, size_t words) {
  uint64_t part[8] = {};
  for (size_t i = 0; i + 8 <= words; i += 8) {
    for (int j = 0; j < 8; ++j) part[j] += x[i + j];
  }
  uint64_t total = 0;
  for (uint64_t p : part) total += p;
  return total;
}

// Operations a second of all threads together, each in `loop`, which returns how many it has done.
template <class Loop>
double best_rate(Loop loop) {
  double best = 0;
  const int64_t n = threads();
  for (int round = 0; round < kRounds; ++round) {
    std::vector<double> done(n);
    const auto start = Clock::now();
    parallel_for(n, [&](int64_t i) { done[i] = loop(kIterations); });
    double total = 0;
    for (double d : done) total += d;
    best = std::max(best, total / seconds_since(start));
  }
  return best;
}

}  // namespace

double fma_peak(const std::string& dtype) {
  const Format format = parse_format("fma_peak", dtype);
  require_format("fma_peak", format);
  return best_rate(kernels(format)->peak);
}

double int8_peak() {
  const Int8Loop loop = int8_loop();
  return loop ? best_rate(loop) : 0;
}

double memory_peak(const std::string& kind, size_t bytes) {
  const bool copy = kind == "copy";
  if (!copy && kind != "read") {
    throw std::invalid_argument("[memory_peak] kind must be read or copy, got \"" + kind + "\"");
  }
  const int64_t n = threads();
  const size_t share = bytes / n / (2 * kPage) * (2 * kPage);
  if (share == 0) throw std::invalid_argument("[memory_peak] bytes must be at least two pages per thread");
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory(std::aligned_alloc(kPage, share * n));
  if (!memory) throw std::bad_alloc();
  auto* base = static_cast<char*>(memory.get());
  std::vector<uint64_t> sums(n);
  double best = 0;
  for (int round = 0; round <= kRounds; ++round) {  // the first one only touches the pages
    const auto start = Clock::now();
    parallel_for(n, [&](int64_t i) {
      char* mine = base + i * share;
      if (round == 0) {
        std::memset(mine, 1, share);
      } else if (copy) {
        std::memcpy(mine, mine + share / 2, share / 2);
      } else {
        sums[i] += sum(reinterpret_cast<const uint64_t*>(mine), share / sizeof(uint64_t));
      }
    });
    const double seconds = seconds_since(start);
    if (round > 0) best = std::max(best, static_cast<double>(share * n) / seconds);
  }
  volatile uint64_t sink = 0;
  for (uint64_t s : sums) sink = sink + s;
  return best;
}

}  // namespace rvc_fast
