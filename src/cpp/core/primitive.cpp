#include "core/primitive.h"

#include <new>
#include <stdexcept>
#include <utility>

#include "core/ahead.h"
#include "core/subnormals.h"
#include "core/trace.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace rvc_fast {
namespace {

// Memory of MLX's, so that its limits hold and it is counted. Thrown here, on the caller's thread, bad_alloc
// is a MemoryError.
mx::allocator::Data take(size_t bytes) {
  auto data = mx::allocator::malloc(bytes);
  if (data.buffer().ptr() == nullptr) throw std::bad_alloc();  // what a machine without a GPU has
  return data;
}

std::shared_ptr<void> take_shared(size_t bytes) {
  auto data = std::make_shared<mx::allocator::Data>(take(bytes));
  return {data, mx::allocator::Buffer(data->buffer()).raw_ptr()};
}

}  // namespace

void CpuPrimitive::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error(std::string("[") + name() +
                           "] this compiled kernel runs on the CPU, not on a GPU stream");
}

std::shared_ptr<const Rules>& Rules::current() {
  static thread_local std::shared_ptr<const Rules> rules;
  return rules;
}

const Rules& CpuPrimitive::rules() const {
  require(
      rules_ != nullptr, name(),
      "this kernel alone has no gradient: rvc_fast.ops has the op with one, of plain weights and of what is "
      "not packed");
  return *rules_;
}

std::vector<mx::array> CpuPrimitive::vjp(const std::vector<mx::array>& primals,
                                         const std::vector<mx::array>& cotangents,
                                         const std::vector<int>& argnums, const std::vector<mx::array>&) {
  return rules().vjp(primals, cotangents, argnums);
}

std::vector<mx::array> CpuPrimitive::jvp(const std::vector<mx::array>& primals,
                                         const std::vector<mx::array>& tangents,
                                         const std::vector<int>& argnums) {
  return rules().jvp(primals, tangents, argnums);
}

std::pair<std::vector<mx::array>, std::vector<int>> CpuPrimitive::vmap(const std::vector<mx::array>& inputs,
                                                                       const std::vector<int>& axes) {
  int items = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (axes[i] >= 0) items = inputs[i].shape(axes[i]);
  }
  require(items > 0, name(), "vmap needs at least one item");
  std::vector<std::vector<mx::array>> made;  // by output, then by item
  for (int item = 0; item < items; ++item) {
    std::vector<mx::array> parts;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const mx::array& x = inputs[i];
      parts.push_back(axes[i] < 0 ? x
                                  : mx::contiguous(mx::take(x, item, axes[i], stream()), false, stream()));
    }
    auto shapes = output_shapes(parts);
    std::vector<mx::Dtype> types;
    for (size_t i = 0; i < shapes.size(); ++i) types.push_back(output_type(static_cast<int>(i)));
    made.resize(shapes.size());
    auto outputs = mx::array::make_arrays(std::move(shapes), types, shared_from_this(), parts);
    for (size_t i = 0; i < outputs.size(); ++i) made[i].push_back(outputs[i]);
  }
  std::vector<mx::array> stacked;
  for (auto& parts : made) stacked.push_back(mx::stack(parts, 0, stream()));
  return {stacked, std::vector<int>(stacked.size(), 0)};
}

void allocate(mx::array& out) {
  // Vector loads that straddle cache lines cost double, and MLX's CPU memory begins 8 bytes past a multiple
  // of 16.
  constexpr size_t kLine = 64;
  auto data = take(out.nbytes() + kLine);
  auto address = reinterpret_cast<uintptr_t>(mx::allocator::Buffer(data.buffer()).raw_ptr());
  int64_t offset = static_cast<int64_t>((kLine - address % kLine) % kLine);
  if (offset % out.itemsize() != 0) offset = 0;
  mx::array::Flags flags{};
  flags.contiguous = flags.row_contiguous = true;
  flags.col_contiguous = out.ndim() <= 1 || out.size() == static_cast<size_t>(out.shape(-1));
  mx::Strides strides(out.ndim(), 1);
  for (int i = out.ndim() - 2; i >= 0; --i) strides[i] = strides[i + 1] * out.shape(i + 1);
  out.set_data(std::move(data), out.size(), std::move(strides), flags, offset);
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

void CpuPrimitive::dispatch(Work work) {
  static const bool once = (set_allocator(take_shared), true);
  (void)once;
  const int64_t index = stream().index;
  auto scratch = reserve(index, work.shared, work.each);
  // What is captured first goes last: the work has ended when its memory is free again.
  mx::cpu::get_command_encoder(stream()).dispatch([counted = begin_work(index), run = std::move(work.run),
                                                   scratch = std::move(scratch),
                                                   op = tracing() ? std::string(name()) : std::string()] {
    FlushToZero mode;
    TracedOp traced(op);
    run(scratch);
  });
  wait_above_limit(index);
}

mx::array dense(const mx::array& x, mx::Dtype type, mx::StreamOrDevice s) {
  return mx::contiguous(mx::astype(x, type, s), false, s);
}

mx::array readable(const mx::array& x, mx::Dtype type, mx::StreamOrDevice s) {
  const bool ready = x.status() == mx::array::Status::available && x.flags().row_contiguous;
  return ready && x.dtype() == type ? x : dense(x, type, s);
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
