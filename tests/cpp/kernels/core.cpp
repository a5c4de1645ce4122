// The thread pool, the choice of the instruction set, and the measure of its peak.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
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

#ifndef RVC_FAST_NO_FORK
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

bool aligned(const float* p) { return reinterpret_cast<uintptr_t>(p) % 64 == 0; }

void scratch_memory(const Kernels&) {
  for (int wanted : {1, 3}) {
    set_threads(wanted);
    const Scratch a = reserve(0, 10, 100);
    check(a.participants() == wanted, "as many parts as threads");
    check(aligned(a.shared()) && aligned(a.of(0)) && aligned(a.of(wanted - 1)), "alignment");
    check(a.of(0) >= a.shared() + 10, "the shared part is apart");
    check(reserve(0, 0, 50).of(0) == a.shared(), "work of one stream follows on: it has the same memory");
    check(reserve(1, 0, 50).of(0) != a.shared(), "work of another stream is done at the same time");
    set_threads(7);  // those who came later have no part
    std::atomic<bool> own{true};
    parallel_for(64, a, [&](int64_t item, float* mine) {
      for (int i = 0; i < 100; ++i) mine[i] = float(item);
      for (int i = 0; i < 100; ++i) own = own && mine[i] == float(item);
    });
    check(own, "each thread has its own");
  }
}

size_t g_taken = 0, g_most = 0;

std::shared_ptr<void> counted(size_t bytes) {
  if (bytes > 1 << 26) throw std::bad_alloc();
  g_most = std::max(g_most, g_taken += bytes);
  return {std::malloc(bytes), [bytes](void* p) {
            g_taken -= bytes;
            std::free(p);
          }};
}

std::shared_ptr<void> plain(size_t bytes) { return {std::malloc(bytes), std::free}; }

// Threads and streams come and go; what they had is used again.
void scratch_is_kept(const Kernels&) {
  release_scratch();
  set_allocator(counted);
  set_threads(3);
  g_most = g_taken;
  for (int stream = 0; stream < 100; ++stream) {
    std::thread([stream] { reserve(stream, 0, 5000); }).join();
  }
  const size_t one = 5000 * sizeof(float) * 5 / 4 + 8192;
  check(g_taken >= 3 * 5000 * sizeof(float) && g_most <= 3 * one,
        "one stream at a time needs no more than one");
  const Scratch held = reserve(0, 0, 5000);
  reserve(0, 0, 9000);
  check(held.of(2) != reserve(0, 0, 9000).of(2), "who has memory keeps it while others get more");
  bool failed = false;
  try {
    reserve(0, 0, 1 << 25);
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  check(failed, "no memory is an error");
  check(reserve(0, 0, 5000).of(2) != nullptr, "and not the end");
  const size_t before = g_taken;
  release_scratch();
  check(g_taken > 0 && g_taken < before, "what is in use stays");
  set_allocator(plain);
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

Test pool_test("parallel_for", pool), scratch_test("scratch", scratch_memory),
    kept_test("scratch that is kept", scratch_is_kept), choice_test("set_isa", choice),
    peak_test("peak", peak);

}  // namespace
}  // namespace rvc_fast::test
