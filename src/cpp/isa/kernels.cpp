#include "isa/kernels.h"

#include <atomic>
#include <cstring>

namespace rvc_fast {

#if defined(__x86_64__)
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

const Kernels* const kAllKernels[] = {
#if defined(__x86_64__)
    &avx512::table,
    &avx2::table,
#endif
#if defined(__aarch64__)
    &neon::table,
#else
    &generic::table,
#endif
    nullptr,
};

namespace {
std::atomic<const Kernels*> g_kernels{nullptr};
}

bool set_kernels(const char* name) {
  for (auto* k = kAllKernels; *k; ++k) {
    if ((*name == 0 || std::strcmp((*k)->name, name) == 0) && (*k)->supported()) {
      g_kernels.store(*k);
      return true;
    }
  }
  return false;
}

const Kernels& kernels() {
  if (!g_kernels.load()) set_kernels("");
  return *g_kernels.load();
}

}  // namespace rvc_fast
