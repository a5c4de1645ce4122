#include "nsf_source/nsf_source.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

// Sines that one work item takes.
constexpr int64_t kSourceItem = 1 << 14;

struct Params {
  int hop, sample_rate;
  std::vector<double> phase;
  bool linear, by_frame;

  bool operator==(const Params&) const = default;
};

struct SourceArrays {
  const float *f0, *noise, *weight, *bias, *offsets;
  float* y;
  int64_t batch, frames, harmonics;
};

void run(const Params& p, const SourceArrays& a, const Scratch& scratch) {
  const Kernels& k = kernels();
  const int64_t size = std::max<int64_t>(1, kSourceItem / (p.hop * a.harmonics)),
                items = ceil_div(a.frames, size);
  auto* starts = reinterpret_cast<double*>(scratch.shared());
  auto each = [&](auto&& f) {
    parallel_for(a.batch * items, scratch, [&](int64_t item, float* memory) {
      const int64_t b = item / items, begin = item % items * size;
      NsfFrames s{};
      s.f0 = a.f0 + b * a.frames + begin;
      s.frames = std::min(size, a.frames - begin);
      s.first = begin == 0;
      s.last = begin + s.frames == a.frames;
      s.hop = p.hop;
      s.harmonics = a.harmonics;
      s.sample_rate = static_cast<float>(p.sample_rate);
      s.linear = p.linear;
      s.by_frame = p.by_frame;
      s.start_row = a.frames;
      const int64_t sample = (b * a.frames + begin) * p.hop;
      s.noise = a.noise + sample * a.harmonics;
      s.weight = a.weight;
      s.bias = a.bias ? *a.bias : 0.0f;
      s.y = a.y + sample;
      s.scratch = memory;
      f(s, starts + b * a.harmonics * a.frames + begin);
    });
  };
  each([&](const NsfFrames& s, double* advance) { k.nsf_advance(s, advance); });
  for (int64_t row = 0; row < a.batch * a.harmonics; ++row) {
    const int64_t b = row / a.harmonics, h = row % a.harmonics;
    double cycles =
        p.phase[p.phase.size() == 1 ? 0 : b] * double(h + 1) + (a.offsets ? double(a.offsets[row]) : 0.0);
    for (int64_t t = 0; t < a.frames; ++t) {
      double& start = starts[row * a.frames + t];
      const double advance = start;
      start = cycles - std::rint(cycles);
      cycles += advance;
    }
  }
  each([&](NsfFrames& s, const double* start) {
    s.start = start;
    k.nsf_frames(s);
  });
}

// Inputs: f0, noise, weight, then bias and offsets where there are any.
class NsfSource : public CpuPrimitive {
 public:
  NsfSource(mx::Stream stream, Params params, bool has_bias, bool has_offsets)
      : CpuPrimitive(stream), params_(std::move(params)), has_bias_(has_bias), has_offsets_(has_offsets) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0]);
    SourceArrays a{};
    a.f0 = inputs[0].data<float>();
    a.noise = inputs[1].data<float>();
    a.weight = inputs[2].data<float>();
    a.bias = has_bias_ ? inputs[3].data<float>() : nullptr;
    a.offsets = has_offsets_ ? inputs.back().data<float>() : nullptr;
    a.y = outputs[0].data<float>();
    a.batch = inputs[0].shape(0), a.frames = inputs[0].shape(1), a.harmonics = inputs[2].shape(0);
    dispatch({.shared = a.batch * a.harmonics * a.frames * sizeof(double) / sizeof(float),
              .each = 3 * (size_t(params_.hop) + 16),
              .run = [p = params_, a](const Scratch& scratch) { run(p, a, scratch); }});
  }

  const char* name() const override { return "nsf_source"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& o = static_cast<const NsfSource&>(other);
    return o.params_ == params_ && o.has_bias_ == has_bias_ && o.has_offsets_ == has_offsets_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    const mx::Shape& f0 = inputs[0].shape();
    return {{f0[0], f0[1] * params_.hop, 1}};
  }

 private:
  Params params_;
  bool has_bias_, has_offsets_;
};

}  // namespace

mx::array nsf_source(const mx::array& f0, const mx::array& noise, const mx::array& weight,
                     const std::optional<mx::array>& bias, const std::optional<mx::array>& offsets, int hop,
                     int sample_rate, const std::vector<double>& phase, const std::string& interpolation,
                     const std::string& accumulation, mx::StreamOrDevice s) {
  const char* op = "nsf_source";
  require(f0.ndim() == 2 && f0.size() > 0, op, "f0 must be of shape (B, T), got " + to_string(f0.shape()));
  require(hop >= 1 && sample_rate >= 1, op, "hop and sample_rate must be at least 1");
  require(weight.ndim() == 1 && weight.size() > 0, op,
          "weight must be of shape (H,), got " + to_string(weight.shape()));
  const int batch = f0.shape(0), samples = f0.shape(1) * hop, harmonics = weight.shape(0);
  require(phase.size() == 1 || phase.size() == size_t(batch), op, "phase must be one number or one per row");
  require(interpolation == "nearest" || interpolation == "linear", op,
          "interpolation must be \"nearest\" or \"linear\", got \"" + interpolation + "\"");
  require(accumulation == "sample" || (accumulation == "frame" && interpolation == "nearest"), op,
          "accumulation must be \"sample\", or \"frame\" with \"nearest\", got \"" + accumulation + "\"");
  std::vector<mx::array> inputs;
  auto take = [&](const char* argument, const mx::array& x, const mx::Shape& shape) {
    require(is_floating(x), op, std::string(argument) + " must be float32, float16 or bfloat16");
    require(
        x.shape() == shape, op,
        std::string(argument) + " must be of shape " + to_string(shape) + ", got " + to_string(x.shape()));
    inputs.push_back(dense(x, mx::float32, s));
  };
  take("f0", f0, f0.shape());
  take("noise", noise, {batch, samples, harmonics});
  take("weight", weight, {harmonics});
  if (bias) take("bias", *bias, {1});
  if (offsets) take("offsets", *offsets, {batch, harmonics});
  Params params{hop, sample_rate, phase, interpolation == "linear", accumulation == "frame"};
  return mx::array(
      {batch, samples, 1}, mx::float32,
      std::make_shared<NsfSource>(mx::to_stream(s), std::move(params), bool(bias), bool(offsets)), inputs);
}

}  // namespace rvc_fast
