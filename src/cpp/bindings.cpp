#include "core/bindings.h"

#include <nanobind/ndarray.h>

#include <chrono>
#include <limits>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <utility>

#include "conv/format.h"
#include "core/ahead.h"
#include "core/arrays.h"
#include "core/pool.h"
#include "core/signature.h"
#include "core/trace.h"
#include "isa/kernels.h"
#include "layout.h"

namespace rvc_fast {
namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa* i = kIsas; i->name; ++i) {
    if (supported(*i)) names.emplace_back(i->name);
  }
  return names;
}

// The number formats that the instruction set in use multiplies in.
std::vector<std::string> formats() {
  std::vector<std::string> names;
  for (int i = 0; i < kFormats; ++i) {
    if (kernels(static_cast<Format>(i))) names.emplace_back(format_row(static_cast<Format>(i)).name);
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

  m.def("configure", &configure, nb::kw_only(), "threads"_a = 0, "isa"_a = "");
  m.def("isa", [] { return std::string(isa().name); });
  m.def("isas", &isas);
  m.def("formats", &formats);
  m.def("threads", &threads);
  m.def("release_scratch", &release_scratch);
  m.def("set_ahead_limit", &set_ahead_limit, "bytes"_a);
  m.def("layout", [] { return std::string(kLayout); });
  m.def("start_trace", &start_trace);
  m.def("end_trace", [] {
    std::vector<std::tuple<std::string, double, std::vector<std::vector<double>>>> ops;
    for (auto& o : end_trace()) ops.emplace_back(std::move(o.op), o.seconds, std::move(o.jobs));
    return ops;
  });
  m.def("borrow", &borrow_numpy, "x"_a.noconvert());
  m.def("read_arrays", &read_arrays, "fd"_a, "spans"_a, nb::call_guard<nb::gil_scoped_release>());

  m.def("signature", &signature, "arguments"_a,
        nb::sig("def signature(arguments: tuple[object, ...]) -> bytes | None"));
  m.def("with_rules", &with_rules, "rules"_a, "run"_a, "arguments"_a,
        nb::sig("def with_rules(rules: object, run: Callable[..., Any], *arguments: object) -> Any"));

  bind_attention(m);
  bind_bigru(m);
  bind_conv1d(m);
  bind_conv2d(m);
  bind_conv_transpose1d(m);
  bind_conv_transpose2d(m);
  bind_iir(m);
  bind_knn(m);
  bind_layer_norm(m);
  bind_linear(m);
  bind_mel_stft(m);
  bind_nsf_source(m);
  bind_peak(m);
  bind_quantized_linear(m);
  bind_relpos_attention(m);
  bind_resblock(m);
  bind_wavenet_gate(m);

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
