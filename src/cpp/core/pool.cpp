#include "core/pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace rvc_fast {
namespace {

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Long enough to bridge the gap between two kernels of a graph, short enough not to burn a shared core.
constexpr auto kSpin = std::chrono::microseconds(30);

template <class Done>
bool spin(Done done) {
  auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

struct Job {
  Task task;
  void* context;
  int64_t n;
  int helpers_wanted;
  std::atomic<int64_t> next{0};
  std::atomic<int> helpers{0};

  bool has_work() const { return next.load(std::memory_order_relaxed) < n; }

  void run() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(context, i);
  }
};

class Pool {
 public:
  void set_threads(int threads) {
    std::lock_guard lock(mutex_);
    threads_.store(threads > 0 ? threads : usable_cores());
  }

  int threads() {
    int n = threads_.load();
    if (n == 0) {
      set_threads(0);
      n = threads_.load();
    }
    return n;
  }

  void run(int64_t n, Task task, void* context) {
    int64_t helpers = std::min<int64_t>(threads() - 1, n - 1);
    if (helpers <= 0) {
      for (int64_t i = 0; i < n; ++i) task(context, i);
      return;
    }
    Job job{task, context, n, static_cast<int>(helpers)};
    {
      std::lock_guard lock(mutex_);
      while (workers_ < helpers) {
        std::thread([this] { work(); }).detach();
        ++workers_;
      }
      jobs_.push_back(&job);
      open_.fetch_add(1);
    }
    if (helpers == 1) {
      wake_.notify_one();
    } else {
      wake_.notify_all();
    }
    job.run();
    {
      std::lock_guard lock(mutex_);
      jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
      open_.fetch_sub(1);
    }
    // No helper can join any more: the job lives on this stack, so wait for those inside.
    auto idle = [&job] { return job.helpers.load(std::memory_order_acquire) == 0; };
    if (spin(idle)) return;
    std::unique_lock lock(mutex_);
    left_.wait(lock, idle);
  }

 private:
  Job* take() {
    for (Job* job : jobs_) {
      if (job->has_work() && job->helpers.load(std::memory_order_relaxed) < job->helpers_wanted) return job;
    }
    return nullptr;
  }

  void work() {
    for (;;) {
      Job* job = nullptr;
      spin([this] { return open_.load(std::memory_order_relaxed) > 0; });
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return (job = take()) != nullptr; });
        job->helpers.fetch_add(1, std::memory_order_relaxed);
      }
      job->run();
      bool last = false;
      {
        // Under the mutex, so that the job's owner cannot miss it between its check and its wait. The
        // decrement is the last touch of the job.
        std::lock_guard lock(mutex_);
        last = job->helpers.fetch_sub(1, std::memory_order_release) == 1;
      }
      if (last) left_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, left_;
  std::vector<Job*> jobs_;
  std::atomic<int> open_{0};
  std::atomic<int> threads_{0};
  int workers_ = 0;
};

// Never destroyed: threads outlive main. A forked child has no workers, so it gets a new pool.
std::atomic<Pool*> g_pool{nullptr};

Pool& pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    g_pool.store(new Pool);
#ifndef _WIN32
    pthread_atfork(nullptr, nullptr, [] {
      Pool* fresh = new Pool;
      fresh->set_threads(g_pool.load()->threads());
      g_pool.store(fresh);
    });
#endif
  });
  return *g_pool.load();
}

#ifdef __linux__
// Cores granted by a cgroup quota, rounded up, or `fallback` when there is none.
int quota_cores(int fallback) {
  auto read = [](const std::string& path) {
    std::ifstream file(path);
    std::string text;
    std::getline(file, text);
    return text;
  };
  std::vector<std::string> v2{""}, v1{""};
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    size_t a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    std::string controllers(1, ','), path = line.substr(b + 1);
    controllers.append(line, a + 1, b - a - 1).push_back(',');
    if (controllers == ",,") v2.push_back(path);
    if (controllers.find(",cpu,") != std::string::npos) v1.push_back(path);
  }
  double cores = fallback;
  auto limit = [&](double quota, double period) {
    if (quota > 0 && period > 0) cores = std::min(cores, quota / period);
  };
  for (auto& path : v2) {
    std::istringstream text(read("/sys/fs/cgroup" + path + "/cpu.max"));
    double quota = 0, period = 0;
    if (text >> quota >> period) limit(quota, period);
  }
  for (auto& path : v1) {
    std::string base = "/sys/fs/cgroup/cpu" + path + "/cpu.cfs_";
    limit(std::atof(read(base + "quota_us").c_str()), std::atof(read(base + "period_us").c_str()));
  }
  return std::max(1, static_cast<int>(cores + 0.999));
}
#endif

struct Scratch {
  float* data = nullptr;
  size_t size = 0;
  ~Scratch() { ::operator delete[](data, std::align_val_t(64)); }
};

}  // namespace

int usable_cores() {
  int cores = std::max(1u, std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  cores = std::min(cores, quota_cores(cores));
#endif
  return cores;
}

void set_threads(int threads) { pool().set_threads(threads); }

int threads() { return pool().threads(); }

void parallel_for(int64_t n, Task task, void* context) { pool().run(n, task, context); }

float* scratch(Slot slot, size_t floats) {
  thread_local Scratch slots[static_cast<int>(Slot::count)];
  Scratch& s = slots[static_cast<int>(slot)];
  if (s.size < floats) {
    ::operator delete[](s.data, std::align_val_t(64));
    s.data = nullptr;
    s.size = 0;
    size_t grown = (floats + floats / 4 + 1023) / 1024 * 1024;
    s.data = static_cast<float*>(::operator new[](grown * sizeof(float), std::align_val_t(64)));
    s.size = grown;
  }
#ifdef __SANITIZE_ADDRESS__
  // What was not asked for is not to be touched.
  ASAN_UNPOISON_MEMORY_REGION(s.data, floats * sizeof(float));
  ASAN_POISON_MEMORY_REGION(s.data + floats, (s.size - floats) * sizeof(float));
#endif
  return s.data;
}

}  // namespace rvc_fast
