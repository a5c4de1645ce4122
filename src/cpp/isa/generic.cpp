// What every CPU of the architecture has: SSE2 on x86-64, NEON on arm64.
#if defined(__aarch64__)
#define RVC_ISA neon
#else
#define RVC_ISA generic
#endif
#define RVC_SUPPORTED true
#include "isa/kernels.inc"
