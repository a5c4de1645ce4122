// The thread pool, the choice of the instruction set, and the measure of its peak.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "check.h"
#include "core/pool.h"

namespace rvc_fast::test {
namespace {

// Each index once, from several callers at a time, each of which calls again from inside.
void pool(const Kernels&) {
  check(usable_cores() >= 1, "usable cores");
  for (int wanted : {1, 2, 3, 7}) {
    set_threads(wanted);
    check(threads() == wanted, "threads");
    for (int64_t n : {0, 1, 2, 3, 100}) {
      std::vector<int> seen(n);  // not atomic: every index is one thread's
      parallel_for(n, [&](int64_t i) { ++seen[i]; });
      check(seen == std::vector<int>(n, 1), text("%lld items, %d threads", (long long)n, wanted));
    }
    std::atomic<int64_t> total{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller) {
      callers.emplace_back([&] {
        for (int round = 0; round < 25; ++round) {
          std::vector<int64_t> inner(8);
          parallel_for(8, [&](int64_t i) {
            std::vector<int64_t> values(5);
            parallel_for(5, [&](int64_t j) { values[j] = i * 5 + j; });
            for (int64_t v : values) inner[i] += v;
          });
          for (int64_t v : inner) total += v;
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    check(total == 4 * 25 * (39 * 40 / 2), text("concurrent callers, %d threads", wanted));
  }
  set_threads(0);
  check(threads() == usable_cores(), "0 threads are as many as there are cores");
}

#if !defined(__SANITIZE_THREAD__) && !defined(RVC_FAST_EMULATED)  // neither it nor qemu follows a fork
void forked(const Kernels&) {
  set_threads(3);
  const pid_t child = fork();
  std::atomic<int> done{0};
  parallel_for(100, [&](int64_t) { ++done; });
  if (child == 0) _exit(done == 100 ? 0 : 1);
  int status = -1;
  check(waitpid(child, &status, 0) == child && status == 0, "a forked child computes");
}
Test fork_test("fork", forked);
#endif

void scratch_memory(const Kernels&) {
  float* a = scratch(Slot::stage, 10);
  float* b = scratch(Slot::partial, 100000);
  check(reinterpret_cast<uintptr_t>(a) % 64 == 0 && reinterpret_cast<uintptr_t>(b) % 64 == 0, "alignment");
  a[9] = 1, b[99999] = 2;
  check(scratch(Slot::stage, 10) == a && a[9] == 1, "scratch memory stays where it is");
  float* other = nullptr;
  std::thread([&] { other = scratch(Slot::stage, 10); }).join();
  check(other != a, "each thread has its own");
  set_threads(3);
  std::atomic<bool> own{true};
  parallel_for(64, [&](int64_t item) {
    const int64_t size = 100 + item * 37;
    float* mine = scratch(Slot::stage, size);
    for (int64_t i = 0; i < size; ++i) mine[i] = float(item);
    for (int64_t i = 0; i < size; ++i) own = own && mine[i] == float(item);
  });
  check(own, "each item of a loop has its thread's");
}

void choice(const Kernels& k) {
  check(&kernels() == &k, "the kernels in use");
  const char* name = isa().name;
  check(!set_isa("sse9") && isa().name == name, "an unknown name changes nothing");
  check(set_isa("") && supported(isa()), "the best");
  check(set_isa(name) && isa().name == name && &kernels() == &k, "by name");
  check(kernels(Format::float32)->tile_rows >= 1, "tile");
}

void peak(const Kernels&) {
  for (int i = 0; i < kFormats; ++i) {
    const FormatKernels* k = kernels(static_cast<Format>(i));
    if (!k) continue;
    const double one = k->peak(1);
    check(one > 0 && k->peak(10) == 10 * one,
          text("operations done in %s", format_row(static_cast<Format>(i)).name));
  }
}

Test pool_test("parallel_for", pool), scratch_test("scratch", scratch_memory), choice_test("set_isa", choice),
    peak_test("peak", peak);

}  // namespace
}  // namespace rvc_fast::test
