#include "core/pool.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/integers.h"
#include "core/subnormals.h"
#include "core/trace.h"

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
  int participants;  // only threads of the pool with a lower number may take part
  int helpers_wanted;
  Job* next_job = nullptr;
  std::atomic<int64_t> next{0};
  std::atomic<int> helpers{0};

  bool has_work() const { return next.load(std::memory_order_relaxed) < n; }

  void run(int participant) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(context, i, participant);
  }
};

constexpr size_t kLine = 64 / sizeof(float);

// More than was asked for, since the next op often needs a little more.
size_t grown(size_t floats) { return round_up(floats + floats / 4, 1024); }

std::shared_ptr<void> allocate_plainly(size_t bytes) {
  return {::operator new(bytes), [](void* p) { ::operator delete(p); }};
}

std::atomic<Allocate> g_allocate{allocate_plainly};

}  // namespace

struct Scratch::Block {
  size_t floats, pitch;  // in all, and from one thread's part to the next one's
  std::shared_ptr<void> memory;
  float* data;

  Block(size_t floats, size_t pitch)
      : floats(floats), pitch(pitch), memory(g_allocate.load()(floats * sizeof(float) + 64)) {
    const auto address = reinterpret_cast<uintptr_t>(memory.get());
    data = reinterpret_cast<float*>((address + 63) / 64 * 64);
  }
  Block(const Block&) = delete;
#ifdef __SANITIZE_ADDRESS__
  ~Block() { ASAN_UNPOISON_MEMORY_REGION(data, floats * sizeof(float)); }
#endif
};

namespace {

// The first `used` of a part's floats are to be touched, the others not.
float* part(float* data, [[maybe_unused]] size_t used, [[maybe_unused]] size_t size) {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(data, used * sizeof(float));
  ASAN_POISON_MEMORY_REGION(data + used, (size - used) * sizeof(float));
#endif
  return data;
}

}  // namespace

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

  void run(int64_t n, int participants, Task task, void* context) {
    if (tracing()) return run_traced(n, task, context);
    int64_t helpers = std::min<int64_t>(std::min(threads(), participants) - 1, n - 1);
    if (helpers <= 0) {
      for (int64_t i = 0; i < n; ++i) task(context, i, 0);
      return;
    }
    Job job{task, context, n, participants, static_cast<int>(helpers)};
    bool all_may;
    {
      std::lock_guard lock(mutex_);
      start(helpers);
      Job** last = &jobs_;
      while (*last) last = &(*last)->next_job;
      *last = &job;
      open_.fetch_add(1);
      all_may = workers_ < participants;
    }
    if (helpers == 1 && all_may) {
      wake_.notify_one();
    } else {
      wake_.notify_all();
    }
    job.run(0);
    {
      std::lock_guard lock(mutex_);
      Job** at = &jobs_;
      while (*at != &job) at = &(*at)->next_job;
      *at = job.next_job;
      open_.fetch_sub(1);
    }
    // No helper can join any more: the job lives on this stack, so wait for those inside.
    auto idle = [&job] { return job.helpers.load(std::memory_order_acquire) == 0; };
    if (spin(idle)) return;
    std::unique_lock lock(mutex_);
    left_.wait(lock, idle);
  }

  Scratch reserve(int64_t stream, size_t shared, size_t each) {
    Scratch scratch;
    scratch.participants_ = threads();
    scratch.shared_ = round_up(shared, kLine);
    scratch.each_ = each;
    std::lock_guard lock(memory_);
    if (scratch.shared_ + each > 0) scratch.own_ = own(stream, scratch.shared_ + each);
    if (each > 0 && scratch.participants_ > 1) scratch.helpers_ = helpers(each, scratch.participants_ - 1);
    return scratch;
  }

  void release() {
    std::array<std::unique_ptr<Scratch::Block>, kKept> kept;
    std::shared_ptr<Scratch::Block> helpers;
    std::lock_guard lock(memory_);
    kept.swap(kept_);
    helpers.swap(helpers_);
  }

  void keep(std::unique_ptr<Scratch::Block> block) {
    std::lock_guard lock(memory_);
    for (auto& kept : kept_) {
      if (!kept || kept->floats < block->floats) kept.swap(block);
      if (!block) return;
    }
  }

 private:
  // Blocks of streams that have nothing to do, for the next ones.
  static constexpr int kKept = 4;

  // Where the system has no thread or no memory for one more, there are fewer.
  void start(int64_t wanted) {
    try {
      while (workers_ < wanted) {
        std::thread([this, number = workers_ + 1] { work(number); }).detach();
        ++workers_;
      }
    } catch (const std::exception&) {
    }
  }

  Job* take(int number) {
    for (Job* job = jobs_; job; job = job->next_job) {
      if (number < job->participants && job->has_work() &&
          job->helpers.load(std::memory_order_relaxed) < job->helpers_wanted)
        return job;
    }
    return nullptr;
  }

  void work(int number) {
    FlushToZero mode;
    for (;;) {
      Job* job = nullptr;
      spin([this] { return open_.load(std::memory_order_relaxed) > 0; });
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return (job = take(number)) != nullptr; });
        job->helpers.fetch_add(1, std::memory_order_relaxed);
      }
      job->run(number);
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

  std::shared_ptr<Scratch::Block> own(int64_t stream, size_t floats);

  std::shared_ptr<Scratch::Block> helpers(size_t each, size_t count) {
    if (!helpers_ || helpers_->pitch < each || helpers_->floats < helpers_->pitch * count) {
      const size_t pitch = std::max(grown(each), helpers_ ? helpers_->pitch : 0);
      helpers_.reset();
      helpers_ = std::make_shared<Scratch::Block>(pitch * count, pitch);
    }
    return helpers_;
  }

  std::mutex mutex_;
  std::condition_variable wake_, left_;
  Job* jobs_ = nullptr;
  std::atomic<int> open_{0};
  std::atomic<int> threads_{0};
  int workers_ = 0;

  std::recursive_mutex memory_;  // a block may be given back while another one is taken
  std::shared_ptr<Scratch::Block> helpers_;
  std::array<std::unique_ptr<Scratch::Block>, kKept> kept_;
  std::vector<std::pair<int64_t, std::weak_ptr<Scratch::Block>>> in_use_;  // by stream
};

namespace {

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

}  // namespace

std::shared_ptr<Scratch::Block> Pool::own(int64_t stream, size_t floats) {
  std::erase_if(in_use_, [](auto& entry) { return entry.second.expired(); });
  const auto at = std::find_if(in_use_.begin(), in_use_.end(), [&](auto& e) { return e.first == stream; });
  if (at != in_use_.end()) {
    auto block = at->second.lock();
    if (block && block->floats >= floats) return block;
  }
  std::unique_ptr<Scratch::Block> block;
  for (auto& kept : kept_) {
    if (kept && kept->floats >= floats && (!block || kept->floats < block->floats)) block.swap(kept);
  }
  if (!block) block = std::make_unique<Scratch::Block>(grown(floats), 0);
  auto give_back = [](Scratch::Block* b) { pool().keep(std::unique_ptr<Scratch::Block>(b)); };
  std::shared_ptr<Scratch::Block> shared(block.release(), give_back);
  if (at != in_use_.end()) {
    at->second = shared;
  } else {
    in_use_.emplace_back(stream, shared);
  }
  return shared;
}

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

void parallel_for(int64_t n, int participants, Task task, void* context) {
  pool().run(n, participants, task, context);
}

Scratch reserve(int64_t stream, size_t shared, size_t each) { return pool().reserve(stream, shared, each); }

void release_scratch() { pool().release(); }

void set_allocator(Allocate allocate) { g_allocate.store(allocate); }

Work in_order(Work first, Work second) {
  const size_t shared = std::max(first.shared, second.shared), each = std::max(first.each, second.each);
  return {shared, each, [a = std::move(first.run), b = std::move(second.run)](const Scratch& scratch) {
            a(scratch);
            b(scratch);
          }};
}

float* Scratch::shared() const { return part(own_->data, shared_, shared_); }

float* Scratch::of(int participant) const {
  if (each_ == 0) return nullptr;
  if (participant == 0) return part(own_->data + shared_, each_, own_->floats - shared_);
  return part(helpers_->data + (participant - 1) * helpers_->pitch, each_, helpers_->pitch);
}

}  // namespace rvc_fast
