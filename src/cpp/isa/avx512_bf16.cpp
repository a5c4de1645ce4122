#define RVC_ISA avx512_bf16
#define RVC_SUPPORTED __builtin_cpu_supports("avx512bf16")
#include "isa/bf16.inc"
