// The vector of one instruction set: GCC/Clang vector extensions, so that one source serves them all.
// Included only through isa/kernels.inc, inside the instruction set's namespace.

#if defined(__AVX512F__)
#define RVC_LANES 16
#elif defined(__AVX2__)
#define RVC_LANES 8
#else
#define RVC_LANES 4
#endif

typedef float V __attribute__((vector_size(4 * RVC_LANES)));
typedef float VU __attribute__((vector_size(4 * RVC_LANES), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(4 * RVC_LANES)));

#define RVC_INLINE inline __attribute__((always_inline))
#define RVC_LAMBDA __attribute__((always_inline))

static RVC_INLINE V load(const float* p) { return *reinterpret_cast<const VU*>(p); }
static RVC_INLINE void store(float* p, V v) { *reinterpret_cast<VU*>(p) = v; }
static RVC_INLINE V splat(float s) { return s - V{}; }  // not s + 0, which would turn -0 into 0

// The first n lanes, 0 < n <= RVC_LANES; the others read as zero and are not written.
static RVC_INLINE V load_first(const float* p, int n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#else
  V v = {};
  if (n == RVC_LANES) return load(p);
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}

static RVC_INLINE void store_first(float* p, V v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#else
  if (n == RVC_LANES) return store(p, v);
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// Of max and min, b is the result where either is NaN.
#if defined(__AVX512F__)
static RVC_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
static RVC_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }
#elif defined(__AVX2__)
static RVC_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
static RVC_INLINE V min(V a, V b) { return _mm256_min_ps(a, b); }
#else
static RVC_INLINE V max(V a, V b) { return a > b ? a : b; }
static RVC_INLINE V min(V a, V b) { return a < b ? a : b; }
#endif

static RVC_INLINE V sqrt(V a) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(a);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(a);
#elif defined(__x86_64__)
  return _mm_sqrt_ps(a);
#elif defined(__aarch64__)
  return vsqrtq_f32(a);
#else
  for (int i = 0; i < RVC_LANES; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
#endif
}

// Whether a comparison holds in any lane.
static RVC_INLINE bool any(VI mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_ps(reinterpret_cast<__m128>(mask)) != 0;
#else
  int32_t all = 0;
  for (int i = 0; i < RVC_LANES; ++i) all |= mask[i];
  return all != 0;
#endif
}
