#include "isa/kernels.h"

#include <atomic>
#include <cstring>

#include "isa/bf16.h"

#if defined(__x86_64__) && !defined(RVC_FAST_BASE_ONLY)
#define RVC_X86_SETS
#endif

namespace rvc_fast {

#if defined(RVC_X86_SETS)
namespace amx {
extern const Bf16Kernels table;
}
namespace avx512_bf16 {
extern const Bf16Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
#endif
#if defined(__aarch64__)
namespace neon {
#else
namespace generic {
#endif
extern const Kernels table;
}

const Isa kIsas[] = {
#if defined(RVC_X86_SETS)
#if defined(__linux__)
    {"amx", &avx512::table, &amx::table},
#endif
    {"avx512_bf16", &avx512::table, &avx512_bf16::table},
    {"avx512", &avx512::table, nullptr},
    {"avx2", &avx2::table, nullptr},
#endif
#if defined(__aarch64__)
    {"neon", &neon::table, nullptr},
#else
    {"generic", &generic::table, nullptr},
#endif
    {},
};

namespace {
std::atomic<const Isa*> g_isa{nullptr};
}

bool supported(const Isa& isa) { return isa.kernels->supported() && (!isa.bf16 || isa.bf16->supported()); }

bool set_isa(const char* name) {
  for (const Isa* i = kIsas; i->name; ++i) {
    if ((*name == 0 || std::strcmp(i->name, name) == 0) && supported(*i)) {
      g_isa.store(i);
      return true;
    }
  }
  return false;
}

const Isa& isa() {
  if (!g_isa.load()) set_isa("");
  return *g_isa.load();
}

}  // namespace rvc_fast
