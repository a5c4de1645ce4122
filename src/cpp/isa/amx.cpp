#include <sys/syscall.h>
#include <unistd.h>

namespace {

// Linux gives a process the tiles' state only if it asks for it.
bool have_tiles() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool have = __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                           syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return have;
}

}  // namespace

#define RVC_ISA amx
#define RVC_SUPPORTED __builtin_cpu_supports("avx512bf16") && have_tiles()
#include "isa/bf16.inc"
