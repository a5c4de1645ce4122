#include "core/primitive.h"

#include <stdexcept>

#include "mlx/allocator.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace rvc_fast {

void CpuPrimitive::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error(std::string("[") + name() +
                           "] this compiled kernel runs on the CPU, not on a GPU stream");
}

void allocate(mx::array& out) {
  out.set_data(mx::allocator::malloc(out.nbytes()));
#ifdef MADV_HUGEPAGE
  // Fresh memory costs a page fault per 4 KB: for the long arrays of a decoder a tenth of the time.
  constexpr size_t kHuge = 2 << 20;
  if (out.nbytes() >= 2 * kHuge) {
    auto begin = reinterpret_cast<uintptr_t>(out.data<char>()), end = begin + out.nbytes();
    begin = (begin + kHuge - 1) / kHuge * kHuge;
    end = end / kHuge * kHuge;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
}

mx::array dense(const mx::array& x, mx::Dtype type, mx::StreamOrDevice s) {
  return mx::contiguous(mx::astype(x, type, s), false, s);
}

bool is_floating(const mx::array& x) {
  return x.dtype() == mx::float32 || x.dtype() == mx::float16 || x.dtype() == mx::bfloat16;
}

void require(bool ok, const char* op, const std::string& message) {
  if (!ok) throw std::invalid_argument(std::string("[") + op + "] " + message);
}

std::string to_string(const mx::Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace rvc_fast
