#include "core/mapped.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <system_error>

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

mx::array view(const std::shared_ptr<Mapping>& mapping, int64_t offset, int count, mx::Dtype type) {
  char* data = mapping->data + offset;
  if (!size_before_data()) {
    return mx::array(static_cast<void*>(data), mx::Shape{count}, type, [mapping](void*) {});
  }
  size_t size = static_cast<size_t>(count) * mx::size_of(type);
  std::memcpy(data - sizeof size, &size, sizeof size);
  mx::array out(mx::Shape{count}, type, nullptr, {});
  mx::array::Flags flags{};
  flags.contiguous = flags.row_contiguous = flags.col_contiguous = true;
  mx::allocator::Buffer buffer(data - sizeof size);
  out.set_data(mx::allocator::Data(buffer, [mapping](mx::allocator::Buffer) {}), count, {1}, flags);
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
    arrays.push_back(view(mapping, offset, static_cast<int>(count), type));
  }
  return arrays;
}

}  // namespace rvc_fast
