// The excitation of a neural source filter. Included only through isa/kernels.inc.
//
// Phases are summed in double; what is rounded to float32 before is said where it is done, since the result
// depends on it. Double steps also keep multiply and add from being contracted there.

// The frequency of sample j of frame t, Hz.
static RVC_INLINE float nsf_frequency(const NsfFrames& s, int64_t t, int64_t j) {
  const float f0 = s.f0[t];
  if (!s.linear) return f0;
  const double place = (static_cast<double>(j) + 0.5) / static_cast<double>(s.hop) - 0.5;
  const float before = t == 0 && s.first ? f0 : s.f0[t - 1],
              after = t == s.frames - 1 && s.last ? f0 : s.f0[t + 1];
  const double change =
      place < 0 ? static_cast<double>(before - f0) * -place : static_cast<double>(after - f0) * place;
  return static_cast<float>(f0 + change);
}

// Cycles that harmonic h advances by in one sample of `frequency`, rounded twice.
static RVC_INLINE float nsf_step(const NsfFrames& s, float frequency, int64_t h) {
  return frequency * static_cast<float>(h + 1) / s.sample_rate;
}

static void nsf_advance(const NsfFrames& s, double* advance) {
  for (int64_t h = 0; h < s.harmonics; ++h) {
    for (int64_t t = 0; t < s.frames; ++t) {
      double sum = 0;
      if (s.by_frame) {
        // The frame's advance plus one half, both rounded, as the code to be met wraps it.
        float product =
            static_cast<float>(static_cast<double>(nsf_step(s, s.f0[t], h)) * static_cast<double>(s.hop));
        sum = static_cast<double>(static_cast<float>(static_cast<double>(product) + 0.5)) - 0.5;
      } else if (s.linear) {
        for (int64_t j = 0; j < s.hop; ++j)
          sum += static_cast<double>(nsf_step(s, nsf_frequency(s, t, j), h));
      } else {
        sum = static_cast<double>(nsf_step(s, s.f0[t], h)) * static_cast<double>(s.hop);
      }
      advance[h * s.start_row + t] = sum - __builtin_rint(sum);
    }
  }
}

static void nsf_frames(const NsfFrames& s) {
  const int64_t hop = s.hop, row = hop + 16;
  float* frequency = s.scratch;
  float* turns = frequency + row;
  float* sines = turns + row;
  // Adding and taking off 1.5 * 2^52 rounds to a whole number, also where there is no instruction for it.
  constexpr double kWhole = 6755399441055744.0;

  for (int64_t t = 0; t < s.frames; ++t) {
    const float* noise = s.noise + t * hop * s.harmonics;
    float* y = s.y + t * hop;
    for (int64_t j = 0; j < hop; ++j) frequency[j] = nsf_frequency(s, t, j), sines[j] = 0;
    for (int64_t h = 0; h < s.harmonics; ++h) {
      const double start = s.start[h * s.start_row + t];
      if (s.linear) {
        double cycles = start;
        for (int64_t j = 0; j < hop; ++j) {
          cycles += static_cast<double>(nsf_step(s, frequency[j], h));
          turns[j] = static_cast<float>(cycles - ((cycles + kWhole) - kWhole));
        }
      } else {
        const double step = static_cast<double>(nsf_step(s, s.f0[t], h));
        for (int32_t j = 0; j < static_cast<int32_t>(hop); ++j) {
          double cycles = start + step * static_cast<double>(j + 1);
          turns[j] = static_cast<float>(cycles - ((cycles + kWhole) - kWhole));
        }
      }
      const float amplitude = 0.1f * s.weight[h];
      for (int64_t j = 0; j < hop; j += RVC_LANES) {
        store(sines + j, load(sines + j) + amplitude * sin_of_turns(load(turns + j)));
      }
    }
    for (int64_t j = 0; j < hop; j += RVC_LANES) {
      const int lanes = hop - j < RVC_LANES ? static_cast<int>(hop - j) : RVC_LANES;
      V mixed = {};
      if (s.harmonics == 1) {
        mixed = s.weight[0] * load_first(noise + j, lanes);
      } else {
        for (int lane = 0; lane < lanes; ++lane) {
          float sum = 0;
          for (int64_t h = 0; h < s.harmonics; ++h) sum += s.weight[h] * noise[(j + lane) * s.harmonics + h];
          mixed[lane] = sum;
        }
      }
      const auto voiced = load(frequency + j) > 0.0f;
      V level = voiced ? splat(0.003f) : splat(0.1f / 3);
      store_first(y + j, tanh(s.bias + (voiced ? load(sines + j) : V{}) + level * mixed), lanes);
    }
  }
}
