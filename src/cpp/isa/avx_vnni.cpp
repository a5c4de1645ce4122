#define RVC_ISA avx_vnni
#define RVC_SUPPORTED __builtin_cpu_supports("avxvnni")
#include "isa/int8.inc"
