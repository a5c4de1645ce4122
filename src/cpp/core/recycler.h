// Memory of results, kept when the last array on it is gone, for the next result of about the same size.
//
// Fresh memory costs a page fault for every 4 KB, and what is given back to the system comes again as fresh:
// at 10 s of sound that was a fifth of a decoder's time. What is in use and what is kept are together never
// more than was in use at once before, so that the process becomes no larger by it.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>

#include "mlx/allocator.h"

namespace rvc_fast {

class Recycler {
 public:
  // One for the process, never destroyed.
  static Recycler& shared();

  // Memory of MLX's for at least so many bytes. Throws std::bad_alloc.
  mlx::core::allocator::Data take(size_t bytes);

  // Gives back to the system what is kept.
  void release();

  // Bytes that are kept now.
  size_t kept() const;

 private:
  void give_back(mlx::core::allocator::Buffer buffer, size_t bytes);
  void free_largest();

  mutable std::mutex mutex_;
  std::multimap<size_t, void*> free_;  // by size
  size_t used_ = 0, kept_ = 0, most_used_ = 0;
};

// Memory of MLX's that is not kept. Throws std::bad_alloc.
mlx::core::allocator::Data take_memory(size_t bytes);

}  // namespace rvc_fast
