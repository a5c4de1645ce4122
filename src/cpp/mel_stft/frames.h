// Log mel spectrogram, RVC_LANES frames at a time, each in a lane of its own: the transform then needs no
// shuffles. Included only through isa/kernels.inc.

struct Complex {
  V re, im;
};

static RVC_INLINE Complex get(const float* p) { return {load(p), load(p + RVC_LANES)}; }
static RVC_INLINE void put(float* p, Complex z) { store(p, z.re), store(p + RVC_LANES, z.im); }
static RVC_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
static RVC_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
static RVC_INLINE Complex times_i(Complex z) { return {-z.im, z.re}; }
static RVC_INLINE Complex times(Complex z, const float* root) {
  V c = splat(root[0]), s = splat(root[1]);
  return {z.re * c - z.im * s, z.re * s + z.im * c};
}

// Either half of the scratch memory holds a transform, a spectrum or the filters' outputs.
static int64_t mel_half(int64_t n_fft, int64_t mels) {
  return RVC_LANES * (2 * n_fft + 4 > mels ? 2 * n_fft + 4 : mels);
}
static int64_t mel_scratch_floats(int64_t n_fft, int64_t mels) { return 2 * mel_half(n_fft, mels); }

// One pass of Stockham's transform: `length` points in steps of `stride`, split by `radix`. roots[2 k
// root_step] is the k-th power of the points-th root of unity.
static void mel_pass(const float* x, float* y, int64_t length, int64_t stride, int radix, const float* roots,
                     int64_t root_step) {
  constexpr int64_t kOne = 2 * RVC_LANES;
  const int64_t part = length / radix, points = length * stride, row = part * stride * kOne;
  auto root = [&](int64_t power) { return roots + 2 * (power % points) * root_step; };
  for (int64_t p = 0; p < part; ++p) {
    for (int64_t q = 0; q < stride; ++q) {
      const float* from = x + (q + stride * p) * kOne;
      float* to = y + (q + stride * radix * p) * kOne;
      if (radix == 4) {
        Complex a = get(from), b = get(from + row), c = get(from + 2 * row), d = get(from + 3 * row);
        Complex even = a + c, odd = b + d, left = a - c, right = times_i(b - d);
        put(to, even + odd);
        put(to + stride * kOne, times(left - right, root(p * stride)));
        put(to + 2 * stride * kOne, times(even - odd, root(2 * p * stride)));
        put(to + 3 * stride * kOne, times(left + right, root(3 * p * stride)));
      } else {
        for (int j = 0; j < radix; ++j) {
          Complex sum = get(from);
          for (int k = 1; k < radix; ++k)
            sum = sum + times(get(from + k * row), root(j * k % radix * (points / radix)));
          put(to + j * stride * kOne, times(sum, root(j * p * stride)));
        }
      }
    }
  }
}

static void mel_frames(const MelFrames& m) {
  constexpr int64_t kOne = 2 * RVC_LANES;
  const int64_t n = m.n_fft, bins = n / 2 + 1, even = n % 2 == 0;
  float* x = m.scratch;
  float* y = x + mel_half(n, m.mels);

  // Even and odd samples are the real and imaginary parts of half as many points; an odd n has real points.
  // In blocks, since every frame writes all lines of its block.
  const int64_t step = even ? RVC_LANES : kOne;
  for (int64_t block = 0; block < n; block += 64) {
    const int64_t end = block + 64 < n ? block + 64 : n;
    for (int lane = 0; lane < RVC_LANES; ++lane) {
      const float* from = m.x + (lane < m.frames ? lane : m.frames - 1) * m.hop;
      for (int64_t i = block; i < end; ++i) x[i * step + lane] = from[i] * m.window[i];
    }
    for (int64_t i = block; !even && i < end; ++i) store(x + i * step + RVC_LANES, V{});
  }

  for (int64_t pass = 0, length = m.points, stride = 1; pass < m.passes; ++pass) {
    mel_pass(x, y, length, stride, m.factors[pass], m.roots, n / m.points);
    length /= m.factors[pass], stride *= m.factors[pass];
    float* other = x;
    x = y, y = other;
  }

  for (int64_t k = 0; k < bins; ++k) {
    Complex z = get(x + k % m.points * kOne);
    if (even) {
      // The spectra of the even and of the odd samples, taken apart and put together one level up.
      Complex mirror = get(x + (m.points - k) % m.points * kOne);
      mirror.im = -mirror.im;
      Complex sum = z + mirror, difference = times(times_i(mirror - z), m.roots + 2 * k);
      z = {0.5f * (sum.re + difference.re), 0.5f * (sum.im + difference.im)};
    }
    store(y + k * RVC_LANES, sqrt(z.re * z.re + z.im * z.im));
  }

  for (int64_t mel = 0; mel < m.mels; ++mel) {
    const float* filter = m.filters + mel * bins;
    V sum = {};
    for (int64_t k = m.bands[2 * mel]; k < m.bands[2 * mel + 1]; ++k)
      sum += filter[k] * load(y + k * RVC_LANES);
    store(x + mel * RVC_LANES, log(max(splat(m.floor), sum)));
  }
  for (int64_t lane = 0; lane < m.frames; ++lane) {
    for (int64_t mel = 0; mel < m.mels; ++mel) m.y[lane * m.mels + mel] = x[mel * RVC_LANES + lane];
  }
}
