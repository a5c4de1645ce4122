// The thread pool under load: every index once, nested and concurrent calls, resizing, a forked child. Exits
// 0 if all is well; test_pool.py runs it under ThreadSanitizer too.
#include "core/pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

using namespace rvc_fast;

static void expect(bool ok, const char* what) {
  if (!ok) {
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
  }
}

static void every_index_once(int64_t n) {
  std::vector<std::atomic<int>> seen(n);
  parallel_for(n, [&](int64_t i) { seen[i].fetch_add(1); });
  for (auto& count : seen) expect(count.load() == 1, "an index ran once");
}

static void nested() {
  std::atomic<int> runs{0};
  parallel_for(5, [&](int64_t) {
    parallel_for(7, [&](int64_t) { parallel_for(3, [&](int64_t) { runs.fetch_add(1); }); });
  });
  expect(runs.load() == 5 * 7 * 3, "nested calls");
}

// Plain memory written by the tasks has to be visible to the caller afterwards.
static void results_are_visible() {
  std::vector<int> y(1000);
  parallel_for(1000, [&](int64_t i) { y[i] = static_cast<int>(i); });
  for (int i = 0; i < 1000; ++i) expect(y[i] == i, "results are visible");
}

static void scratch_is_private() {
  std::atomic<bool> ok{true};
  parallel_for(64, [&](int64_t i) {
    float* a = scratch(Slot::stage, 100 + i * 37);
    float* b = scratch(Slot::partial, 50);
    if (reinterpret_cast<uintptr_t>(a) % 64 != 0 || a == b) ok = false;
    for (int64_t k = 0; k < 100 + i * 37; ++k) a[k] = static_cast<float>(i);
    for (int64_t k = 0; k < 100 + i * 37; ++k) ok = ok && a[k] == static_cast<float>(i);
  });
  expect(ok.load(), "scratch memory is a thread's own, aligned");
}

int main(int argc, char**) {
  expect(usable_cores() >= 1, "at least one core");
  for (int n : {1, 2, 3, 8, 2}) {
    set_threads(n);
    expect(threads() == n, "threads are as set");
    for (int64_t items : {0, 1, 2, 7, 1000}) every_index_once(items);
    nested();
    results_are_visible();
    scratch_is_private();
  }
  set_threads(4);
  std::vector<std::thread> callers;
  for (int t = 0; t < 6; ++t) {
    callers.emplace_back([] {
      for (int i = 0; i < 50; ++i) {
        every_index_once(33);
        nested();
      }
    });
  }
  for (auto& t : callers) t.join();

  if (argc == 1) {  // ThreadSanitizer does not follow a fork
    pid_t child = fork();
    if (child == 0) {
      every_index_once(100);
      _exit(0);
    }
    int status = -1;
    expect(waitpid(child, &status, 0) == child && status == 0, "a forked child computes");
  }
  set_threads(0);
  expect(threads() == usable_cores(), "0 is all usable cores");
  return 0;
}
