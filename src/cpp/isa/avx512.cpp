#define RVC_ISA avx512
#define RVC_SUPPORTED                                                             \
  __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&      \
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && \
      __builtin_cpu_supports("fma")
#include "isa/kernels.inc"
