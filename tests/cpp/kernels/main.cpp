// kernels_test [ISA...]: tests the kernels of the given instruction sets, or of all that the CPU has. If the
// environment variable TEST is set, only the tests whose names begin with it run.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "check.h"

namespace rvc_fast::test {
namespace {

constexpr uint32_t kUntouched = 0x7fa5a5a5;

struct Entry {
  const char* name;
  Test::Function function;
};

std::vector<Entry>& entries() {
  static std::vector<Entry> all;
  return all;
}

const char* g_test = "";
const char* g_isa = "";
bool g_page_behind = true;
long g_passed = 0, g_failed = 0;

void report(const char* what) {
  std::fprintf(stderr, "FAILED %s, %s, page %s: %s\n", g_test, g_isa, g_page_behind ? "behind" : "before",
               what);
}

// Not safe in a signal handler in general, but the fault is in a kernel, which calls nothing.
void fault(int) {
  report("memory beside an array was touched");
  std::fprintf(stderr, "%ld passed, %ld failed\n", g_passed, g_failed + 1);
  _exit(1);
}

}  // namespace

Test::Test(const char* name, Function function) { entries().push_back({name, function}); }

void run(const Work& work) { work.run(reserve(0, work.shared, work.each)); }

bool check(bool ok, const std::string& what) {
  ++(ok ? g_passed : g_failed);
  if (!ok && g_failed <= 20) report(what.c_str());
  return ok;
}

std::string text(const char* format, ...) {
  char buffer[300];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

Memory::Memory(size_t bytes) : size_(bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  inner_ = (bytes + page - 1) / page * page + (bytes == 0 ? page : 0);
  void* memory = mmap(nullptr, inner_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED ||
      mprotect(static_cast<char*>(memory) + page, inner_, PROT_READ | PROT_WRITE) != 0) {
    std::perror("kernels_test");
    std::exit(2);
  }
  pages_ = static_cast<char*>(memory);
  data_ = pages_ + page + (g_page_behind ? inner_ - bytes : 0);
  for (char* p = pages_ + page; p != pages_ + page + inner_; p += sizeof kUntouched)
    std::memcpy(p, &kUntouched, sizeof kUntouched);
}

Memory::~Memory() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  munmap(pages_, inner_ + 2 * page);
}

bool Memory::intact() const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const char* p = pages_ + page; p != pages_ + page + inner_; p += sizeof kUntouched) {
    bool outside = p < data_ || p >= data_ + size_;
    if (outside && std::memcmp(p, &kUntouched, sizeof kUntouched) != 0) return false;
  }
  return true;
}

bool untouched(float x) { return std::memcmp(&x, &kUntouched, sizeof x) == 0; }

bool check_close(const Floats& got, const std::vector<Wanted>& want, double tolerance,
                 const std::string& what) {
  if (!check(got.size() == want.size(), what + ": size")) return false;
  if (!check(got.intact(), what + ": written beside the array")) return false;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isinf(want[i].magnitude)) continue;
    float y = got[i];
    if (std::isnan(want[i].value)) {
      if (!untouched(y)) return check(false, what + text(": element %zu is not the kernel's, got %g", i, y));
    } else if (!(std::abs(y - want[i].value) <= tolerance * want[i].magnitude)) {
      return check(false, what + text(": element %zu should be %.9g, got %.9g%s", i, want[i].value, y,
                                      untouched(y) ? " (not written)" : ""));
    }
  }
  return check(true, what);
}

const std::vector<Wanted>& once(const std::string& what,
                                const std::function<std::vector<Wanted>()>& compute) {
  static std::map<std::string, std::vector<Wanted>> known;
  auto [at, is_new] = known.try_emplace(std::string(g_test) + ", " + what);
  if (is_new) at->second = compute();
  return at->second;
}

std::mt19937_64 random_numbers() { return std::mt19937_64(7); }

}  // namespace rvc_fast::test

int main(int count, char** names) {
  using namespace rvc_fast;
  using namespace rvc_fast::test;
  struct sigaction action{};
  action.sa_handler = fault;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);

  const char* only = std::getenv("TEST") ? std::getenv("TEST") : "";
  for (const Isa* k = kIsas; k->name; ++k) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted = wanted || std::strcmp(names[i], k->name) == 0;
    if (!wanted) continue;
    g_isa = k->name;
    if (!supported(*k)) {
      std::printf("%s: not supported by this CPU\n", g_isa);
      continue;
    }
    set_isa(g_isa);
    const long before = g_passed;
    for (const Entry& entry : entries()) {
      g_test = entry.name;
      if (std::strncmp(g_test, only, std::strlen(only)) != 0) continue;
      const auto start = std::chrono::steady_clock::now();
      for (bool behind : {true, false}) {
        g_page_behind = behind;
        entry.function(*k->kernels);
      }
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
      if (spent.count() >= 0.5) std::printf("%s, %s: %.1f s\n", g_isa, g_test, spent.count());
    }
    std::printf("%s: %ld checks passed\n", g_isa, g_passed - before);
  }
  std::printf("%ld passed, %ld failed\n", g_passed, g_failed);
  return g_passed > 0 && g_failed == 0 ? 0 : 1;
}
