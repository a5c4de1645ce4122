// Vector functions. Included only through isa/kernels.inc, inside the instruction set's namespace.

// first x^n + ... + last, by Horner's rule.
template <class... Rest>
static RVC_INLINE V polynomial(V x, float first, Rest... rest) {
  V p = splat(first);
  ((p = p * x + rest), ...);
  return p;
}

// exp(x) = 2^n exp(r), |r| <= ln 2 / 2, within 2 units in the last place; below -87 it stays at exp(-87). NaN
// remains.
static RVC_INLINE V exp(V x) {
  x = min(splat(88.0f), max(splat(-87.0f), x));  // in this order x is what min and max return if it is NaN
  const V shift = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  V t = x * 1.44269504088896341f + shift;
  VI n = (VI)t << 23;
  t -= shift;
  V r = x - t * 0.693359375f;
  r = r + t * 2.12194440e-4f;
  V p = polynomial(r, 1.9875691e-4f, 1.3981999e-3f, 8.3334519e-3f, 4.1665796e-2f, 1.6666665e-1f, 0.5f);
  p = p * r * r + r + 1.0f;
  return (V)((VI)p + n);
}

// 2^x for x <= 0, relative error below 2e-7; below -126 it stays at 2^-126. NaN remains.
static RVC_INLINE V exp2_below_0(V x) {
  x = max(splat(-126.0f), x);
  const V shift = splat(12582912.0f);
  V t = x + shift;
  VI n = (VI)t << 23;
  V r = x - (t - shift);
  V p = polynomial(r, 0.001326472731307149f, 0.009671512991189957f, 0.05550733581185341f,
                   0.24022242426872253f, 0.6931470036506653f, 1.0f);
  return (V)((VI)p + n);
}

static RVC_INLINE float sum(V v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(v);
#else
  for (int half = RVC_LANES / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
#endif
}

static RVC_INLINE float largest(V v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(v);
#else
  for (int half = RVC_LANES / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  }
  return v[0];
#endif
}

// erf(x) = x P(x^2) / Q(x^2) up to where float32 erf is 1; least-squares fit, relative error below 4e-7.
static RVC_INLINE V erf(V x) {
  x = min(splat(3.92f), max(splat(-3.92f), x));
  V t = x * x;
  V p = polynomial(t, 2.0501181552390335e-06f, 0.00028488144744187593f, 0.003765515284612775f,
                   0.052748408168554306f, 0.19040395319461823f, 1.1283791065216064f);
  V q = polynomial(t, 3.809197005466558e-05f, 0.0011625128099694848f, 0.014969009906053543f,
                   0.11410808563232422f, 0.5020738244056702f, 1.0f);
  return x * p / q;
}

// tanh(x) = x P(x^2) / Q(x^2) up to where float32 tanh is 1; least-squares fit, relative error below 4e-7.
static RVC_INLINE V tanh(V x) {
  x = min(splat(9.02f), max(splat(-9.02f), x));
  V t = x * x;
  V p = polynomial(t, 1.3318773639525716e-08f, 2.0583260265993886e-05f, 0.0034940210171043873f,
                   0.1337970644235611f, 1.0f);
  V q = polynomial(t, 7.761895517433004e-07f, 0.0003283070691395551f, 0.025871021673083305f,
                   0.46713021397590637f, 1.0f);
  return x * p / q;
}

// Relative error below 4e-7.
static RVC_INLINE V sigmoid(V x) { return 1.0f / (1.0f + exp(-x)); }

static RVC_INLINE V gelu(V x) { return 0.5f * x * (erf(x * 0.70710678118654752f) + 1.0f); }

// Natural logarithm of normal numbers above 0, infinity and NaN; relative error below 3e-7.
static RVC_INLINE V log(V x) {
  // x = m 2^e with m from sqrt(1/2) to sqrt(2).
  constexpr int32_t kRoot = 0x3f3504f3;
  VI shifted = reinterpret_cast<VI>(x) - kRoot;
  VI mantissa = (shifted & 0x007fffff) + kRoot;
  V e = __builtin_convertvector(shifted >> 23, V), f = reinterpret_cast<V>(mantissa) - 1.0f;
  V p =
      polynomial(f, -0.07633612304925919f, 0.12760478258132935f, -0.13159999251365662f, 0.14201898872852325f,
                 -0.16623389720916748f, 0.2000122219324112f, -0.2500081956386566f, 0.3333333134651184f);
  // ln 2 in two parts, the first short enough for e times it to be exact.
  V y = f + (f * f * (p * f - 0.5f) + e * -2.12194440e-4f) + e * 0.693359375f;
  return x < __builtin_inff() ? y : x;
}

// sin(2 pi t) for t from -1/2 to 1/2; error below 2e-7.
static RVC_INLINE V sin_of_turns(V t) {
  // Folded at the quarters, where the polynomial ends; 1/2 - t is exact there.
  V folded = t > 0.25f ? 0.5f - t : t < -0.25f ? -0.5f - t : t;
  V u = folded * folded;
  V p = polynomial(u, 39.71167755126953f, -76.57508087158203f, 81.60223388671875f, -41.341678619384766f,
                   6.2831854820251465f);
  return folded * p;
}
