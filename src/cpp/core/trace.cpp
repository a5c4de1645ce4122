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

// Of the op that runs on this thread, and whether one of its items does.
thread_local std::vector<std::vector<double>> t_jobs;
thread_local bool t_inside = false;

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

TracedOp::TracedOp(const std::string& op) : op_(op) {
  if (op_.empty()) return;
  t_jobs.clear();
  start_ = now();
}

TracedOp::~TracedOp() {
  if (op_.empty()) return;
  const double seconds = now() - start_;
  std::lock_guard lock(g_mutex);
  g_ops.push_back({op_, seconds, std::exchange(t_jobs, {})});
}

void run_traced(int64_t n, Task task, void* context) {
  if (t_inside) {
    for (int64_t i = 0; i < n; ++i) task(context, i, 0);
    return;
  }
  t_inside = true;
  std::vector<double> items(n);
  for (int64_t i = 0; i < n; ++i) {
    const double start = now();
    task(context, i, 0);
    items[i] = now() - start;
  }
  t_inside = false;
  t_jobs.push_back(std::move(items));
}

}  // namespace rvc_fast
