// What parallel work consists of: the times of its items, from which benchmarks/scaling.py computes a
// schedule on more threads than the machine has. While a trace is taken all items run on the thread that
// calls.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/pool.h"

namespace rvc_fast {

struct OpTrace {
  std::string op;
  double seconds;                         // of all of it
  std::vector<std::vector<double>> jobs;  // of each parallel_for, the seconds of its items
};

// Begins a trace, whatever an earlier one found is forgotten; or ends it and returns what was found.
void start_trace();
std::vector<OpTrace> end_trace();

// Whether a trace is taken.
bool tracing();

// The time of one op on this thread; without a name it is not noted.
class TracedOp {
 public:
  explicit TracedOp(const std::string& op);
  ~TracedOp();
  TracedOp(const TracedOp&) = delete;
  TracedOp& operator=(const TracedOp&) = delete;

 private:
  const std::string& op_;
  double start_ = 0;
};

// Runs a job's items here, one after the other, and notes the time of each. Items' own jobs are parts of
// them.
void run_traced(int64_t n, Task task, void* context);

}  // namespace rvc_fast
