// What parallel work consists of: the times of its items, from which benchmarks/scaling.py computes a
// schedule on more threads than the machine has. While a trace is taken all items run on the thread that
// calls, and a lack of memory for the times ends the process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/pool.h"

namespace rvc_fast {

using Jobs = std::vector<std::vector<double>>;  // of each parallel_for, the seconds of its items

struct OpTrace {
  std::string op;
  double seconds;  // of all of it
  Jobs jobs;
};

// Begins a trace and forgets what an earlier one found.
void start_trace();
// Ends the trace and returns what it found: the ops that ran to their end.
std::vector<OpTrace> end_trace();

// Whether a trace is taken.
bool tracing();

// The time of one op on this thread; without a name it is not noted.
class TracedOp {
 public:
  explicit TracedOp(std::string op);
  ~TracedOp();
  TracedOp(const TracedOp&) = delete;
  TracedOp& operator=(const TracedOp&) = delete;

 private:
  std::string op_;
  Jobs jobs_;
  double start_ = 0;
};

// Runs a job's items here, one after the other, and notes the time of each if an op runs. The jobs of items
// are parts of them.
void run_traced(int64_t n, Task task, void* context);

}  // namespace rvc_fast
