#include "mel_stft/mel_stft.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numbers>
#include <utility>

#include "core/pool.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

// What depends on n_fft alone.
struct MelPlan {
  explicit MelPlan(int64_t n_fft) : points(n_fft % 2 ? n_fft : n_fft / 2), roots(2 * n_fft) {
    for (int64_t rest = points, radix = 4; rest > 1;) {
      if (rest % radix == 0) {
        factors.push_back(static_cast<int32_t>(radix));
        rest /= radix;
      } else {
        radix = radix == 4 ? 2 : radix == 2 ? 3 : radix * radix < rest ? radix + 2 : rest;
      }
    }
    for (int64_t k = 0; k < n_fft; ++k) {
      double angle = -2 * std::numbers::pi * double(k) / double(n_fft);
      roots[2 * k] = static_cast<float>(std::cos(angle)),
                roots[2 * k + 1] = static_cast<float>(std::sin(angle));
    }
  }

  int64_t points;
  std::vector<int32_t> factors;
  std::vector<float> roots;
};

// Each filter's first value other than zero and the end of the last one; NaN counts.
void find_bands(const float* filters, int64_t mels, int64_t bins, int32_t* bands) {
  for (int64_t mel = 0; mel < mels; ++mel, filters += bins) {
    int64_t begin = 0, end = bins;
    while (begin < end && filters[begin] == 0) ++begin;
    while (end > begin && filters[end - 1] == 0) --end;
    bands[2 * mel] = static_cast<int32_t>(begin), bands[2 * mel + 1] = static_cast<int32_t>(end);
  }
}

class MelStft : public CpuPrimitive {
 public:
  MelStft(mx::Stream stream, int hop, float floor) : CpuPrimitive(stream), hop_(hop), floor_(floor) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0]);
    MelFrames m{};
    m.x = inputs[0].data<float>();
    m.window = inputs[1].data<float>();
    m.filters = inputs[2].data<float>();
    m.y = outputs[0].data<float>();
    m.n_fft = inputs[1].shape(0);
    m.frames = outputs[0].shape(0);
    m.mels = outputs[0].shape(1);
    m.hop = hop_;
    m.floor = floor_;
    Work work;
    work.shared = 2 * m.mels;
    work.each = kernels().mel_scratch_floats(m.n_fft, m.mels);
    work.run = [m, plan = MelPlan(m.n_fft)](const Scratch& scratch) {
      const Kernels& k = kernels();
      auto* bands = reinterpret_cast<int32_t*>(scratch.shared());
      find_bands(m.filters, m.mels, m.n_fft / 2 + 1, bands);
      parallel_for(ceil_div(m.frames, k.lanes), scratch, [&](int64_t item, float* memory) {
        const int64_t begin = item * k.lanes;
        MelFrames part = m;
        part.x += begin * m.hop;
        part.y += begin * m.mels;
        part.frames = std::min<int64_t>(k.lanes, m.frames - begin);
        part.points = plan.points;
        part.factors = plan.factors.data();
        part.passes = static_cast<int32_t>(plan.factors.size());
        part.roots = plan.roots.data();
        part.bands = bands;
        part.scratch = memory;
        k.mel_frames(part);
      });
    };
    dispatch(std::move(work));
  }

  const char* name() const override { return "mel_stft"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& o = static_cast<const MelStft&>(other);
    return o.hop_ == hop_ && o.floor_ == floor_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {{(inputs[0].shape(0) - inputs[1].shape(0)) / hop_ + 1, inputs[2].shape(0)}};
  }

 private:
  int hop_;
  float floor_;
};

}  // namespace

mx::array mel_stft(const mx::array& x, const mx::array& window, const mx::array& filters, int hop,
                   float floor, mx::StreamOrDevice s) {
  const char* op = "mel_stft";
  for (const mx::array* a : {&x, &window, &filters})
    require(is_floating(*a), op, "x, window and filters must be float32, float16 or bfloat16");
  require(window.ndim() == 1 && window.size() >= 2, op,
          "window must be of shape (n_fft,), got " + to_string(window.shape()));
  const int n_fft = window.shape(0);
  require(x.ndim() == 1 && x.shape(0) >= n_fft, op,
          "x must be (n,) with n >= " + std::to_string(n_fft) + ", got " + to_string(x.shape()));
  require(filters.ndim() == 2 && filters.size() > 0 && filters.shape(1) == n_fft / 2 + 1, op,
          "filters must be of shape (mels, " + std::to_string(n_fft / 2 + 1) + "), got " +
              to_string(filters.shape()));
  require(hop >= 1, op, "hop must be at least 1, got " + std::to_string(hop));
  require(floor >= std::numeric_limits<float>::min(), op, "floor must be a normal number above 0");
  mx::Shape shape{(x.shape(0) - n_fft) / hop + 1, filters.shape(0)};
  return mx::array(shape, mx::float32, std::make_shared<MelStft>(mx::to_stream(s), hop, floor),
                   {dense(x, mx::float32, s), dense(window, mx::float32, s), dense(filters, mx::float32, s)});
}

}  // namespace rvc_fast
