// What the kernels of bigru take.
#pragma once

#include <stdint.h>

namespace rvc_fast {

// One direction of a GRU over projected gates (steps, 3 hidden), from the state `before`; y (steps, hidden).
// Backward begins at the last step. packed holds gru_packed_floats(hidden), scratch
// gru_scratch_floats(hidden).
struct GruScan {
  const float* gates;
  int64_t steps, hidden;
  bool backward;
  const float* packed;
  const float* before;
  float* y;
  float* scratch;
};

}  // namespace rvc_fast
