#include "core/ahead.h"

#include <condition_variable>
#include <limits>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "mlx/memory.h"

namespace rvc_fast {
namespace {

constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

thread_local size_t t_limit = kNoLimit;

struct Counts {
  std::mutex mutex;
  std::condition_variable ended;
  std::unordered_map<int64_t, int> works;  // by stream; none of them is 0
};

// Never destroyed: a stream's thread may outlast the statics.
Counts& counts() {
  static auto* all = new Counts;
  return *all;
}

class Counted {
 public:
  explicit Counted(int64_t stream) : stream_(stream) {
    std::lock_guard lock(counts().mutex);
    ++counts().works[stream];
  }
  Counted(const Counted&) = delete;
  ~Counted() {
    {
      std::lock_guard lock(counts().mutex);
      auto found = counts().works.find(stream_);
      if (--found->second == 0) counts().works.erase(found);
    }
    counts().ended.notify_all();
  }

 private:
  int64_t stream_;
};

}  // namespace

size_t set_ahead_limit(size_t bytes) { return std::exchange(t_limit, bytes); }

std::shared_ptr<void> begin_work(int64_t stream) {
  if (t_limit == kNoLimit) return nullptr;
  return std::make_shared<Counted>(stream);
}

void wait_above_limit(int64_t stream) {
  if (mlx::core::get_active_memory() <= t_limit) return;
  std::unique_lock lock(counts().mutex);
  counts().ended.wait(lock, [stream] {
    auto found = counts().works.find(stream);
    return found == counts().works.end() || found->second <= 1;
  });
}

}  // namespace rvc_fast
