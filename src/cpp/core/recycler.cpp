#include "core/recycler.h"

#include <algorithm>
#include <new>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace rvc_fast {

using mlx::core::allocator::Buffer;
using mlx::core::allocator::Data;

namespace {

// What is smaller is kept by the C library itself.
constexpr size_t kLeast = 1 << 20;

}  // namespace

Data take_memory(size_t bytes) {
  auto data = mlx::core::allocator::malloc(bytes);
  if (data.buffer().ptr() == nullptr) throw std::bad_alloc();  // what a machine without a GPU has
  return data;
}

Recycler& Recycler::shared() {
  static Recycler* recycler = [] {
    auto* made = new Recycler;
#ifndef _WIN32
    // A child has no thread that could hold the lock.
    static Recycler* forked;
    forked = made;
    pthread_atfork([] { forked->mutex_.lock(); }, [] { forked->mutex_.unlock(); },
                   [] { forked->mutex_.unlock(); });
#endif
    return made;
  }();
  return *recycler;
}

Data Recycler::take(size_t bytes) {
  if (bytes < kLeast) return take_memory(bytes);
  std::unique_lock lock(mutex_);
  Buffer buffer(nullptr);
  if (auto found = free_.lower_bound(bytes); found != free_.end() && found->first <= bytes + bytes / 4) {
    bytes = found->first;
    buffer = Buffer(found->second);
    kept_ -= bytes;
    free_.erase(found);
  } else {
    while (kept_ > 0 && used_ + kept_ + bytes > most_used_) free_largest();
    buffer = Buffer(mlx::core::allocator::allocator().malloc(bytes).ptr());
    while (buffer.ptr() == nullptr && kept_ > 0) {
      free_largest();
      buffer = Buffer(mlx::core::allocator::allocator().malloc(bytes).ptr());
    }
    if (buffer.ptr() == nullptr) throw std::bad_alloc();
  }
  used_ += bytes;
  most_used_ = std::max(most_used_, used_);
  return {buffer, [this, bytes](Buffer buffer) { give_back(buffer, bytes); }};
}

void Recycler::give_back(Buffer buffer, size_t bytes) {
  std::lock_guard lock(mutex_);
  used_ -= bytes;
  kept_ += bytes;
  free_.emplace(bytes, buffer.ptr());
}

void Recycler::free_largest() {
  auto last = std::prev(free_.end());
  kept_ -= last->first;
  mlx::core::allocator::allocator().free(Buffer(last->second));
  free_.erase(last);
}

void Recycler::release() {
  std::lock_guard lock(mutex_);
  while (kept_ > 0) free_largest();
  most_used_ = used_;
}

size_t Recycler::kept() const {
  std::lock_guard lock(mutex_);
  return kept_;
}

}  // namespace rvc_fast
