// How far a thread that evaluates runs ahead of the work on its streams.
//
// MLX begins up to ten operations before the first of them has ended, and holds what all of them read and
// write. Above its memory limit it waits, but while one operation is left it asks again and again whether
// that one has ended, and so takes a core's time from it. Here the thread sleeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace rvc_fast {

// Sets how many bytes of MLX's memory may be in use before this thread waits in `wait_above_limit`, and
// returns what it was: at first as many as there are.
//
// Only for a thread that evaluates nothing on a GPU meanwhile: work that waits for a GPU's, which MLX has not
// handed over yet, would never end.
size_t set_ahead_limit(size_t bytes);

// Counts a piece of work on a stream, which has ended when the last copy of what is returned is gone. Without
// a limit nothing waits for it, so it is not counted, and no lock is taken: null is returned.
std::shared_ptr<void> begin_work(int64_t stream);

// Waits until at most one piece of work is left on the stream, if more memory is in use than this thread may.
void wait_above_limit(int64_t stream);

}  // namespace rvc_fast
