// The convolution engine without MLX and without Python: random shapes in buffers of exactly their size (so
// that AddressSanitizer sees every byte too many), every instruction set, against plain loops in double.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>

#include "conv/run.h"
#include "core/pool.h"
#include "isa/bf16.h"

using namespace rvc_fast;

static std::mt19937 g_rng(1);

static int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(g_rng); }

static std::unique_ptr<float[]> normal(int64_t n) {
  std::normal_distribution<float> distribution;
  auto p = std::make_unique<float[]>(n);
  for (int64_t i = 0; i < n; ++i) p[i] = distribution(g_rng);
  return p;
}

// To bfloat16 and back, ties to even.
static float rounded(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Largest error relative to the sum of the magnitudes that were added.
static double check(const ConvParams& p, int batch, int height, int width) {
  const int64_t oh = output_length(p, 0, height), ow = output_length(p, 1, width);
  const int64_t channels = p.in_channels / p.groups, outs = p.out_channels / p.groups;
  const int64_t x_size = int64_t(batch) * height * width * p.in_channels,
                y_size = batch * oh * ow * p.out_channels;
  const int64_t w_size = int64_t(p.out_channels) * p.kernel[0] * p.kernel[1] * channels;
  auto x = normal(x_size), w = normal(w_size), bias = normal(p.out_channels), residual = normal(y_size);
  auto packed = std::make_unique<char[]>(packed_size(p) * (p.bf16 ? 2 : 4));
  auto y = std::make_unique<float[]>(y_size);
  std::fill(y.get(), y.get() + y_size, NAN);
  run_pack(p, w.get(), WeightType::float32, packed.get());
  run_conv(p, {x.get(), batch, height, width, packed.get(), bias.get(), residual.get(), y.get(), oh, ow});

  std::vector<double> sums(y_size), sizes(y_size);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < oh; ++h) {
      for (int64_t v = 0; v < ow; ++v) {
        for (int64_t kh = 0; kh < p.kernel[0]; ++kh) {
          for (int64_t kw = 0; kw < p.kernel[1]; ++kw) {
            int64_t ih = h * p.stride[0] - p.before[0] + kh * p.dilation[0];
            int64_t iw = v * p.stride[1] - p.before[1] + kw * p.dilation[1];
            if (p.transposed) {
              ih = h + p.before[0] - kh, iw = v + p.before[1] - kw;
              if (ih % p.stride[0] || iw % p.stride[1]) continue;
              ih /= p.stride[0], iw /= p.stride[1];
            }
            if (ih < 0 || iw < 0 || ih >= height || iw >= width) continue;
            for (int64_t o = 0; o < p.out_channels; ++o) {
              const int64_t to = ((b * oh + h) * ow + v) * p.out_channels + o, group = o / outs;
              for (int64_t c = 0; c < channels; ++c) {
                float in = x[((b * height + ih) * width + iw) * p.in_channels + group * channels + c];
                float weight = w[((o * p.kernel[0] + kh) * p.kernel[1] + kw) * channels + c];
                if (in < 0) in *= p.leaky;
                if (p.bf16) in = rounded(in), weight = rounded(weight);
                double product = double(in) * weight;
                sums[to] += product;
                sizes[to] += std::fabs(product);
              }
            }
          }
        }
      }
    }
  }
  double worst = 0;
  for (int64_t i = 0; i < y_size; ++i) {
    const double at = bias[i % p.out_channels];
    double want = sums[i] + at;
    if (p.activation == kRelu) want = std::max(want, 0.0);
    if (p.activation == kGelu) want = 0.5 * want * (1 + std::erf(want / std::sqrt(2.0)));
    want = (want + residual[i]) * p.scale;
    const double error = std::fabs(y[i] - want) / (sizes[i] + std::fabs(at) + std::fabs(residual[i]) + 1e-30);
    worst = error <= worst ? worst : error;  // a NaN becomes the worst
    if (std::isnan(error)) return error;
  }
  return worst;
}

int main() {
  set_threads(2);
  int failed = 0;
  for (int round = 0; round < 250; ++round) {
    const Isa* k = kIsas;
    for (int i = pick(0, 4); i > 0 && k[1].name; --i) ++k;
    if (!set_isa(k->name)) continue;
    ConvParams p{.op = "test"};
    const bool flat = pick(0, 1);
    p.transposed = pick(0, 2) == 0;
    p.groups = p.transposed ? 1 : pick(1, 3);
    p.in_channels = p.groups * pick(1, 40);
    p.out_channels = p.groups * pick(1, 70);
    for (int i : {0, 1}) {
      if (flat && i == 0) continue;
      p.kernel[i] = pick(1, 7);
      p.stride[i] = pick(1, 4);
      p.dilation[i] = p.transposed ? 1 : pick(1, 3);
      p.before[i] = pick(0, p.kernel[i]);
      p.after[i] = p.transposed ? p.before[i] - pick(0, p.stride[i] - 1) : pick(0, p.kernel[i]);
    }
    p.bf16 = isa().bf16 != nullptr;
    p.leaky = pick(0, 1) ? 1.0f : 0.1f;
    p.activation = static_cast<Activation>(pick(0, 2));
    p.scale = pick(0, 1) ? 1.0f : 0.5f;
    const int batch = pick(1, 2), height = flat ? 1 : pick(1, 30), width = pick(1, flat ? 150 : 30);
    if (output_length(p, 0, height) < 1 || output_length(p, 1, width) < 1) continue;
    const double error = check(p, batch, height, width);
    if (!(error < 1e-6)) {
      std::fprintf(stderr, "%s: error %g at C %d O %d K %dx%d stride %dx%d, %dx%d, transposed %d\n",
                   isa().name, error, p.in_channels, p.out_channels, p.kernel[0], p.kernel[1],
                   p.stride[0], p.stride[1], height, width, p.transposed);
      ++failed;
    }
  }
  return failed ? 1 : 0;
}
