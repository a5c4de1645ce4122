// The convolution that keeps the length, direct and in every fast variant, and the stages made of it.
#include <algorithm>

#include "check.h"
#include "conv/run.h"
#include "core/pool.h"
#include "fastconv/same_conv.h"
#include "resblock/run.h"

namespace rvc_fast::test {
namespace {

// The fast variants' products cancel: their error is larger than that of a plain sum, but this is 100 dB.
constexpr double kTolerance = 5e-6;

// weight (channels, taps, channels) in the layout of `variant`; every value of it must be written.
Floats& pack(Floats& packed, int variant, int channels, int taps, const Floats& weight) {
  if (variant == kDirect) {
    ConvParams p{.op = "", .kernel = {1, taps}, .in_channels = channels, .out_channels = channels};
    run(pack_work(p, weight, Format::float32, packed));
  } else {
    pack_fast(variant, channels, channels, weight, Format::float32, packed);
  }
  check(packed.intact() && std::none_of(packed.begin(), packed.end(), untouched),
        text("packed weights of variant %d", variant));
  return packed;
}

size_t packed_floats(int variant, int channels, int taps) {
  if (variant != kDirect) return fast_packed_size(variant, channels, channels);
  return size_t(channels) * taps * ((channels + 15) / 16 * 16);
}

enum Alias { kNowhere, kOnResidual, kOnTotal };

void same_conv_case(const Kernels& k, int variant, int channels, int taps, int dilation, int64_t rows,
                    int addends, Alias alias) {
  std::mt19937_64 random = random_numbers();
  const std::string what = text("%s, %d channels, %d taps, dilation %d, %lld rows, %d addends%s",
                                variant == kDirect ? "direct" : kFastVariants[variant].name, channels, taps,
                                dilation, (long long)rows, addends,
                                alias == kNowhere      ? ""
                                : alias == kOnResidual ? ", onto the residual"
                                                       : ", onto the total");
  SameConv c{};
  c.rows = rows, c.channels = channels, c.taps = taps, c.dilation = dilation, c.slope = 0.1f;
  c.variant = variant, c.block = 12;
  const int64_t reach = int64_t(taps / 2) * dilation, written = written_rows(c);
  Floats x((written + 2 * reach) * channels, random),
      weight(size_t(channels) * taps * channels, random, 1 / std::sqrt(channels * taps)),
      packed(packed_floats(variant, channels, taps)), bias(channels, random),
      residual(written * channels, random), total(written * channels, random), y(written * channels),
      workspace(same_conv_workspace(c));
  c.x = x + reach * channels;
  c.w = pack(packed, variant, channels, taps, weight);
  c.bias = bias;
  c.residual = addends > 0 ? residual.data() : nullptr;
  c.total = addends > 1 ? total.data() : nullptr;
  c.workspace = workspace;

  const std::vector<Wanted>& want = once(what, [&] {
    std::vector<Wanted> sums(y.size(), {0.0, HUGE_VAL});  // rows of an unfinished tile: anything
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t o = 0; o < channels; ++o) {
        const int64_t at = t * channels + o;
        double sum = bias[o], magnitude = 1;
        for (int64_t tap = 0; tap < taps; ++tap) {
          for (int64_t i = 0; i < channels; ++i) {
            const double product = leaky(x[(t + tap * dilation) * channels + i], c.slope) *
                                   weight[(o * taps + tap) * channels + i];
            sum += product;
            magnitude += std::abs(product);
          }
        }
        if (addends > 0) sum += residual[at];
        if (addends > 1) sum += total[at];
        sums[at] = {sum, magnitude};
      }
    }
    return sums;
  });
  const Floats& out = alias == kOnResidual ? residual : alias == kOnTotal ? total : y;
  c.y = out;
  k.same_conv(c);
  check_close(out, want, kTolerance, what);
  check(workspace.intact(), what + ": written beside the workspace");
}

void same_conv(const Kernels& k) {
  for (int variant = 0; variant < kFastVariantCount; ++variant) {
    const FastVariant& v = kFastVariants[variant];
    int64_t counter = 0;
    for (int channels : {16, 48}) {
      for (int dilation : {1, 3}) {
        const int64_t many = 15 * v.outputs * dilation + 2;
        for (int64_t rows : {int64_t(1), int64_t(v.outputs), many}) {
          // Many channels and many rows meet without dilation only: their sums in double take longest.
          if (channels > 16 && dilation > 1 && rows == many) continue;
          const int addends = int(counter++ % 3);
          same_conv_case(k, variant, channels, v.taps, dilation, rows, addends,
                         static_cast<Alias>(std::min<int64_t>(addends, counter / 3 % 3)));
        }
      }
    }
    same_conv_case(k, variant, 32, v.taps, 1, 2 * v.outputs + 1, 2, kOnTotal);
  }
  for (int channels : {1, 7, 16, 33}) {
    for (int taps : {1, 3, 5}) {
      for (int64_t rows : {1, 12, 13, 131}) {
        for (int addends : {0, 1, 2})
          same_conv_case(k, kDirect, channels, taps, 1 + addends, rows, addends, static_cast<Alias>(addends));
      }
    }
  }
  check(find_variant("direct") == kDirect && find_variant("k9") < kDirect, "names of variants");
}

// A stage against its definition. `fast` takes the fast variants, where there is one.
void stage_case(int channels, int64_t batch, int64_t length, bool fast, int convs_per_step,
                ResTuning tuning) {
  std::mt19937_64 random = random_numbers();
  const std::string what =
      text("stage of %d channels, %lld x %lld%s, chunks of %lld", channels, (long long)batch,
           (long long)length, fast ? ", fast" : "", (long long)tuning.chunk);
  ResStage stage{channels, 0.1f, {}};
  for (int taps : {3, 7}) {
    for (int dilation : {1, 2}) {
      for (int i = 0; i < convs_per_step; ++i) {
        const bool ends = i == convs_per_step - 1;
        const int variant = fast ? find_variant(taps == 3 ? "k3n2e8" : "k7n8e10") : kDirect;
        stage.convs.push_back({taps, i == 0 ? dilation : 1, variant, ends, ends && dilation == 2});
      }
    }
  }
  const int64_t size = length * channels;
  Floats x(batch * size, random), y(batch * size);
  std::vector<Floats*> weights, packed, biases;
  std::vector<const void*> packed_data;
  std::vector<const float*> bias_data;
  for (const ResConv& conv : stage.convs) {
    weights.push_back(
        new Floats(size_t(channels) * conv.taps * channels, random, 0.3 / std::sqrt(channels * conv.taps)));
    packed.push_back(new Floats(packed_floats(conv.variant, channels, conv.taps)));
    biases.push_back(new Floats(channels, random, 0.1));
    packed_data.push_back(pack(*packed.back(), conv.variant, channels, conv.taps, *weights.back()));
    bias_data.push_back(*biases.back());
  }
  run(resblock_work(stage, x, batch, length, packed_data, bias_data, y, tuning));

  std::vector<Wanted> want(y.size(), {0.0, 4.0});
  for (int64_t b = 0; b < batch; ++b) {
    const std::vector<double> input(x + b * size, x + (b + 1) * size);
    std::vector<double> step = input, current = input;
    for (size_t n = 0; n < stage.convs.size(); ++n) {
      const ResConv& conv = stage.convs[n];
      std::vector<double> next(size);
      for (int64_t at = 0; at < size; ++at) {
        const int64_t t = at / channels, o = at % channels;
        double sum = (*biases[n])[o];
        for (int64_t tap = 0; tap < conv.taps; ++tap) {
          const int64_t from = t + (tap - conv.taps / 2) * conv.dilation;
          if (from < 0 || from >= length) continue;
          const float* w = *weights[n] + (o * conv.taps + tap) * channels;
          for (int64_t i = 0; i < channels; ++i) sum += leaky(current[from * channels + i], 0.1f) * w[i];
        }
        next[at] = sum + (conv.ends_step ? step[at] : 0.0);
      }
      current = next;
      if (conv.ends_step) step = current;
      if (conv.ends_block) {
        for (int64_t at = 0; at < size; ++at) want[b * size + at].value += current[at] / 2;
        step = current = input;
      }
    }
  }
  check_close(y, want, kTolerance, what);
  for (auto* arrays : {&weights, &packed, &biases}) {
    for (Floats* array : *arrays) delete array;
  }
}

void stages(const Kernels&) {
  for (int threads : {1, 3}) {
    set_threads(threads);
    for (int64_t length : {1, 5, 53}) {
      stage_case(5, 2, length, false, 2, {});
      stage_case(5, 1, length, false, 1, {.chunk = 4});
      stage_case(16, 2, length, true, 2, {});
      stage_case(16, 1, length, true, 1, {.chunk = 7, .block = 3});
      stage_case(16, 1, length, true, 3, {.chunk = 16});
    }
  }
}

Test same_test("same_conv", same_conv), resblock_test("resblock_work", stages);

}  // namespace
}  // namespace rvc_fast::test
