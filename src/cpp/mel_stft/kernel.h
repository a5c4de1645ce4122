// What the kernels of mel_stft take.
#pragma once

#include <stdint.h>

namespace rvc_fast {

// `frames` frames of a log mel spectrogram, at most `lanes` of them: each is one lane of the vectors. The
// transform has `points` complex points, the product of `factors`: n_fft / 2, or n_fft if that is odd.
struct MelFrames {
  const float* x;  // the first frame's
  int64_t frames, hop;
  const float* window;  // (n_fft)
  int64_t n_fft, points;
  const int32_t* factors;
  int32_t passes;
  const float* roots;    // cos and sin of -2 pi k / n_fft, k < n_fft
  const float* filters;  // (mels, n_fft / 2 + 1)
  const int32_t* bands;  // (mels, 2): where a filter's values other than zero begin and end
  int64_t mels;
  float floor;
  float* y;  // (frames, mels)
  float* scratch;
};

}  // namespace rvc_fast
