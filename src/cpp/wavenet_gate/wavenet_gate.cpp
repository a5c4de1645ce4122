#include "wavenet_gate/wavenet_gate.h"

#include <algorithm>
#include <memory>

#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

// Numbers of x that one work item takes.
constexpr int64_t kGateItem = 1 << 15;

class WavenetGate : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const mx::array &x = inputs[0], &g = inputs[1];
    allocate(outputs[0]);
    const int64_t batch = x.shape(0), steps = x.shape(1), width = x.shape(2);
    const int64_t g_row = g.shape(1) == 1 ? 0 : width, g_batch = g.shape(0) == 1 ? 0 : g.shape(1) * width;
    dispatch({.run = [=, x = x.data<float>(), g = g.data<float>(),
                      y = outputs[0].data<float>()](const Scratch&) {
      const Kernels& k = kernels();
      const int64_t rows = std::max<int64_t>(1, kGateItem / width), items = ceil_div(steps, rows);
      parallel_for(batch * items, [&](int64_t item) {
        const int64_t b = item / items, begin = item % items * rows, count = std::min(rows, steps - begin);
        k.gate(x + (b * steps + begin) * width, g + b * g_batch + begin * g_row, g_row, count, width / 2,
               y + (b * steps + begin) * width / 2);
      });
    }});
  }

  const char* name() const override { return "wavenet_gate"; }
  bool is_equivalent(const mx::Primitive&) const override { return true; }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    const mx::Shape& x = inputs[0].shape();
    return {{x[0], x[1], x[2] / 2}};
  }
};

}  // namespace

mx::array wavenet_gate(const mx::array& x, const mx::array& g, mx::StreamOrDevice s) {
  const char* op = "wavenet_gate";
  require(is_floating(x), op, "x must be float32, float16 or bfloat16");
  require(is_floating(g), op, "g must be float32, float16 or bfloat16");
  require(x.ndim() == 3 && x.size() > 0 && x.shape(2) % 2 == 0, op,
          "x must be of shape (B, T, 2H), got " + to_string(x.shape()));
  bool fits = g.ndim() == 3 && g.shape(2) == x.shape(2);
  for (int axis : {0, 1}) fits = fits && (g.shape(axis) == 1 || g.shape(axis) == x.shape(axis));
  require(fits, op, "g must be broadcastable to " + to_string(x.shape()) + ", got " + to_string(g.shape()));
  mx::Shape shape{x.shape(0), x.shape(1), x.shape(2) / 2};
  mx::array y(shape, mx::float32, std::make_shared<WavenetGate>(mx::to_stream(s)),
              {dense(x, mx::float32, s), dense(g, mx::float32, s)});
  return mx::astype(y, x.dtype(), s);
}

}  // namespace rvc_fast
