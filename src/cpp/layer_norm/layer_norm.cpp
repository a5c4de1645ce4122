#include "layer_norm/layer_norm.h"

#include <algorithm>
#include <memory>

#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

// Numbers that one work item normalises: small rows are taken many at a time.
constexpr int64_t kNormItem = 1 << 14;

class LayerNormPrimitive : public CpuPrimitive {
 public:
  LayerNormPrimitive(mx::Stream stream, float eps, bool weight, bool bias, bool residual)
      : CpuPrimitive(stream), eps_(eps), weight_(weight), bias_(bias), residual_(residual) {}

  // Inputs: x, then those of weight, bias and residual that there are.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const mx::array& x = inputs[0];
    mx::array& out = outputs[0];
    size_t next = 1;
    auto take = [&](bool present) { return present ? inputs[next++].data<float>() : nullptr; };
    LayerNorm a{};
    a.x = x.data<float>();
    a.weight = take(weight_), a.bias = take(bias_), a.residual = take(residual_);
    a.width = x.shape(-1), a.eps = eps_;
    if (x.is_donatable()) {
      out.copy_shared_buffer(x);
    } else if (residual_ && inputs.back().is_donatable()) {
      out.copy_shared_buffer(inputs.back());
    } else {
      allocate(out);
    }
    a.y = out.data<float>();
    const int64_t rows = x.size() / a.width;
    dispatch({.run = [a, rows](const Scratch&) {
      const Kernels& k = kernels();
      const int64_t step = std::max<int64_t>(1, kNormItem / a.width);
      parallel_for(ceil_div(rows, step), [&](int64_t item) {
        LayerNorm part = a;
        const int64_t begin = item * step;
        part.rows = std::min(step, rows - begin);
        part.x += begin * a.width, part.y += begin * a.width;
        if (a.residual) part.residual += begin * a.width;
        k.layer_norm(part);
      });
    }});
  }

  const char* name() const override { return "layer_norm"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& o = static_cast<const LayerNormPrimitive&>(other);
    return eps_ == o.eps_ && weight_ == o.weight_ && bias_ == o.bias_ && residual_ == o.residual_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape()};
  }

 private:
  float eps_;
  bool weight_, bias_, residual_;
};

}  // namespace

mx::array layer_norm(const mx::array& x, const std::optional<mx::array>& weight,
                     const std::optional<mx::array>& bias, const std::optional<mx::array>& residual,
                     float eps, mx::StreamOrDevice s) {
  require(is_floating(x), "layer_norm", "x must be float32, float16 or bfloat16");
  require(x.ndim() >= 1 && x.size() > 0, "layer_norm",
          "x must be of shape (..., C), got " + to_string(x.shape()));
  require(eps >= 0.0f, "layer_norm", "eps must be at least 0, got " + std::to_string(eps));
  std::vector<mx::array> inputs{dense(x, mx::float32, s)};
  auto add = [&](const char* name, const std::optional<mx::array>& a, const mx::Shape& shape) {
    if (!a) return;
    require(a->shape() == shape, "layer_norm",
            std::string(name) + " must be of shape " + to_string(shape) + ", got " + to_string(a->shape()));
    inputs.push_back(dense(*a, mx::float32, s));
  };
  add("weight", weight, {x.shape(-1)});
  add("bias", bias, {x.shape(-1)});
  add("residual", residual, x.shape());
  mx::array y(x.shape(), mx::float32,
              std::make_shared<LayerNormPrimitive>(mx::to_stream(s), eps, weight.has_value(),
                                                   bias.has_value(), residual.has_value()),
              std::move(inputs));
  return mx::astype(y, x.dtype(), s);
}

}  // namespace rvc_fast
