#if defined(__linux__)
#include <sys/auxv.h>
#define RVC_SUPPORTED (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0
#else
#define RVC_SUPPORTED true  // every Apple chip that MLX runs on
#endif
#define RVC_ISA neon_dot
#include "isa/int8.inc"
