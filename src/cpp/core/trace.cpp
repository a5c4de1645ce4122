#include "core/trace.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>

namespace rvc_fast {
namespace {

std::atomic<bool> g_tracing{false};
std::mutex g_mutex;
std::vector<OpTrace> g_ops;

// Of the op that runs on this thread. Null if none does, and while an item runs.
thread_local Jobs* t_jobs = nullptr;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

bool tracing() { return g_tracing.load(std::memory_order_relaxed); }

void start_trace() {
  std::lock_guard lock(g_mutex);
  g_ops.clear();
  g_tracing = true;
}

std::vector<OpTrace> end_trace() {
  std::lock_guard lock(g_mutex);
  g_tracing = false;
  return std::exchange(g_ops, {});
}

TracedOp::TracedOp(std::string op) : op_(std::move(op)) {
  if (op_.empty()) return;
  t_jobs = &jobs_;
  start_ = now();
}

TracedOp::~TracedOp() {
  if (op_.empty()) return;
  const double seconds = now() - start_;
  t_jobs = nullptr;
  std::lock_guard lock(g_mutex);
  if (g_tracing) g_ops.push_back({std::move(op_), seconds, std::move(jobs_)});
}

void run_traced(int64_t n, Task task, void* context) {
  Jobs* const jobs = std::exchange(t_jobs, nullptr);
  std::vector<double> items(jobs ? n : 0);
  for (int64_t i = 0; i < n; ++i) {
    const double start = now();
    task(context, i, 0);
    if (jobs) items[i] = now() - start;
  }
  if (jobs) jobs->push_back(std::move(items));
  t_jobs = jobs;
}

}  // namespace rvc_fast
