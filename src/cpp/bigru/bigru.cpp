#include "bigru/bigru.h"

#include <memory>

#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

struct GruArrays {
  const float* gates[2];
  const float *w, *b, *h;
  float* y[2];
  int64_t batch, steps, hidden;
};

void run(const GruArrays& a, const Scratch& scratch) {
  const Kernels& k = kernels();
  const int64_t packed = k.gru_packed_floats(a.hidden), rows = 3 * a.hidden;
  float* weights = scratch.shared();
  parallel_for(2, [&](int64_t d) {
    k.gru_pack(a.w + d * rows * a.hidden, a.b + d * rows, a.hidden, weights + d * packed);
  });
  parallel_for(2 * a.batch, scratch, [&](int64_t item, float* memory) {
    const int64_t d = item % 2, batch = item / 2;
    GruScan s{};
    s.gates = a.gates[d] + batch * a.steps * rows;
    s.steps = a.steps;
    s.hidden = a.hidden;
    s.backward = d == 1;
    s.packed = weights + d * packed;
    s.before = a.h + (d * a.batch + batch) * a.hidden;
    s.y = a.y[d] + batch * a.steps * a.hidden;
    s.scratch = memory;
    k.gru_scan(s);
  });
}

// Inputs: forward, backward, w_hh, b_hh, h. Outputs: the states of both directions.
class BiGru : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    GruArrays a{};
    for (int d : {0, 1}) {
      allocate(outputs[d]);
      a.gates[d] = inputs[d].data<float>();
      a.y[d] = outputs[d].data<float>();
    }
    a.w = inputs[2].data<float>(), a.b = inputs[3].data<float>(), a.h = inputs[4].data<float>();
    a.batch = outputs[0].shape(0), a.steps = outputs[0].shape(1), a.hidden = outputs[0].shape(2);
    const Kernels& k = kernels();
    dispatch({.shared = size_t(2 * k.gru_packed_floats(a.hidden)),
              .each = size_t(k.gru_scratch_floats(a.hidden)),
              .run = [a](const Scratch& scratch) { run(a, scratch); }});
  }

  const char* name() const override { return "bigru"; }
  bool is_equivalent(const mx::Primitive&) const override { return true; }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    const mx::Shape& gates = inputs[0].shape();
    mx::Shape shape{gates[0], gates[1], gates[2] / 3};
    return {shape, shape};
  }
};

}  // namespace

std::pair<mx::array, mx::array> bigru(const mx::array& forward, const mx::array& backward,
                                      const mx::array& w_hh, const mx::array& b_hh, const mx::array& h,
                                      mx::StreamOrDevice s) {
  auto check = [](const char* argument, const mx::array& x, const mx::Shape& shape) {
    require(is_floating(x), "bigru", std::string(argument) + " must be float32, float16 or bfloat16");
    require(
        x.shape() == shape, "bigru",
        std::string(argument) + " must be of shape " + to_string(shape) + ", got " + to_string(x.shape()));
  };
  require(w_hh.ndim() == 3 && w_hh.size() > 0, "bigru",
          "w_hh must be of shape (2, 3H, H), got " + to_string(w_hh.shape()));
  require(forward.ndim() == 3 && forward.size() > 0, "bigru",
          "forward must be of shape (B, T, 3H), got " + to_string(forward.shape()));
  const int hidden = w_hh.shape(2), batch = forward.shape(0), steps = forward.shape(1);
  check("w_hh", w_hh, {2, 3 * hidden, hidden});
  check("b_hh", b_hh, {2, 3 * hidden});
  check("forward", forward, {batch, steps, 3 * hidden});
  check("backward", backward, {batch, steps, 3 * hidden});
  check("h", h, {2, batch, hidden});
  std::vector<mx::array> inputs;
  for (const mx::array* x : {&forward, &backward, &w_hh, &b_hh, &h})
    inputs.push_back(dense(*x, mx::float32, s));
  mx::Shape shape{batch, steps, hidden};
  auto y = mx::array::make_arrays({shape, shape}, {mx::float32, mx::float32},
                                  std::make_shared<BiGru>(mx::to_stream(s)), inputs);
  return {mx::astype(y[0], forward.dtype(), s), mx::astype(y[1], forward.dtype(), s)};
}

}  // namespace rvc_fast
