// The log mel spectrogram's frames.
#include <complex>
#include <numbers>

#include "check.h"

namespace rvc_fast::test {
namespace {

void mel_case(const Kernels& k, int64_t n_fft, int64_t mels, int64_t frames, int64_t hop) {
  std::mt19937_64 random = random_numbers();
  const int64_t bins = n_fft / 2 + 1;
  const std::string what = text("n_fft %lld, %lld mels, %lld frames, hop %lld", (long long)n_fft,
                                (long long)mels, (long long)frames, (long long)hop);
  Floats x((frames - 1) * hop + n_fft, random), window(n_fft, random), roots(2 * n_fft), filters(mels * bins),
      y(frames * mels), scratch(k.mel_scratch_floats(n_fft, mels));
  for (int64_t i = 0; i < n_fft; ++i) {
    const double angle = -2 * std::numbers::pi * double(i) / double(n_fft);
    roots[2 * i] = float(std::cos(angle)), roots[2 * i + 1] = float(std::sin(angle));
  }
  // Filters of every width; their values outside of the band are not to be read.
  Array<int32_t> bands(2 * mels);
  for (int64_t mel = 0; mel < mels; ++mel) {
    const int64_t begin = mel * bins / mels, end = std::min(bins, begin + 1 + mel % 5);
    bands[2 * mel] = int32_t(begin), bands[2 * mel + 1] = int32_t(end);
    for (int64_t i = begin; i < end; ++i) filters[mel * bins + i] = 0.5f + float(i % 3);
  }
  MelFrames m{};
  m.x = x, m.frames = frames, m.hop = hop, m.window = window;
  m.n_fft = n_fft, m.points = n_fft % 2 ? n_fft : n_fft / 2;
  std::vector<int32_t> factors;
  for (int64_t rest = m.points, radix = 4; rest > 1;) {
    if (rest % radix == 0) {
      factors.push_back(int32_t(radix));
      rest /= radix;
    } else {
      radix = radix == 4 ? 2 : radix == 2 ? 3 : radix + 2;
    }
  }
  m.factors = factors.data(), m.passes = int32_t(factors.size());
  m.roots = roots, m.filters = filters, m.bands = bands, m.mels = mels, m.floor = 1e-5f;
  m.y = y, m.scratch = scratch;
  k.mel_frames(m);
  check(scratch.intact(), what + ": written beside the scratch memory");

  std::vector<Wanted> want(y.size());
  for (int64_t t = 0; t < frames; ++t) {
    std::vector<double> magnitudes(bins);
    for (int64_t bin = 0; bin < bins; ++bin) {
      std::complex<double> sum = 0;
      for (int64_t i = 0; i < n_fft; ++i) {
        sum += double(x[t * hop + i]) * window[i] *
               std::polar(1.0, -2 * std::numbers::pi * double(i * bin % n_fft) / double(n_fft));
      }
      magnitudes[bin] = std::abs(sum);
    }
    for (int64_t mel = 0; mel < mels; ++mel) {
      double sum = 0;
      for (int64_t i = bands[2 * mel]; i < bands[2 * mel + 1]; ++i)
        sum += filters[mel * bins + i] * magnitudes[i];
      // The transform's error is relative to the whole frame, the logarithm's result to this filter.
      want[t * mels + mel] = {std::log(std::max(sum, double(m.floor))),
                              1 + std::sqrt(double(n_fft)) / std::max(sum, 1e-5)};
    }
  }
  check_close(y, want, 3e-6, what);
}

void mel(const Kernels& k) {
  for (int64_t n_fft : {2, 4, 7, 15, 32, 45, 62, 120, 254}) {
    for (int64_t frames : {1, k.lanes - 1, k.lanes}) {
      mel_case(k, n_fft, 1 + n_fft / 3, frames, 5);
    }
  }
  // More filters than the transform has room for, after an even and an odd number of passes.
  mel_case(k, 16, 100, 2, 1);
  mel_case(k, 8, 100, 2, 1);
}

Test mel_frames_test("mel_frames", mel);

}  // namespace
}  // namespace rvc_fast::test
