#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <thread>
#include <utility>

#include "attention/attention.h"
#include "bigru/bigru.h"
#include "conv1d/conv1d.h"
#include "conv2d/conv2d.h"
#include "conv_transpose1d/conv_transpose1d.h"
#include "conv_transpose2d/conv_transpose2d.h"
#include "core/arrays.h"
#include "core/pool.h"
#include "core/signature.h"
#include "iir/iir.h"
#include "isa/bf16.h"
#include "isa/kernels.h"
#include "knn/knn.h"
#include "layer_norm/layer_norm.h"
#include "layout.h"
#include "linear/linear.h"
#include "mel_stft/mel_stft.h"
#include "nsf_source/nsf_source.h"
#include "peak/peak.h"
#include "relpos_attention/relpos_attention.h"
#include "resblock/resblock.h"
#include "wavenet_gate/wavenet_gate.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace rvc_fast {
namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa* i = kIsas; i->name; ++i) {
    if (supported(*i)) names.emplace_back(i->name);
  }
  return names;
}

void configure(int threads, const std::string& isa) {
  require(threads >= 0 && threads <= 1024, "configure", "threads must be from 0 to 1024");
  if (!set_isa(isa.c_str())) {
    std::string names;
    for (auto& name : isas()) names += (names.empty() ? "" : ", ") + name;
    throw std::invalid_argument("[configure] isa must be one of " + names + " on this machine, got \"" + isa +
                                "\"");
  }
  set_threads(threads);
}

double fma_peak(const std::string& dtype) {
  const Kernels& k = kernels();
  const bool bf16 = parse_dtype("fma_peak", dtype);
  if (bf16) require_bf16("fma_peak");
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    int64_t n = threads();
    std::vector<double> done(n);
    auto start = std::chrono::steady_clock::now();
    parallel_for(n, [&](int64_t i) {
      float sink[32];
      std::fill(sink, sink + 16, 0.999f);
      std::fill(sink + 16, sink + 32, 1e-4f);
      done[i] = bf16 ? isa().bf16->peak(1000000) : k.fma(1000000, sink);
    });
    double total = 0;
    for (double d : done) total += d;
    best = std::max(best,
                    total / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

using Doubles = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// x filtered from the given delays on, as a new numpy array.
nb::ndarray<nb::numpy, double> iir_filter(Doubles b, Doubles a, Doubles x, Doubles delays) {
  const size_t order = delays.shape(0);
  if (order < 1 || b.shape(0) != order + 1 || a.shape(0) != order + 1) {
    throw std::invalid_argument("[iir] b and a must have one value more than delays");
  }
  std::vector<double> state(delays.data(), delays.data() + order);
  auto* y = new double[x.shape(0)];
  nb::capsule owner(y, [](void* p) noexcept { delete[] static_cast<double*>(p); });
  iir(b.data(), a.data(), static_cast<int>(order), x.data(), static_cast<int64_t>(x.shape(0)), state.data(),
      y);
  return {y, {x.shape(0)}, owner};
}

using Numbers = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

mx::array borrow_numpy(const Numbers& x) {
  const bool floats = x.dtype() == nb::dtype<float>();
  require(floats || (x.dtype().code == uint8_t(nb::dlpack::dtype_code::Float) && x.dtype().bits == 16),
          "borrow", "x must be float32 or float16");
  mx::Shape shape;
  for (size_t i = 0; i < x.ndim(); ++i) {
    require(x.shape(i) <= size_t(std::numeric_limits<int>::max()), "borrow", "x must have sides below 2^31");
    shape.push_back(static_cast<int>(x.shape(i)));
  }
  return borrow(x.data(), std::move(shape), floats ? mx::float32 : mx::float16);
}

// Rules that are methods of a Python object, `vjp` and `jvp`.
class PythonRules : public Rules {
 public:
  explicit PythonRules(nb::object object) : object_(std::move(object)) {}
  // The last array that knows the rules may die in any thread, or after the interpreter.
  ~PythonRules() override {
    if (!Py_IsInitialized()) {
      (void)object_.release();
      return;
    }
    nb::gil_scoped_acquire gil;
    object_.reset();
  }

  std::vector<mx::array> vjp(const std::vector<mx::array>& primals, const std::vector<mx::array>& cotangents,
                             const std::vector<int>& argnums) const override {
    return call("vjp", primals, cotangents, argnums);
  }
  std::vector<mx::array> jvp(const std::vector<mx::array>& primals, const std::vector<mx::array>& tangents,
                             const std::vector<int>& argnums) const override {
    return call("jvp", primals, tangents, argnums);
  }

 private:
  std::vector<mx::array> call(const char* method, const std::vector<mx::array>& primals,
                              const std::vector<mx::array>& given, const std::vector<int>& argnums) const {
    nb::gil_scoped_acquire gil;
    // Rules call ops, whose primitives have rules of their own.
    const auto others = std::exchange(Rules::current(), nullptr);
    struct Restore {
      std::shared_ptr<const Rules> rules;
      ~Restore() { Rules::current() = rules; }
    } restore{others};
    return nb::cast<std::vector<mx::array>>(object_.attr(method)(primals, given, argnums));
  }

  nb::object object_;
};

// run(*arguments), whose primitives are differentiated by `rules`.
nb::object with_rules(nb::object rules, nb::object run, nb::args arguments) {
  struct Scope {
    std::shared_ptr<const Rules> before;
    explicit Scope(std::shared_ptr<const Rules> rules)
        : before(std::exchange(Rules::current(), std::move(rules))) {}
    ~Scope() { Rules::current() = before; }
  } scope(std::make_shared<PythonRules>(std::move(rules)));
  return run(*arguments);
}

}  // namespace
}  // namespace rvc_fast

NB_MODULE(_ext, m) {
  using namespace rvc_fast;

  // These kernels run on the CPU, whatever MLX's default device is.
  const mx::StreamOrDevice cpu = mx::Device(mx::Device::cpu);

  m.def("configure", &configure, nb::kw_only(), "threads"_a = 0, "isa"_a = "");
  m.def("isa", [] { return std::string(isa().name); });
  m.def("isas", &isas);
  m.def("bfloat16", [] { return isa().bf16 != nullptr; });
  m.def("threads", &threads);
  m.def("release_scratch", &release_scratch);
  m.def("layout", [] { return std::string(kLayout); });
  m.def("borrow", &borrow_numpy, "x"_a.noconvert());
  m.def("read_arrays", &read_arrays, "fd"_a, "spans"_a, nb::call_guard<nb::gil_scoped_release>());
  m.def("fma_peak", &fma_peak, "dtype"_a = "float32", nb::call_guard<nb::gil_scoped_release>());
  m.def("int8_peak", &int8_peak, nb::call_guard<nb::gil_scoped_release>());
  m.def("memory_peak", &memory_peak, "kind"_a, "bytes"_a, nb::call_guard<nb::gil_scoped_release>());

  m.def("signature", &signature, "arguments"_a);
  m.def("with_rules", &with_rules, "rules"_a, "run"_a, "arguments"_a);

  m.def("iir", &iir_filter, "b"_a, "a"_a, "x"_a, "delays"_a);

  m.def("conv1d_pack", &conv1d_pack, "weight"_a, "groups"_a = 1, "dtype"_a = "float32", "stream"_a = cpu);
  m.def("conv1d", &conv1d, "x"_a, "packed"_a, "bias"_a.none() = nb::none(), "residual"_a.none() = nb::none(),
        "out_channels"_a, "kernel"_a, "stride"_a = 1, "padding"_a = std::pair<int, int>(0, 0),
        "dilation"_a = 1, "groups"_a = 1, "leaky"_a = 1.0f, "activation"_a = "", "scale"_a = 1.0f,
        "stream"_a = cpu);

  m.def("attention", &attention, "q"_a, "k"_a, "v"_a, "scale"_a, "stream"_a = cpu);
  m.def("layer_norm", &layer_norm, "x"_a, "weight"_a.none() = nb::none(), "bias"_a.none() = nb::none(),
        "residual"_a.none() = nb::none(), "eps"_a = 1e-5f, "stream"_a = cpu);

  m.def("bigru", &bigru, "forward"_a, "backward"_a, "w_hh"_a, "b_hh"_a, "h"_a, "stream"_a = cpu);

  m.def("linear_pack", &linear_pack, "weight"_a, "dtype"_a = "float32", "stream"_a = cpu);
  m.def("linear", &linear, "x"_a, "packed"_a, "bias"_a.none() = nb::none(), "residual"_a.none() = nb::none(),
        "out_channels"_a, "activation"_a = "", "stream"_a = cpu);

  m.def("conv2d_algorithm", &conv2d_algorithm, "shape"_a, "wanted"_a, "dtype"_a = "float32");
  m.def("conv2d_pack", &conv2d_pack, "weight"_a, "algorithm"_a = "direct", "dtype"_a = "float32",
        "stream"_a = cpu);
  m.def("conv2d", &conv2d, "x"_a, "packed"_a, "bias"_a.none() = nb::none(), "residual"_a.none() = nb::none(),
        "out_channels"_a, "kernel"_a, "padding"_a = std::pair<int, int>(0, 0), "activation"_a = "",
        "algorithm"_a = "direct", "stream"_a = cpu);

  m.def("conv_transpose1d_pack", &conv_transpose1d_pack, "weight"_a, "stride"_a = 1, "dtype"_a = "float32",
        "stream"_a = cpu);
  m.def("conv_transpose1d", &conv_transpose1d, "x"_a, "packed"_a, "bias"_a.none() = nb::none(),
        "residual"_a.none() = nb::none(), "out_channels"_a, "kernel"_a, "stride"_a = 1, "padding"_a = 0,
        "output_padding"_a = 0, "leaky"_a = 1.0f, "stream"_a = cpu);

  m.def("conv_transpose2d_pack", &conv_transpose2d_pack, "weight"_a, "stride"_a = std::pair<int, int>(1, 1),
        "dtype"_a = "float32", "stream"_a = cpu);
  m.def("conv_transpose2d", &conv_transpose2d, "x"_a, "packed"_a, "bias"_a.none() = nb::none(),
        "out_channels"_a, "kernel"_a, "stride"_a = std::pair<int, int>(1, 1),
        "padding"_a = std::pair<int, int>(0, 0), "output_padding"_a = std::pair<int, int>(0, 0),
        "activation"_a = "", "beside"_a.none() = nb::none(), "stream"_a = cpu);

  m.def("wavenet_gate", &wavenet_gate, "x"_a, "g"_a, "stream"_a = cpu);
  m.def("mel_stft", &mel_stft, "x"_a, "window"_a, "filters"_a, "hop"_a, "floor"_a = 1e-5f, "stream"_a = cpu);
  m.def("nsf_source", &nsf_source, "f0"_a, "noise"_a, "weight"_a, "bias"_a.none() = nb::none(),
        "offsets"_a.none() = nb::none(), "hop"_a, "sample_rate"_a, "phase"_a = std::vector<double>{0.0},
        "interpolation"_a = "nearest", "accumulation"_a = "frame", "stream"_a = cpu);
  m.def("resblock_algorithm", &resblock_algorithm, "channels"_a, "kernel"_a, "wanted"_a,
        "dtype"_a = "float32");
  m.def("resblock_pack", &resblock_pack, "weight"_a, "algorithm"_a, "dtype"_a = "float32", "stream"_a = cpu);
  m.def("resblock", &resblock, "x"_a, "packed"_a, "biases"_a, "convs"_a, "slope"_a, "stream"_a = cpu);

  m.def("knn", &knn, "queries"_a, "vectors"_a, "k"_a, "stream"_a = cpu);

  m.def("relpos_attention", &relpos_attention, "q"_a, "k"_a, "v"_a, "rel_k"_a, "rel_v"_a, "window"_a,
        "stream"_a = cpu);

#ifdef RVC_FAST_PLANTED_FAULTS
  // What the sanitizers have to notice; only in builds for their tests.
  m.def("read_beyond", [](mx::array x) {
    x.eval();
    return x.data<float>()[x.size()];
  });
  m.def("race", [] {
    int64_t sum = 0;
    parallel_for(50, [&](int64_t i) {
      sum += i;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // so that another thread gets its turn
    });
    return sum;
  });
#endif
}
