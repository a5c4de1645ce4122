// The direct convolution: its kernels, and the plan that runs them.
#include <algorithm>
#include <bit>
#include <numeric>

#include "check.h"
#include "conv/run.h"
#include "core/pool.h"
#include "fastconv/same_conv.h"

namespace rvc_fast::test {
namespace {

struct Shape {
  int64_t lines, rows, columns;
  std::vector<Segment> segments;
  std::vector<int32_t> block_ends;
};

// One call of conv_block; `variant` picks what follows the sum.
void conv_block_case(const Shape& s, int variant) {
  std::mt19937_64 random = random_numbers();
  const std::string what =
      text("%lld x %lld x %lld, %zu segments in %zu blocks, variant %d", (long long)s.lines,
           (long long)s.rows, (long long)s.columns, s.segments.size(), s.block_ends.size(), variant);
  int64_t reduction = 0, reach = 0;
  for (const Segment& segment : s.segments) {
    reduction += segment.length;
    reach = std::max(reach, segment.offset + segment.length);
  }
  const int64_t x_row = reach + variant % 2, x_line = s.rows * x_row + 3;
  const int64_t y_row = s.columns + variant % 3, y_line = s.rows * y_row + 2;
  const bool bias = variant % 2 == 1, residual = variant / 2 % 2 == 1;

  // Only what the segments cover may be read: the rest stays NaN.
  Floats x((s.lines - 1) * x_line + (s.rows - 1) * x_row + reach);
  std::normal_distribution<float> normal;
  for (int64_t l = 0; l < s.lines; ++l) {
    for (int64_t r = 0; r < s.rows; ++r) {
      for (const Segment& segment : s.segments) {
        float* at = x + l * x_line + r * x_row + segment.offset;
        for (int64_t c = 0; c < segment.length; ++c) at[c] = normal(random);
      }
    }
  }
  Floats w(reduction * round_up(s.columns, kNarrowPanel));
  for (int64_t column = 0; column < round_up(s.columns, kNarrowPanel); ++column) {
    const int64_t panel = column / kPanel * kPanel, width = panel_width(s.columns - panel);
    for (int64_t i = 0; i < reduction; ++i)
      w[panel * reduction + i * width + column - panel] = column < s.columns ? normal(random) : 0.0f;
  }
  const int64_t y_size = (s.lines - 1) * y_line + (s.rows - 1) * y_row + s.columns;
  Floats b(bias ? s.columns : 0, random), extra(residual ? y_size : 0, random), y(y_size);
  Floats partial(s.block_ends.size() > 1 ? partial_floats(s.lines, s.rows, s.columns) : 0);

  ConvBlock block{};
  block.x = x, block.x_line = x_line, block.x_row = x_row;
  block.lines = s.lines, block.rows = s.rows, block.columns = s.columns;
  block.segments = s.segments.data();
  block.block_ends = s.block_ends.data();
  block.blocks = static_cast<int32_t>(s.block_ends.size());
  block.w = w;
  block.bias = bias ? b.data() : nullptr;
  block.residual = residual ? extra.data() : nullptr;
  block.y = y, block.y_line = y_line, block.y_row = y_row;
  block.scale = variant % 4 == 3 ? 0.5f : 1.0f;
  block.activation = static_cast<Activation>(variant % 5);
  block.partial = partial.size() ? partial.data() : nullptr;
  kernels(Format::float32)->block(block);

  std::vector<Wanted> want(y_size);
  for (int64_t l = 0; l < s.lines; ++l) {
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t column = 0; column < s.columns; ++column) {
        const int64_t panel = column / kPanel * kPanel, width = panel_width(s.columns - panel);
        const float* weights = w + panel * reduction + column - panel;
        double sum = 0, magnitude = 1;
        for (const Segment& segment : s.segments) {
          const float* from = x + l * x_line + r * x_row + segment.offset;
          for (int64_t c = 0; c < segment.length; ++c, weights += width) {
            sum += double(from[c]) * *weights;
            magnitude += std::abs(double(from[c]) * *weights);
          }
        }
        const int64_t at = l * y_line + r * y_row + column;
        if (bias) sum += b[column];
        sum = activate(sum, block.activation);
        if (residual) sum += extra[at];
        want[at] = {sum * block.scale, magnitude};
      }
    }
  }
  check_close(y, want, 1e-6, what);
  check(partial.intact(), what + ": written beside the partial sums");
}

void conv_block(const Kernels&) {
  // One segment; two with a gap; three blocks of uneven length, of which two share a run.
  const std::vector<std::pair<std::vector<Segment>, std::vector<int32_t>>> reductions{
      {{{0, 1}}, {1}},
      {{{0, 5}, {7, 6}}, {2}},
      {{{0, 7}, {7, 3}, {12, 11}, {30, 2}}, {1, 3, 4}},
  };
  int variant = 0;
  for (const auto& [segments, ends] : reductions) {
    for (int64_t columns : {1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 64, 67}) {
      for (int64_t rows : {1, 2, 5, 6, 7, 11, 12, 13, 25})
        conv_block_case({1 + rows % 2, rows, columns, segments, ends}, variant++);
    }
  }
}

void copy_input(const Kernels&) {
  int variant = 0;
  for (int64_t channels : {1, 3, 4, 7, 8, 15, 16, 17, 33}) {
    for (auto [line, row] : {std::pair<int64_t, int64_t>{0, 0}, {-1, -2}, {1, 2}, {-5, 0}, {0, 9}}) {
      std::mt19937_64 random = random_numbers();
      InputCopy s{};
      s.height = 3, s.width = 5, s.pitch = channels + 2;
      s.line = line, s.row = row, s.lines = 3, s.rows = 4, s.channels = channels;
      const float slopes[] = {1.0f, 0.1f, 0.0f};
      s.slope = slopes[variant++ % 3];
      Floats x((s.height * s.width - 1) * s.pitch + channels);
      std::normal_distribution<float> normal;
      for (int64_t i = 0; i < s.height * s.width; ++i) {
        for (int64_t c = 0; c < channels; ++c) x[i * s.pitch + c] = normal(random);
      }
      s.x = x;
      s.to_pitch = channels + 1;
      Floats to((s.lines * s.rows - 1) * s.to_pitch + channels);
      s.to = to;
      kernels(Format::float32)->copy_input(s);
      std::vector<Wanted> want(to.size());
      for (int64_t l = 0; l < s.lines; ++l) {
        for (int64_t r = 0; r < s.rows; ++r) {
          const int64_t h = line + l, w = row + r;
          const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
          for (int64_t c = 0; c < channels; ++c) {
            double v = inside ? x[(h * s.width + w) * s.pitch + c] : 0.0;
            want[(l * s.rows + r) * s.to_pitch + c] = {leaky(v, s.slope), std::abs(v)};
          }
        }
      }
      check_close(to, want, 1e-7,
                  text("%lld channels from (%lld, %lld), slope %g", (long long)channels, (long long)line,
                       (long long)row, s.slope));
    }
  }
}

// To bfloat16 and back, ties to even.
float rounded(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  return std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

// A whole convolution from its definition, x and y of one image.
std::vector<Wanted> direct(const ConvParams& p, const ConvArrays& a, const float* weight) {
  const int64_t channels = p.in_channels / p.groups, columns = p.out_channels / p.groups;
  std::vector<Wanted> want(a.batch * a.out_height * a.out_width * p.out_channels, {0.0, 1.0});
  const std::array<int64_t, 2> in{a.height, a.width}, out{a.out_height, a.out_width};
  for (int64_t at = 0; at < static_cast<int64_t>(want.size()); ++at) {
    const int64_t o = at % p.out_channels, group = o / columns;
    const std::array<int64_t, 2> y{at / p.out_channels / out[1] % out[0], at / p.out_channels % out[1]};
    const int64_t batch = at / p.out_channels / out[1] / out[0];
    double sum = 0;
    for (int64_t kh = 0; kh < p.kernel[0]; ++kh) {
      for (int64_t kw = 0; kw < p.kernel[1]; ++kw) {
        const std::array<int64_t, 2> tap{kh, kw};
        std::array<int64_t, 2> x;
        bool inside = true;
        for (int i : {0, 1}) {
          if (p.transposed) {
            const int64_t shifted = y[i] + p.before[i] - tap[i];
            inside = inside && shifted >= 0 && shifted % p.stride[i] == 0;
            x[i] = shifted / p.stride[i];
          } else {
            x[i] = y[i] * p.stride[i] - p.before[i] + tap[i] * p.dilation[i];
          }
          inside = inside && x[i] >= 0 && x[i] < in[i];
        }
        if (!inside) continue;
        for (int64_t c = 0; c < channels; ++c) {
          const float v = a.x[((batch * in[0] + x[0]) * in[1] + x[1]) * p.in_channels + group * channels + c];
          const float w = weight[((o * p.kernel[0] + kh) * p.kernel[1] + kw) * channels + c];
          const double product = p.format == Format::bfloat16
                                     ? double(rounded(v < 0 ? v * p.leaky : v)) * rounded(w)
                                     : leaky(v, p.leaky) * w;
          sum += product;
          want[at].magnitude += std::abs(product);
        }
      }
    }
    if (a.bias) sum += a.bias[o];
    sum = activate(sum, p.activation);
    if (a.residual) sum += a.residual[at];
    want[at].value = sum * p.scale;
  }
  return want;
}

void run_conv_case(ConvParams p, int64_t batch, int64_t height, int64_t width, const std::string& what) {
  if (kernels(Format::bfloat16) && p.algorithm == Algorithm{}) p.format = Format::bfloat16;
  std::mt19937_64 random = random_numbers();
  ConvArrays a{};
  a.batch = batch, a.height = height, a.width = width;
  a.out_height = output_length(p, 0, height), a.out_width = output_length(p, 1, width);
  const int64_t channels = p.in_channels / p.groups,
                y_size = batch * a.out_height * a.out_width * p.out_channels;
  Floats x(batch * height * width * p.in_channels, random),
      weight(int64_t(p.out_channels) * p.kernel[0] * p.kernel[1] * channels, random),
      packed(packed_size(p) * format_row(p.format).bytes / 4), bias(p.has_bias ? p.out_channels : 0, random),
      residual(p.has_residual ? y_size : 0, random);
  const int64_t pixels = batch * a.out_height * a.out_width, pitch = p.out_channels + p.beside;
  Floats beside(pixels * p.beside, random), all(pixels * pitch), y(y_size);
  run(pack_work(p, weight, Format::float32, packed));
  check(packed.intact() && std::none_of(packed.begin(), packed.end(), untouched), what + ": packed weights");
  a.x = x, a.weights = packed, a.y = all, a.beside = beside;
  a.bias = p.has_bias ? bias.data() : nullptr;
  a.residual = p.has_residual ? residual.data() : nullptr;
  run(conv_work(p, a));
  check(all.intact(), what + ": written beside the result");
  for (int64_t i = 0; i < pixels; ++i) {
    std::copy_n(all + i * pitch, p.out_channels, y + i * p.out_channels);
    check(std::equal(beside + i * p.beside, beside + (i + 1) * p.beside, all + i * pitch + p.out_channels),
          what + ": what stands beside the result");
  }
  const std::vector<Wanted>& want = once(what + " in " + format_row(p.format).name, [&] {
    std::vector<Wanted> sums = direct(p, a, weight);
    if (p.algorithm.method != Method::direct) {  // an output rounds as the largest of its tile does, even
                                                 // where it has few terms itself
      double most = 0;
      for (const Wanted& w : sums) most = std::max(most, w.magnitude);
      for (Wanted& w : sums) w.magnitude = most;
    }
    return sums;
  });
  check_close(y, want, p.algorithm.method == Method::fast ? 5e-6 : 1e-6, what);
}

void run_conv_all(const Kernels&) {
  struct Case {
    const char* what;
    ConvParams p;
    int64_t batch, height, width;
  };
  const Case cases[] = {
      {"one value", {.op = ""}, 1, 1, 1},
      {"linear", {.op = "", .in_channels = 17, .out_channels = 37, .has_bias = true}, 1, 1, 13},
      {"linear, reduction in blocks", {.op = "", .in_channels = 1601, .out_channels = 5}, 1, 1, 7},
      {"one step, padded",
       {.op = "",
        .kernel = {1, 7},
        .before = {0, 3},
        .after = {0, 3},
        .in_channels = 5,
        .out_channels = 3,
        .leaky = 0.1f},
       1,
       1,
       1},
      {"primes",
       {.op = "",
        .kernel = {1, 7},
        .dilation = {1, 3},
        .before = {0, 9},
        .after = {0, 9},
        .in_channels = 19,
        .out_channels = 23,
        .leaky = 0.1f,
        .scale = 0.5f,
        .has_bias = true,
        .has_residual = true},
       2,
       1,
       101},
      {"rows a multiple of a cache line apart",
       {.op = "",
        .kernel = {1, 3},
        .before = {0, 1},
        .after = {0, 1},
        .in_channels = 256,
        .out_channels = 33},
       1,
       1,
       67},
      {"groups and stride",
       {.op = "",
        .kernel = {1, 5},
        .stride = {1, 2},
        .before = {0, 2},
        .after = {0, 1},
        .in_channels = 12,
        .out_channels = 21,
        .groups = 3,
        .activation = kGelu,
        .has_bias = true},
       3,
       1,
       31},
      {"two dimensions",
       {.op = "",
        .kernel = {3, 2},
        .before = {1, 3},
        .after = {1, 3},
        .in_channels = 7,
        .out_channels = 18,
        .activation = kRelu,
        .has_bias = true,
        .has_residual = true},
       2,
       5,
       9},
      {"narrow and tall",
       {.op = "", .kernel = {3, 3}, .before = {1, 1}, .after = {1, 1}, .in_channels = 5, .out_channels = 8},
       1,
       53,
       2},
      {"transposed",
       {.op = "",
        .kernel = {1, 11},
        .stride = {1, 4},
        .before = {0, 3},
        .after = {0, 2},
        .in_channels = 13,
        .out_channels = 29,
        .transposed = true,
        .leaky = 0.1f,
        .has_bias = true,
        .has_residual = true},
       2,
       1,
       31},
      {"transposed, kernel shorter than stride",
       {.op = "",
        .kernel = {1, 3},
        .stride = {1, 5},
        .in_channels = 3,
        .out_channels = 17,
        .transposed = true},
       1,
       1,
       9},
      {"transposed, two dimensions",
       {.op = "",
        .kernel = {3, 3},
        .stride = {2, 2},
        .before = {1, 1},
        .after = {0, 0},
        .in_channels = 6,
        .out_channels = 4,
        .transposed = true,
        .activation = kRelu},
       1,
       4,
       5},
  };
  for (int threads : {1, 3}) {
    set_threads(threads);
    for (const Case& c : cases)
      run_conv_case(c.p, c.batch, c.height, c.width, text("%s, %d threads", c.what, threads));
  }
}

// Winograd's method: edges cut in every way, panels of all widths, more tiles than a block, fewer than
// threads.
void run_winograd_all(const Kernels&) {
  int variant = 0;
  for (int tile : {2, 4}) {
    for (auto [height, width] :
         {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {4, 4}, {5, 6}, {9, 13}, {38, 4}, {3, 65}, {34, 31}}) {
      for (auto [channels, columns] : {std::pair<int, int>{16, 1}, {16, 16}, {48, 33}, {32, 80}, {64, 19}}) {
        // The number of pairs of channels is odd, so that each of them meets both counts of threads.
        const int threads = variant % 2 ? 3 : 1;
        set_threads(threads);
        ConvParams p{.op = "",
                     .kernel = {3, 3},
                     .in_channels = channels,
                     .out_channels = columns,
                     .algorithm = {Method::winograd, tile}};
        for (int i : {0, 1}) {
          p.before[i] = variant % 3 + (height < 3 || width < 3);
          p.after[i] = (variant + i) % 4 / 2 + (height < 3 || width < 3);
        }
        p.has_bias = variant / 2 % 2 == 0, p.has_residual = variant / 4 % 2 == 0;
        p.activation = static_cast<Activation>((variant + variant / 5) % 5);
        const int64_t batch = 1 + variant++ / 3 % 2;
        if (output_length(p, 0, height) < 1 || output_length(p, 1, width) < 1) continue;
        run_conv_case(p, batch, height, width,
                      text("tile %d, %lld x %lld, %d -> %d, %d threads", tile, (long long)height,
                           (long long)width, channels, columns, threads));
      }
    }
  }
}

// Every fast variant: lengths around those of its tiles, any padding and numbers of columns, many blocks of
// tiles and few that are split by columns.
void run_fast_all(const Kernels&) {
  int number = 0;
  for (int threads : {1, 3}) {
    set_threads(threads);
    for (int variant = 0; variant < kFastVariantCount; ++variant) {
      const FastVariant& v = kFastVariants[variant];
      for (int length : {1, v.outputs, 2 * v.inputs + 1, 100 * v.outputs + 3}) {
        if (length > 1000 || (length > 500 && threads == 1)) continue;  // sums in double take long
        const int columns[] = {1, 19, 64, 100, 130}, channels = number % 3 == 0 ? 48 : 16;
        ConvParams p{.op = "",
                     .kernel = {1, v.taps},
                     .before = {0, number % 2 == 0 ? v.taps / 2 : v.taps},
                     .after = {0, number % 3 == 0 ? v.taps / 2 : v.taps - 1},
                     .in_channels = channels,
                     .out_channels = columns[number % 5],
                     .algorithm = {Method::fast, variant}};
        p.leaky = number % 4 == 0 ? 0.1f : 1.0f;
        p.activation = static_cast<Activation>(number % 5);
        p.scale = number % 7 == 0 ? 0.5f : 1.0f;
        p.has_bias = number % 2 == 0, p.has_residual = number / 2 % 2 == 0;
        const int64_t batch = 1 + number % 2, height = number % 9 == 0 ? 2 : 1;
        ++number;
        run_conv_case(
            p, batch, height, length,
            text("%s, %d long, %d -> %d, %d threads", v.name, length, channels, p.out_channels, threads));
      }
    }
  }
}

// Shapes that nobody thought of.
void run_conv_random(const Kernels&) {
  std::mt19937_64 random = random_numbers();
  auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  set_threads(2);
  for (int round = 0; round < 40; ++round) {
    ConvParams p{.op = ""};
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
    p.leaky = pick(0, 1) ? 1.0f : 0.1f;
    p.activation = static_cast<Activation>(pick(0, 4));
    p.scale = pick(0, 1) ? 1.0f : 0.5f;
    p.has_bias = pick(0, 1), p.has_residual = pick(0, 1);
    if (!p.has_residual && p.transposed) p.beside = pick(0, 20);
    const int batch = pick(1, 2), height = flat ? 1 : pick(1, 12), width = pick(1, flat ? 150 : 12);
    if (output_length(p, 0, height) < 1 || output_length(p, 1, width) < 1) continue;
    run_conv_case(p, batch, height, width, text("round %d", round));
  }
}

void half_weights(const Kernels&) {
  ConvParams p{.op = "", .in_channels = 8, .out_channels = 1};
  // 0, -0, smallest subnormal, largest, 1, -2, infinity, NaN
  const uint16_t half[] = {0x0000, 0x8000, 0x0001, 0x7bff, 0x3c00, 0xc000, 0x7c00, 0x7e00};
  const float half_values[] = {0.0f, -0.0f, 0x1p-24f, 65504.0f, 1.0f, -2.0f, INFINITY, NAN};
  const uint16_t bfloat[] = {0x0000, 0x8000, 0x0001, 0x7f7f, 0x3f80, 0xc000, 0x7f80, 0x7fc0};
  const float bfloat_values[] = {0.0f, -0.0f, 0x1p-133f, 0x1.fep127f, 1.0f, -2.0f, INFINITY, NAN};
  auto test = [&](const uint16_t* from, Format format, const float* want, const char* what) {
    Floats packed(packed_size(p));
    run(pack_work(p, from, format, packed));
    for (int i = 0; i < 8; ++i) {
      float got = packed[i * 16];
      bool same = std::isnan(want[i]) ? std::isnan(got)
                                      : got == want[i] && std::signbit(got) == std::signbit(want[i]);
      check(same, text("%s %04x is %g", what, from[i], got));
    }
  };
  test(half, Format::float16, half_values, "float16");
  test(bfloat, Format::bfloat16, bfloat_values, "bfloat16");
}

// Whole numbers of 8 bits, whose rows have scales that are powers of two: every result is an exact sum of
// integers.
void whole_numbers(Format format) {
  if (!kernels(format)) return;
  auto random = random_numbers();
  auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  set_threads(2);
  for (int round = 0; round < 30; ++round) {
    ConvParams p{.op = ""};
    p.groups = pick(1, 2);
    const int channels = pick(2, round % 5 ? 80 : 700);
    p.in_channels = p.groups * channels, p.out_channels = p.groups * pick(1, 70);
    p.kernel[1] = pick(1, 4), p.stride[1] = pick(1, 3), p.dilation[1] = pick(1, 2);
    p.before[1] = pick(0, 3), p.after[1] = pick(0, 3);
    p.has_bias = true, p.format = format;
    const int batch = pick(1, 2), width = pick(8, 60);
    ConvArrays a{};
    a.batch = batch, a.height = a.out_height = 1, a.width = width, a.out_width = output_length(p, 1, width);
    const int64_t taps = p.kernel[1];
    Floats x(int64_t(batch) * width * p.in_channels, random),
        weight(p.out_channels * taps * channels, random),
        packed(packed_size(p) * format_row(format).bytes / 4), bias(p.out_channels, random),
        y(batch * a.out_width * p.out_channels);
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t c = i % channels;
      x[i] = static_cast<float>(c == 0 ? -100 : c == 1 ? 155 : pick(-100, 155));
    }
    for (size_t i = 0; i < weight.size(); ++i) {
      weight[i] = static_cast<float>(i % channels == 0 ? 127 : pick(-127, 127));
    }
    for (float& b : bias) b = 0;
    run(pack_work(p, weight, Format::float32, packed));
    const std::string what = text("%s, round %d", format_row(format).name, round);
    check(packed.intact(), what + ": packed weights");
    a.x = x, a.weights = packed, a.y = y, a.bias = bias;
    run(conv_work(p, a));
    check_close(y, direct(p, a, weight), 1e-7, what);
    x[x.size() - 1] = NAN;
    run(conv_work(p, a));
    const int64_t last = (a.out_width - 1) * p.stride[1] - p.before[1];
    bool reached = false;
    for (int64_t k = 0; k < taps; ++k) reached = reached || last + k * p.dilation[1] == width - 1;
    check(std::isnan(y[y.size() - 1]) == reached, what + ": NaN");
  }
}

Test int8_test("conv_work, int8", [](const Kernels&) { whole_numbers(Format::int8); }),
    bfloat16x2_test("conv_work, bfloat16x2", [](const Kernels&) { whole_numbers(Format::bfloat16x2); });
Test block_test("conv_block", conv_block), copy_test("copy_input", copy_input),
    run_test("conv_work", run_conv_all), winograd_test("conv_work, Winograd", run_winograd_all),
    fast_test("conv_work, fast", run_fast_all), random_test("conv_work, random shapes", run_conv_random),
    half_test("pack_work", half_weights);

}  // namespace
}  // namespace rvc_fast::test
