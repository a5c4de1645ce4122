#define RVC_ISA avx2
#define RVC_SUPPORTED __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
#include "isa/kernels.inc"
