// What the kernels of nsf_source take.
#pragma once

#include <stdint.h>

namespace rvc_fast {

// Frames of an excitation. f0 and start begin at the first of them; `first` and `last` say whether it has a
// neighbour, which f0[-1] and f0[frames] then are.
struct NsfFrames {
  const float* f0;
  int64_t frames, hop, harmonics;
  bool first, last;
  float sample_rate;
  bool linear;          // else each frame's f0 is held
  bool by_frame;        // what is rounded: the advance of a frame, or the frequency of a sample
  const double* start;  // (harmonics, frames) cycles before the frame, a harmonic `start_row` after the other
  int64_t start_row;
  const float* noise;   // (frames * hop, harmonics)
  const float* weight;  // (harmonics)
  float bias;
  float* y;        // (frames * hop)
  float* scratch;  // 3 * (hop + 16)
};

}  // namespace rvc_fast
