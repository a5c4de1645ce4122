#include "conv/run.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/pool.h"

namespace rvc_fast {
namespace {

// Rows that share one pass over the weights.
constexpr int64_t kMinRows = 96, kMaxRows = 512;

// Channels of a group as copied, and channels and columns as packed.
int64_t filled_channels(const ConvParams& p) {
  return round_up(p.in_channels / p.groups, format_row(p.format).depth);
}
int64_t packed_channels(const ConvParams& p) {
  return filled_channels(p) + format_row(p.format).column_extra;
}
int64_t packed_columns(const ConvParams& p) { return round_up(p.out_channels / p.groups, kNarrowPanel); }

// The reduction of one phase: segments for a given input layout, cut into blocks.
struct Reduction {
  std::vector<Segment> segments;
  std::vector<int32_t> block_ends;

  Reduction(int64_t taps_h, int64_t taps_w, int64_t step_h, int64_t step_w, int64_t channels,
            int64_t longest) {
    std::vector<Segment> runs;
    for (int64_t h = 0; h < taps_h; ++h) {
      for (int64_t w = 0; w < taps_w; ++w) {
        int64_t offset = h * step_h + w * step_w;
        if (!runs.empty() && runs.back().offset + runs.back().length == offset) {
          runs.back().length += channels;  // neighbouring taps that lie side by side are one long tap
        } else {
          runs.push_back({offset, channels});
        }
      }
    }
    int64_t total = taps_h * taps_w * channels;
    int64_t limit = std::max<int64_t>(1, ceil_div(total, std::max<int64_t>(1, (total - 1) / longest + 1)));
    int64_t room = limit;
    for (Segment run : runs) {
      while (run.length > 0) {
        if (room == 0) {
          block_ends.push_back(static_cast<int32_t>(segments.size()));
          room = limit;
        }
        int64_t n = std::min(run.length, room);
        segments.push_back({run.offset, n});
        run.offset += n;
        run.length -= n;
        room -= n;
      }
    }
    block_ends.push_back(static_cast<int32_t>(segments.size()));
  }
};

// Output positions [begin, end) of one axis in units of phase positions: position q, phase r is output
// q * stride + r - before for a transposed convolution, output q for an ordinary one.
struct Axis {
  int64_t begin, end;
};

}  // namespace

std::vector<Phase> phases(const ConvParams& p) {
  int64_t at = 0;
  std::vector<Phase> all;
  std::array<int, 2> count = p.transposed ? p.stride : std::array<int, 2>{1, 1};
  for (int h = 0; h < count[0]; ++h) {
    for (int w = 0; w < count[1]; ++w) {
      Phase phase{{h, w}, p.kernel, at};
      if (p.transposed) {
        for (int i : {0, 1}) {
          phase.taps[i] =
              std::max<int>(0, static_cast<int>(ceil_div(p.kernel[i] - phase.at[i], p.stride[i])));
        }
      }
      all.push_back(phase);
      at += int64_t(phase.taps[0]) * phase.taps[1] * packed_channels(p) * p.groups * packed_columns(p);
    }
  }
  return all;
}

int64_t packed_size(const ConvParams& p) {
  if (p.tile > 1) return winograd_packed_size(p);
  Phase last = phases(p).back();
  return last.weights +
         int64_t(last.taps[0]) * last.taps[1] * packed_channels(p) * p.groups * packed_columns(p);
}

int64_t output_length(const ConvParams& p, int axis, int64_t length) {
  int64_t k = p.kernel[axis], s = p.stride[axis], cut = int64_t(p.before[axis]) + p.after[axis];
  if (p.transposed) return (length - 1) * s + k - cut;
  return floor_div(length + cut - p.dilation[axis] * (k - 1) - 1, s) + 1;
}

namespace {

Work pack_direct(const ConvParams& p, const void* weight, Format format, void* packed) {
  const FormatRow& made = format_row(p.format);
  const int64_t channels = p.in_channels / p.groups, columns = p.out_channels / p.groups;
  const int64_t padded = packed_columns(p), panels = ceil_div(columns, kPanel);
  const auto all = phases(p);
  const int64_t items = static_cast<int64_t>(all.size()) * p.groups * panels;
  auto pack_item = [=, &made](int64_t item) {
    const int64_t panel = item % panels, group = item / panels % p.groups;
    const Phase& phase = all[item / panels / p.groups];
    const int64_t reduction = int64_t(phase.taps[0]) * phase.taps[1] * packed_channels(p);
    const int64_t first = panel * kPanel, width = std::min<int64_t>(kPanel, padded - first),
                  used = std::min(width, columns - first);
    int64_t at = phase.weights + group * reduction * padded + first * reduction;
    for (int64_t h = 0; h < phase.taps[0]; ++h) {
      for (int64_t w = 0; w < phase.taps[1]; ++w, at += packed_channels(p) * width) {
        // Of a transposed convolution the taps run backwards.
        const int64_t kh = p.transposed ? phase.at[0] + p.stride[0] * (phase.taps[0] - 1 - h) : h;
        const int64_t kw = p.transposed ? phase.at[1] + p.stride[1] * (phase.taps[1] - 1 - w) : w;
        const int64_t from = (((group * columns + first) * p.kernel[0] + kh) * p.kernel[1] + kw) * channels;
        const int64_t row_of_weight = int64_t(p.kernel[0]) * p.kernel[1] * channels;
        const Tap tap{.weight = weight,
                      .format = format,
                      .from = from,
                      .row = row_of_weight,
                      .channels = channels,
                      .columns = used,
                      .width = width};
        made.pack(tap, static_cast<char*>(packed) + at * made.bytes);
      }
    }
  };
  return {.run = [=](const Scratch&) { parallel_for(items, pack_item); }};
}

Work direct_work(const ConvParams& p, const ConvArrays& a);

}  // namespace

Work pack_work(const ConvParams& p, const void* weight, Format format, void* packed) {
  return p.tile > 1 ? pack_winograd(p, weight, format, static_cast<float*>(packed))
                    : pack_direct(p, weight, format, packed);
}

Work conv_work(const ConvParams& p, const ConvArrays& a) {
  return p.tile > 1 ? winograd_work(p, a) : direct_work(p, a);
}

namespace {

Work direct_work(const ConvParams& p, const ConvArrays& a) {
  const FormatRow& format = format_row(p.format);
  const FormatKernels& k = *kernels(p.format);
  const auto all = phases(p);
  const int64_t pitch = p.in_channels, channels = p.in_channels / p.groups,
                columns = p.out_channels / p.groups;
  const int64_t padded = packed_columns(p), depth = filled_channels(p);
  const std::array<int64_t, 2> in{a.height, a.width}, out{a.out_height, a.out_width};

  const int64_t y_pitch = int64_t(p.out_channels) + p.beside;

  // Input reach of position q: from q * step - lead, `span` long; all phases of a transposed one share it.
  std::array<int64_t, 2> step, lead, span;
  std::array<Axis, 2> positions;
  for (int i : {0, 1}) {
    if (p.transposed) {
      int64_t taps = ceil_div(p.kernel[i], p.stride[i]);
      step[i] = 1, lead[i] = taps - 1, span[i] = taps;
      positions[i] = {p.before[i] / p.stride[i], (out[i] - 1 + p.before[i]) / p.stride[i] + 1};
    } else {
      step[i] = p.stride[i], lead[i] = p.before[i], span[i] = int64_t(p.dilation[i]) * (p.kernel[i] - 1) + 1;
      positions[i] = {0, out[i]};
    }
  }

  // Rows run along width, or along height where the width is too short to fill a tile.
  const int64_t count[2] = {positions[0].end - positions[0].begin, positions[1].end - positions[1].begin};
  const int row_axis = count[1] < 2 * k.tile_rows && count[0] > count[1] ? 0 : 1, line_axis = 1 - row_axis;

  // Blocks of rows and lines, then of columns where that is not enough work to share.
  int64_t target = std::clamp(format.copy_values / (channels * step[row_axis]), kMinRows, kMaxRows);
  std::array<int64_t, 2> size;
  int64_t row_blocks = ceil_div(count[row_axis], target);
  size[row_axis] = std::min(count[row_axis], round_up(ceil_div(count[row_axis], row_blocks), k.tile_rows));
  size[line_axis] = std::clamp<int64_t>(target / size[row_axis], 1, count[line_axis]);
  const int64_t blocks_h = ceil_div(count[0], size[0]), blocks_w = ceil_div(count[1], size[1]);
  const int64_t panels = ceil_div(columns, kPanel);
  int64_t items = a.batch * p.groups * blocks_h * blocks_w;
  int64_t splits =
      std::clamp<int64_t>(ceil_div(format.items_per_thread * threads(), items), 1, ceil_div(panels, 2));
  const int64_t split_panels = ceil_div(panels, splits);
  splits = ceil_div(panels, split_panels);

  // `copy_input` copies the block's input into scratch memory: needed for another format, for the leaky ReLU
  // and at the edges. Rows a multiple of 4 KB apart do without: no tile has more of them than a set of L1 has
  // ways, and the copy is 6 % of 3072 -> 768.
  const bool always_copies = format.converts || p.leaky != 1.0f || p.groups > 1;
  const int64_t line = 64 / format.bytes;
  const int64_t copied_row = depth + format.row_extra / format.bytes;
  const int64_t copy_pitch = copied_row % (16 * line) == 0 ? copied_row + line : copied_row;

  auto reductions = [&](int64_t width, int64_t to_pitch) {
    std::vector<Reduction> r;
    for (const Phase& phase : all) {
      int64_t dh = p.transposed ? 1 : p.dilation[0], dw = p.transposed ? 1 : p.dilation[1];
      r.emplace_back(phase.taps[0], phase.taps[1], dh * width * to_pitch, dw * to_pitch, depth,
                     format.longest);
    }
    return r;
  };
  const int64_t full_copy_width = (size[1] - 1) * step[1] + span[1];
  const auto copied = reductions(full_copy_width, copy_pitch), direct = reductions(a.width, pitch);
  // Rows that a whole tile may read beyond the last.
  const int64_t beyond =
      k.whole_tiles ? k.tile_rows * step[row_axis] * (row_axis == 1 ? 1 : full_copy_width) * copy_pitch : 16;

  // What a thread needs: the longest input of a block, and the sums of a block whose reduction is cut.
  bool all_inside = true;
  for (int i : {0, 1}) {
    const int64_t from = positions[i].begin * step[i] - lead[i];
    const int64_t to = (positions[i].end - 1) * step[i] - lead[i] + span[i];
    all_inside = all_inside && from >= 0 && to <= in[i];
  }
  const int64_t longest = ((size[0] - 1) * step[0] + span[0]) * full_copy_width * copy_pitch + beyond;
  const int64_t copy_floats =
      always_copies || !all_inside ? round_up(ceil_div(longest * format.bytes, sizeof(float)), 16) : 0;
  auto cut = [](const Reduction& r) { return r.block_ends.size() > 1; };
  const int64_t partial =
      std::any_of(copied.begin(), copied.end(), cut)
          ? partial_floats(size[line_axis], size[row_axis], std::min(columns, split_panels * kPanel))
          : 0;

  auto block = [=, &k, &format](int64_t item, float* memory) {
    const int64_t split = item % splits;
    int64_t rest = item / splits;
    const int64_t block_w = rest % blocks_w;
    rest /= blocks_w;
    const int64_t block_h = rest % blocks_h;
    rest /= blocks_h;
    const int64_t group = rest % p.groups, batch = rest / p.groups;

    std::array<Axis, 2> q;
    const std::array<int64_t, 2> block{block_h, block_w};
    std::array<int64_t, 2> from, reach;
    bool inside = true;
    for (int i : {0, 1}) {
      q[i].begin = positions[i].begin + block[i] * size[i];
      q[i].end = std::min(q[i].begin + size[i], positions[i].end);
      from[i] = q[i].begin * step[i] - lead[i];
      reach[i] = (q[i].end - q[i].begin - 1) * step[i] + span[i];
      inside = inside && from[i] >= 0 && from[i] + reach[i] <= in[i];
    }
    const float* input = a.x + batch * a.height * a.width * pitch + group * channels;
    const char* x = nullptr;  // values of the format
    const bool copies = always_copies || !inside;
    int64_t x_pitch = pitch, x_width = a.width;
    if (copies) {
      auto* to = reinterpret_cast<char*>(memory);
      for (int64_t h = 0; h < reach[0]; ++h) {
        k.copy_input({.x = input,
                      .height = a.height,
                      .width = a.width,
                      .pitch = pitch,
                      .line = from[0] + h,
                      .row = from[1],
                      .lines = 1,
                      .rows = reach[1],
                      .channels = channels,
                      .slope = p.leaky,
                      .to = to + h * full_copy_width * copy_pitch * format.bytes,
                      .to_pitch = copy_pitch});
      }
      x = to, x_pitch = copy_pitch, x_width = full_copy_width;
    } else {
      x = reinterpret_cast<const char*>(input + (from[0] * a.width + from[1]) * pitch);
    }

    const int64_t first = split * split_panels * kPanel;
    for (size_t n = 0; n < all.size(); ++n) {
      const Phase& phase = all[n];
      const Reduction& reduction = copies ? copied[n] : direct[n];
      // Clip the positions to outputs that exist: the edges of a transposed convolution are cut.
      std::array<Axis, 2> c = q;
      std::array<int64_t, 2> y_at, y_step, x_at;
      for (int i : {0, 1}) {
        if (p.transposed) {
          int64_t s = p.stride[i], shift = p.before[i] - phase.at[i];
          c[i].begin = std::max(c[i].begin, -floor_div(-shift, s));
          c[i].end = std::min(c[i].end, floor_div(out[i] - 1 + shift, s) + 1);
          y_at[i] = c[i].begin * s - shift, y_step[i] = s;
          x_at[i] = c[i].begin - q[i].begin + (span[i] - phase.taps[i]);
        } else {
          y_at[i] = c[i].begin, y_step[i] = 1, x_at[i] = 0;
        }
      }
      if (c[0].begin >= c[0].end || c[1].begin >= c[1].end) continue;

      const std::array<int64_t, 2> x_stride{x_width * x_pitch, x_pitch},
          y_stride{a.out_width * y_pitch, y_pitch};
      const int64_t length = int64_t(phase.taps[0]) * phase.taps[1] * packed_channels(p);
      const int64_t y = batch * a.out_height * y_stride[0] + y_at[0] * y_stride[0] + y_at[1] * y_stride[1] +
                        group * columns + first;
      ConvBlock b{};
      b.x = x + (x_at[0] * x_stride[0] + x_at[1] * x_stride[1]) * format.bytes;
      b.x_line = step[line_axis] * x_stride[line_axis];
      b.x_row = step[row_axis] * x_stride[row_axis];
      b.lines = c[line_axis].end - c[line_axis].begin;
      b.rows = c[row_axis].end - c[row_axis].begin;
      b.columns = std::min(columns - first, split_panels * kPanel);
      b.segments = reduction.segments.data();
      b.w = static_cast<const char*>(a.weights) +
            (phase.weights + group * length * padded + first * length) * format.bytes;
      b.bias = a.bias ? a.bias + group * columns + first : nullptr;
      b.residual = a.residual ? a.residual + y : nullptr;
      b.y = a.y + y;
      b.y_line = y_step[line_axis] * y_stride[line_axis];
      b.y_row = y_step[row_axis] * y_stride[row_axis];
      b.scale = p.scale;
      b.activation = p.activation;
      b.block_ends = reduction.block_ends.data();
      b.blocks = static_cast<int32_t>(reduction.block_ends.size());
      if (b.blocks > 1) b.partial = memory + copy_floats;
      k.block(b);
    }
  };
  auto beside = [=, beside = p.beside, to_channel = p.out_channels](int64_t line) {
    const float* from = a.beside + line * a.out_width * beside;
    float* to = a.y + line * a.out_width * y_pitch + to_channel;
    for (int64_t w = 0; w < a.out_width; ++w) std::copy_n(from + w * beside, beside, to + w * y_pitch);
  };
  auto run = [=, has_beside = p.beside > 0, block = std::move(block)](const Scratch& scratch) {
    parallel_for(items * splits, scratch, block);
    if (has_beside) parallel_for(a.batch * a.out_height, beside);
  };
  return {.each = size_t(copy_floats + partial), .run = std::move(run)};
}

}  // namespace
}  // namespace rvc_fast
