// The excitation of a neural source filter.
#include <numbers>

#include "check.h"

namespace rvc_fast::test {
namespace {

struct Options {
  int64_t frames, hop, harmonics;
  bool first, last, linear, by_frame;
};

// Frequency of a sample, Hz, rounded to float32 as everything that becomes a phase is.
float frequency(const float* f0, const Options& o, int64_t t, int64_t j) {
  if (!o.linear) return f0[t];
  const double place = (double(j) + 0.5) / double(o.hop) - 0.5;
  const float other =
      place < 0 ? f0[t == 0 && o.first ? t : t - 1] : f0[t == o.frames - 1 && o.last ? t : t + 1];
  return float(f0[t] + double(other - f0[t]) * std::abs(place));
}

void nsf_case(const Kernels& k, const Options& o) {
  std::mt19937_64 random = random_numbers();
  const std::string what =
      text("%lld frames of %lld, %lld harmonics%s%s%s%s", (long long)o.frames, (long long)o.hop,
           (long long)o.harmonics, o.first ? ", first" : "", o.last ? ", last" : "",
           o.linear ? ", linear" : "", o.by_frame ? ", by frame" : "");
  const int64_t samples = o.frames * o.hop, row = o.frames + 2;
  // A neighbour's f0 only where it has to be read.
  Floats all(o.frames + !o.first + !o.last), noise(samples * o.harmonics, random),
      weight(o.harmonics, random), y(samples), scratch(3 * (o.hop + 16));
  for (size_t i = 0; i < all.size(); ++i) all[i] = i % 3 == 1 ? 0.0f : 80.0f + 37.3f * float(i % 7);
  const float* f0 = all + !o.first;
  Array<double> advance((o.harmonics - 1) * row + o.frames), start(advance.size());
  for (double& s : start) s = std::uniform_real_distribution<double>(-0.5, 0.5)(random);

  NsfFrames s{};
  s.f0 = f0, s.frames = o.frames, s.hop = o.hop, s.harmonics = o.harmonics;
  s.first = o.first, s.last = o.last, s.linear = o.linear, s.by_frame = o.by_frame;
  s.sample_rate = 16000.0f;
  s.start = start, s.start_row = row;
  s.noise = noise, s.weight = weight, s.bias = 0.125f;
  s.y = y, s.scratch = scratch;
  k.nsf_advance(s, advance);
  check(advance.intact(), what + ": written beside the advances");
  k.nsf_frames(s);
  check(scratch.intact(), what + ": written beside the scratch memory");

  std::vector<Wanted> want(samples, {s.bias, 2.0});
  for (int64_t h = 0; h < o.harmonics; ++h) {
    for (int64_t t = 0; t < o.frames; ++t) {
      double cycles = start[h * row + t], sum = 0;
      float step = 0;
      for (int64_t j = 0; j < o.hop; ++j) {
        const float f = frequency(f0, o, t, j);
        step = f * float(h + 1) / s.sample_rate;
        sum += step;
        const int64_t at = t * o.hop + j;
        const double sine = f > 0 ? 0.1 * std::sin(2 * std::numbers::pi * (cycles + sum)) : 0.0;
        want[at].value +=
            weight[h] * (sine + (f > 0 ? 0.003 : 0.1 / 3) * double(noise[at * o.harmonics + h]));
      }
      if (o.by_frame) {
        volatile float product = step * float(o.hop);  // rounded before 0.5 is added, also where there is FMA
        sum = double(product + 0.5f) - 0.5;
      }
      const double off = advance[h * row + t] - sum;
      check(std::abs(off - std::rint(off)) < 1e-10 && std::abs(advance[h * row + t]) <= 0.5,
            what + ": advance");
    }
  }
  for (Wanted& w : want) w.value = std::tanh(w.value);
  check_close(y, want, 1e-6, what);
}

void nsf(const Kernels& k) {
  for (int64_t hop : {1, 3, 7, 8, 16, 17, 41}) {
    for (int64_t frames : {1, 5}) {
      for (int64_t harmonics : {1, 3}) {
        nsf_case(k, {frames, hop, harmonics, true, true, false, true});
        nsf_case(k, {frames, hop, harmonics, true, true, false, false});
        for (int ends = 0; ends < 4; ++ends)
          nsf_case(k, {frames, hop, harmonics, ends % 2 == 0, ends / 2 == 0, true, false});
      }
    }
  }
}

Test nsf_frames_test("nsf_frames", nsf);

}  // namespace
}  // namespace rvc_fast::test
