#include "isa/kernels.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>

#if defined(__x86_64__) && !defined(RVC_FAST_BASE_ONLY)
#define RVC_X86_SETS
#endif

namespace rvc_fast {

#if defined(RVC_X86_SETS)
namespace amx {
extern const FormatKernels bfloat16;
}
namespace avx512_bf16 {
extern const FormatKernels bfloat16;
}
namespace avx512_vnni {
extern const FormatKernels int8;
}
namespace avx_vnni {
extern const FormatKernels int8;
}
namespace avx512 {
extern const Kernels table;
extern const FormatKernels float32;
}  // namespace avx512
namespace avx2 {
extern const Kernels table;
extern const FormatKernels float32;
}  // namespace avx2
#endif
#if defined(__aarch64__)
#if !defined(RVC_FAST_BASE_ONLY)
#define RVC_ARM_SETS
namespace neon_dot {
extern const FormatKernels int8;
}
#endif
namespace neon {
#else
namespace generic {
#endif
extern const Kernels table;
extern const FormatKernels float32;
}  // namespace neon or generic

// The formats in their order: float32, float16, bfloat16, int8.
const Isa kIsas[] = {
#if defined(RVC_X86_SETS)
#if defined(__linux__)
    {.name = "amx",
     .kernels = &avx512::table,
     .formats = {&avx512::float32, nullptr, &amx::bfloat16, &avx512_vnni::int8}},
#endif
    {.name = "avx512_bf16",
     .kernels = &avx512::table,
     .formats = {&avx512::float32, nullptr, &avx512_bf16::bfloat16, &avx512_vnni::int8}},
    {.name = "avx512_vnni",
     .kernels = &avx512::table,
     .formats = {&avx512::float32, nullptr, nullptr, &avx512_vnni::int8}},
    {.name = "avx512", .kernels = &avx512::table, .formats = {&avx512::float32, nullptr, nullptr, nullptr}},
    {.name = "avx_vnni",
     .kernels = &avx2::table,
     .formats = {&avx2::float32, nullptr, nullptr, &avx_vnni::int8}},
    {.name = "avx2", .kernels = &avx2::table, .formats = {&avx2::float32, nullptr, nullptr, nullptr}},
#endif
#if defined(__aarch64__)
#if defined(RVC_ARM_SETS)
    {.name = "neon_dot",
     .kernels = &neon::table,
     .formats = {&neon::float32, nullptr, nullptr, &neon_dot::int8}},
#endif
    {.name = "neon", .kernels = &neon::table, .formats = {&neon::float32, nullptr, nullptr, nullptr}},
#else
    {.name = "generic",
     .kernels = &generic::table,
     .formats = {&generic::float32, nullptr, nullptr, nullptr}},
#endif
    {.name = nullptr, .kernels = nullptr, .formats = {}},
};

namespace {
std::atomic<const Isa*> g_isa{nullptr};
}

bool supported(const Isa& isa) {
  return std::all_of(std::begin(isa.formats), std::end(isa.formats),
                     [](const FormatKernels* k) { return k == nullptr || k->supported(); });
}

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
