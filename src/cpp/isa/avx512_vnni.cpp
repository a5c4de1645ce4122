#define RVC_ISA avx512_vnni
#define RVC_SUPPORTED __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl")
#include "isa/int8.inc"
