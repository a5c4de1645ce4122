// A small thread pool: dynamic sharing of numbered work items, the caller takes part, nested and concurrent
// calls are fine. Threads start at the first parallel call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <type_traits>

namespace rvc_fast {

// Cores this process may use: the smaller of its affinity mask and its cgroup's CPU quota.
int usable_cores();

// Sets the number of threads that share a parallel_for, the caller included; 0 means usable_cores().
void set_threads(int threads);
int threads();

using Task = void (*)(void* context, int64_t index, int participant) noexcept;

// Memory that work is done in, taken before the work begins: nothing is allocated and nothing throws inside a
// parallel_for. Parts begin at multiples of 64 bytes; what they hold at first is anything.
//
// The part of the calling thread belongs to its stream, whose work runs one after the other, and goes back to
// the process when all of that is done. The parts of the pool's threads belong to the process. So as much is
// kept as the threads that work at the same time need, however many streams and threads come and go.
class Scratch {
 public:
  // The part that all threads share.
  float* shared() const;
  // The part of one of `participants()` threads: 0 is the calling one. Null where they have none.
  float* of(int participant) const;
  int participants() const { return participants_; }

 private:
  friend class Pool;
  struct Block;
  std::shared_ptr<Block> own_, helpers_;
  size_t shared_ = 0, each_ = 0;
  int participants_ = 1;
};

// Memory for work of a stream: `shared` floats for all threads and `each` for every one of threads(). Throws
// std::bad_alloc.
Scratch reserve(int64_t stream, size_t shared, size_t each);

// Gives back what no work needs now.
void release_scratch();

// Returns memory that its last owner frees; throws std::bad_alloc. Called by `reserve` alone.
using Allocate = std::shared_ptr<void> (*)(size_t bytes);
void set_allocator(Allocate allocate);

// Work with the memory that it needs.
struct Work {
  size_t shared = 0, each = 0;  // as of `reserve`
  std::function<void(const Scratch&)> run;
};

// Both, one after the other, in the same memory.
Work in_order(Work first, Work second);

// Runs task(context, i, participant) for every i in [0, n), in any order, on at most `participants` threads;
// returns when all are done.
void parallel_for(int64_t n, int participants, Task task, void* context);

// Calls f(i).
template <class F>
void parallel_for(int64_t n, F&& f) {
  using Callable = std::remove_reference_t<F>;
  parallel_for(
      n, std::numeric_limits<int>::max(),
      [](void* context, int64_t index, int) noexcept { (*static_cast<Callable*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// Calls f(i, memory) with the part of the thread that it runs on.
template <class F>
void parallel_for(int64_t n, const Scratch& scratch, F&& f) {
  struct Context {
    const Scratch& scratch;
    std::remove_reference_t<F>& f;
  } context{scratch, f};
  parallel_for(
      n, scratch.participants(),
      [](void* context, int64_t index, int participant) noexcept {
        auto* c = static_cast<Context*>(context);
        c->f(index, c->scratch.of(participant));
      },
      &context);
}

}  // namespace rvc_fast
