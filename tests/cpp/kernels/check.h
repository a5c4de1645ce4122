// What the kernels' own tests share. Every test runs once per instruction set of the CPU, with its arrays up
// against a page behind them that must not be touched, and once more with that page before them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast::test {

// Counts one check; a failure is printed with the test's name, the instruction set and `what`.
bool check(bool ok, const std::string& what);

// Text from a format, for `what`.
std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A test registers itself by being defined: static Test t("name", function).
struct Test {
  using Function = void (*)(const Kernels&);
  Test(const char* name, Function function);
};

// Memory between two pages that must not be touched, which end the program. All of it begins as NaN of a
// pattern that no arithmetic gives: elements that were never written, and writes beside the array, are found.
class Memory {
 public:
  explicit Memory(size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

 protected:
  void* data() const { return data_; }
  bool intact() const;  // the bytes of the array's pages beside it

 private:
  char *pages_, *data_;
  size_t size_, inner_;
};

template <class T>
class Array : Memory {
 public:
  explicit Array(size_t count) : Memory(count * sizeof(T)), size_(count) {}
  // Values of deviation `scale` around 0. Each is the sum of three uniform numbers of 21 bits, which costs
  // little where a processor is emulated.
  Array(size_t count, std::mt19937_64& random, double scale = 1.0) : Array(count) {
    constexpr uint64_t kMask = (1 << 21) - 1;
    for (T& value : *this) {
      const uint64_t bits = random();
      const auto sum = static_cast<double>((bits & kMask) + (bits >> 21 & kMask) + (bits >> 42 & kMask));
      value = static_cast<T>(scale * (0x1p-20 * sum - 3.0));
    }
  }

  T* data() const { return static_cast<T*>(Memory::data()); }
  operator T*() const { return data(); }
  T* begin() const { return data(); }
  T* end() const { return data() + size_; }
  size_t size() const { return size_; }
  using Memory::intact;

 private:
  size_t size_;
};

using Floats = Array<float>;

// Whether x was never written.
bool untouched(float x);

// Checks an output against double: each element within `tolerance` times its own `magnitude` (infinite:
// anything will do), elements whose wanted value is NaN untouched, and nothing written beside the array.
struct Wanted {
  double value = NAN, magnitude = 1.0;
};
bool check_close(const Floats& got, const std::vector<Wanted>& want, double tolerance,
                 const std::string& what);

// What the case `what` of a test should give, computed when it is first asked for: the page before the arrays
// and the other instruction sets want the same numbers.
const std::vector<Wanted>& once(const std::string& what, const std::function<std::vector<Wanted>()>& compute);
// Does the work here and now.
void run(const Work& work);

// The generator of a test's random numbers; the same in every run.
std::mt19937_64 random_numbers();

inline double leaky(double x, double slope) { return x > 0 ? x : x * slope; }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double activate(double x, Activation a) {
  if (a == kRelu) return x > 0 ? x : 0;
  if (a == kSigmoid) return 1 / (1 + std::exp(-x));
  if (a == kTanh) return std::tanh(x);
  if (a == kGelu) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  return x;
}

}  // namespace rvc_fast::test
