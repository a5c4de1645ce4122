// A small thread pool: dynamic sharing of numbered work items, the caller takes part, nested and concurrent
// calls are fine. Threads start at the first parallel call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace rvc_fast {

// Cores this process may use: the smaller of its affinity mask and its cgroup's CPU quota.
int usable_cores();

// Sets the number of threads that share a parallel_for, the caller included; 0 means usable_cores().
void set_threads(int threads);
int threads();

using Task = void (*)(void* context, int64_t index);

// Runs task(context, i) for every i in [0, n), in any order; returns when all are done. Tasks must not throw.
void parallel_for(int64_t n, Task task, void* context);

template <class F>
void parallel_for(int64_t n, F&& f) {
  using Callable = std::remove_reference_t<F>;
  parallel_for(
      n, [](void* context, int64_t index) { (*static_cast<Callable*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// This thread's scratch memory, 64-byte aligned, at least `floats` long; contents are lost when it grows.
// Slots are independent, so that nested users need not know each other.
enum class Slot { stage, partial, resblock, count };
float* scratch(Slot slot, size_t floats);

}  // namespace rvc_fast
