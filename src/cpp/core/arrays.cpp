#include "core/arrays.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>
#include <utility>

#include "mlx/allocator.h"

namespace rvc_fast {
namespace {

constexpr const char* kReadArrays = "read_arrays";
constexpr size_t kPiece = 4 << 20;
constexpr int64_t kLine = 64;  // bytes of a cache line, where each array begins

struct Piece {
  char* to;
  size_t bytes;
  off_t from;
};

// Returns errno, -1 where the file ends too early, or 0.
int read_piece(int fd, Piece piece) {
  while (piece.bytes > 0) {
    const ssize_t got = pread(fd, piece.to, piece.bytes, piece.from);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : -1;
    piece.to += got, piece.from += got, piece.bytes -= static_cast<size_t>(got);
  }
  return 0;
}

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

}  // namespace

std::vector<mx::array> read_arrays(int fd, const std::vector<Span>& spans) {
  struct stat status;
  if (fstat(fd, &status) != 0) throw std::system_error(errno, std::generic_category(), "[read_arrays] fstat");
  const int64_t size = status.st_size;
  std::vector<mx::array> arrays;
  std::vector<int64_t> places;  // in bytes
  int64_t end = 0;
  for (const auto& [offset, count, dtype] : spans) {
    require(dtype == "float32" || dtype == "bfloat16" || dtype == "int8", kReadArrays,
            "dtype must be \"float32\", \"bfloat16\" or \"int8\", got \"" + dtype + "\"");
    const mx::Dtype type = dtype == "float32" ? mx::float32 : dtype == "int8" ? mx::int8 : mx::bfloat16;
    const bool fits = offset >= 0 && offset <= size && count > 0 &&
                      count <= std::numeric_limits<int>::max() &&
                      count * static_cast<int64_t>(mx::size_of(type)) <= size - offset;
    require(fits, kReadArrays,
            "spans must be within the file, got " + std::to_string(count) + " values at " +
                std::to_string(offset) + " of " + std::to_string(size) + " bytes");
    arrays.emplace_back(mx::Shape{static_cast<int>(count)}, type, nullptr, std::vector<mx::array>{});
    places.push_back(end);
    end += round_up(static_cast<int64_t>(arrays.back().nbytes()), kLine);
  }
  if (arrays.empty()) return arrays;
  const int64_t floats = end / mx::size_of(mx::float32);
  require(floats <= std::numeric_limits<int>::max(), kReadArrays,
          "spans must hold less than 8 GB together, got " + std::to_string(end) + " bytes");
  mx::array block({static_cast<int>(floats)}, mx::float32, nullptr, {});
  allocate(block);
  mx::array::Flags flags{};
  flags.contiguous = flags.row_contiguous = flags.col_contiguous = true;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < arrays.size(); ++i) {
    mx::array& array = arrays[i];
    array.copy_shared_buffer(block, {1}, flags, array.size(), places[i] / array.itemsize());
    array.set_status(mx::array::Status::available);
    const int64_t from = std::get<0>(spans[i]);
    for (size_t at = 0; at < array.nbytes(); at += kPiece) {
      pieces.push_back({array.data<char>() + at, std::min(kPiece, array.nbytes() - at),
                        static_cast<off_t>(from + static_cast<int64_t>(at))});
    }
  }
  std::atomic<int> error{0};
  parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    if (const int failed = read_piece(fd, pieces[i]); failed != 0) error = failed;
  });
  if (error > 0) throw std::system_error(error, std::generic_category(), "[read_arrays] read");
  require(error == 0, kReadArrays, "spans must be within the file: it became shorter while it was read");
  return arrays;
}

mx::array borrow(const void* memory, mx::Shape shape, mx::Dtype type) {
  void* data = const_cast<void*>(memory);
  if (!size_before_data()) return mx::array(data, std::move(shape), type, [](void*) {});
  // MLX reads a size in the 8 bytes before it.
  mx::array out(std::move(shape), type, nullptr, {});
  mx::array::Flags flags{};
  flags.contiguous = flags.row_contiguous = true;
  flags.col_contiguous = out.ndim() <= 1;
  mx::Strides strides(out.ndim(), 1);
  for (int i = out.ndim() - 2; i >= 0; --i) strides[i] = strides[i + 1] * out.shape(i + 1);
  mx::allocator::Buffer buffer(static_cast<char*>(data) - sizeof(size_t));
  out.set_data(mx::allocator::Data(buffer, [](mx::allocator::Buffer) {}), out.size(), std::move(strides),
               flags);
  out.set_status(mx::array::Status::available);
  return out;
}

}  // namespace rvc_fast
