#include "core/mapped.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <system_error>
#include <utility>

#include "mlx/allocator.h"

namespace rvc_fast {
namespace {

constexpr const char* kOp = "map_arrays";

struct Mapping {
  char* data;
  size_t size;

  Mapping(int fd, size_t size) : size(size) {
    // Private: what MLX writes before an array stays in this process.
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "[map_arrays] mmap");
    data = static_cast<char*>(p);
  }
  Mapping(const Mapping&) = delete;
  ~Mapping() { munmap(data, size); }
};

// Whether this MLX finds a buffer's data behind its size, as its allocator for machines without a GPU does.
bool size_before_data() {
  static const bool found = [] {
    auto data = mx::allocator::malloc(64);
    mx::allocator::Buffer buffer = data.buffer();
    size_t size = mx::allocator::allocator().size(buffer), stored;
    if (static_cast<char*>(buffer.raw_ptr()) != static_cast<char*>(buffer.ptr()) + sizeof size) return false;
    std::memcpy(&stored, buffer.ptr(), sizeof stored);
    return stored == size;
  }();
  return found;
}

// An array over `data`, freed by `release`; MLX reads a size in the 8 bytes before it.
mx::array wrap(void* data, mx::Shape shape, mx::Dtype type, std::function<void()> release) {
  if (!size_before_data()) return mx::array(data, std::move(shape), type, [release](void*) { release(); });
  mx::array out(std::move(shape), type, nullptr, {});
  mx::array::Flags flags{};
  flags.contiguous = flags.row_contiguous = true;
  flags.col_contiguous = out.ndim() <= 1;
  mx::Strides strides(out.ndim(), 1);
  for (int i = out.ndim() - 2; i >= 0; --i) strides[i] = strides[i + 1] * out.shape(i + 1);
  mx::allocator::Buffer buffer(static_cast<char*>(data) - sizeof(size_t));
  out.set_data(mx::allocator::Data(buffer, [release](mx::allocator::Buffer) { release(); }), out.size(),
               std::move(strides), flags);
  out.set_status(mx::array::Status::available);
  return out;
}

}  // namespace

std::vector<mx::array> map_arrays(int fd, const std::vector<Span>& spans) {
  struct stat status;
  if (fstat(fd, &status) != 0) throw std::system_error(errno, std::generic_category(), "[map_arrays] fstat");
  const int64_t size = status.st_size;
  require(size > 0, kOp, "the file must not be empty");
  auto mapping = std::make_shared<Mapping>(fd, static_cast<size_t>(size));
  std::vector<mx::array> arrays;
  for (const auto& [offset, count, dtype] : spans) {
    require(dtype == "float32" || dtype == "bfloat16", kOp,
            "dtype must be \"float32\" or \"bfloat16\", got \"" + dtype + "\"");
    const mx::Dtype type = dtype == "float32" ? mx::float32 : mx::bfloat16;
    const bool fits = offset >= kSpanLead && offset % kSpanLead == 0 && offset <= size && count > 0 &&
                      count <= std::numeric_limits<int>::max() &&
                      count * static_cast<int64_t>(mx::size_of(type)) <= size - offset;
    require(fits, kOp,
            "spans must be within the file and begin at multiples of 64, got " + std::to_string(count) +
                " values at " + std::to_string(offset) + " of " + std::to_string(size) + " bytes");
    char* data = mapping->data + offset;
    const size_t bytes = static_cast<size_t>(count) * mx::size_of(type);
    std::memcpy(data - sizeof bytes, &bytes, sizeof bytes);
    arrays.push_back(wrap(data, {static_cast<int>(count)}, type, [mapping] {}));
  }
  return arrays;
}

mx::array borrow(const void* data, mx::Shape shape, mx::Dtype type) {
  return wrap(const_cast<void*>(data), std::move(shape), type, [] {});
}

}  // namespace rvc_fast
