// A stage as a pipeline over time chunks: a thread carries its chunk through all convolutions of all blocks,
// with no barrier and with the intermediates in its cache. The price is a halo that shrinks with every
// convolution.
#include "resblock/run.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/pool.h"
#include "fastconv/same_conv.h"
#include "isa/kernels.h"

namespace rvc_fast {
namespace {

int64_t reach(const ResConv& c) { return int64_t(c.taps / 2) * c.dilation; }

struct Plan {
  int64_t channels, length, chunk, chunks;
  int64_t halo;         // rows that the longest block can see on one side
  int64_t buffer_rows;  // of a local buffer
  int64_t workspace;    // floats
  int buffers;
  int blocks = 0;
  std::vector<int64_t> halos;              // rows that later convolutions of the block need on each side
  std::vector<std::vector<Segment>> taps;  // of convolutions in another format than float32
  int block;
};

SameConv same_conv(const ResStage& s, const Plan& p, size_t i, int64_t rows) {
  const ResConv& conv = s.convs[i];
  SameConv c{};
  c.rows = rows;
  c.channels = s.channels;
  c.taps = conv.taps;
  c.dilation = conv.dilation;
  c.slope = s.slope;
  c.variant = conv.variant;
  c.block = p.block;
  return c;
}

// ---- direct convolutions in another format than float32 ----

// Values per row of the converted input; not a multiple of 1 KB, which would fall into few cache sets.
int64_t narrow_pitch(Format format, int channels) {
  const FormatRow& f = format_row(format);
  const int64_t depth = round_up(channels, f.depth);
  return depth % (1024 / f.bytes) == 0 ? depth + 64 / f.bytes : depth;
}

// Rows that share one pass over the weights, their converted input in the cache meanwhile.
int64_t narrow_rows(Format format, int channels) {
  constexpr int64_t kBytes = 131072, kFewest = 256;
  return std::max(kFewest,
                  kBytes / format_row(format).bytes / narrow_pitch(format, channels) / kFewest * kFewest);
}

int64_t narrow_workspace(Format format, const SameConv& c) {
  int64_t rows =
      narrow_rows(format, c.channels) + int64_t(c.taps - 1) * c.dilation + kernels(format)->tile_rows;
  return ceil_div(rows * narrow_pitch(format, c.channels) * format_row(format).bytes, sizeof(float));
}

std::vector<Segment> narrow_taps(const ResConv& c, int channels) {
  const int64_t pitch = narrow_pitch(c.format, channels),
                depth = round_up(channels, format_row(c.format).depth);
  if (c.dilation == 1 && pitch == depth) return {{0, c.taps * depth}};
  std::vector<Segment> taps;
  for (int k = 0; k < c.taps; ++k) taps.push_back({int64_t(k) * c.dilation * pitch, depth});
  return taps;
}

void narrow_conv(Format format, const SameConv& c, const void* w, const std::vector<Segment>& taps) {
  const FormatKernels& k = *kernels(format);
  const int64_t channels = c.channels, pitch = narrow_pitch(format, c.channels),
                most = narrow_rows(format, c.channels);
  const int64_t reach = int64_t(c.taps / 2) * c.dilation;
  const auto segments = static_cast<int32_t>(taps.size());
  ConvBlock b{};
  b.x = c.workspace;
  b.x_row = pitch;
  b.y_row = b.columns = channels;
  b.lines = 1;
  b.segments = taps.data();
  b.block_ends = &segments;
  b.blocks = 1;
  b.w = w;
  b.bias = c.bias;
  b.scale = 1.0f;
  b.activation = kNone;
  for (int64_t row = 0; row < c.rows; row += most) {
    const int64_t at = row * channels;
    b.rows = std::min(most, c.rows - row);
    const int64_t rows = b.rows + 2 * reach;
    k.copy_input({.x = c.x + at - reach * channels,
                  .height = 1,
                  .width = rows,
                  .pitch = channels,
                  .line = 0,
                  .row = 0,
                  .lines = 1,
                  .rows = rows,
                  .channels = channels,
                  .slope = c.slope,
                  .to = c.workspace,
                  .to_pitch = pitch});
    b.residual = c.residual ? c.residual + at : nullptr;
    b.y = c.y + at;
    if (c.total) {
      for (int64_t i = 0; i < b.rows * channels; ++i) b.y[i] = b.residual[i] + c.total[at + i];
      b.residual = b.y;
    }
    k.block(b);
  }
}

// Work of one convolution, in multiply-adds.
double cost(const SameConv& c) {
  if (c.variant == kDirect) return double(c.rows) * c.taps * c.channels * c.channels;
  // Both transforms of a plane take about as long as 16 more channels in its product.
  return double(tile_count(c)) * kFastVariants[c.variant].planes * c.channels * (c.channels + 16);
}

// The number of chunks that takes the least time: few, for the halos and the ends of the last tiles, but the
// same number for every thread, and not so long that the buffers leave the cache.
int64_t best_chunks(const ResStage& s, const Plan& p, int64_t batch, int64_t length) {
  constexpr int64_t kMaxRows = 3072, kMaxFloats = 786432;
  // Narrow products are so fast that fetching from beyond L2 costs more than longer halos.
  constexpr int64_t kNarrowFloats = 98304, kNarrowRows = 512;
  int64_t rows = std::min<int64_t>(kMaxRows, kMaxFloats / s.channels);
  if (s.convs.front().format != Format::float32)
    rows = std::min(rows, std::max(kNarrowRows, kNarrowFloats / s.channels));
  const int64_t fewest = ceil_div(length, std::max<int64_t>(1, rows));
  const int64_t most = std::min<int64_t>(length, 2 * fewest + 2 * threads());
  int64_t best = fewest;
  double least = 0;
  for (int64_t chunks = fewest; chunks <= most; ++chunks) {
    double one = 0;
    for (size_t i = 0; i < s.convs.size(); ++i) {
      one += cost(same_conv(s, p, i, std::min(length, ceil_div(length, chunks) + 2 * p.halos[i])));
    }
    // The threads never finish at the same time. The last one is expected to need a quarter of a chunk more.
    double time = (static_cast<double>(ceil_div(batch * chunks, threads())) + 0.25) * one;
    if (chunks == fewest || time < least) best = chunks, least = time;
  }
  return best;
}

Plan plan(const ResStage& s, int64_t batch, int64_t length, ResTuning tuning) {
  Plan p{};
  p.channels = s.channels;
  p.length = length;
  p.halos.resize(s.convs.size());
  p.taps.resize(s.convs.size());
  int64_t after = 0, longest_step = 0, step = 0;
  for (size_t i = s.convs.size(); i-- > 0;) {
    const ResConv& c = s.convs[i];
    if (c.ends_block) after = 0, ++p.blocks;
    step = c.ends_step ? 1 : step + 1;
    longest_step = std::max(longest_step, step);
    p.halos[i] = after;
    after += reach(c);
    p.halo = std::max(p.halo, after);
    if (c.format != Format::float32) p.taps[i] = narrow_taps(c, s.channels);
  }
  p.buffers = longest_step > 2 ? 5 : 4;
  // Enough tiles per pass that fetching the planes' weights costs less than using them: against 36, 96 gain 6
  // % at 128 channels and 1 to 2 % at 64 and 32; more gain nothing.
  p.block = tuning.block ? tuning.block : 96;
  p.chunks = tuning.chunk ? ceil_div(length, tuning.chunk) : best_chunks(s, p, batch, length);
  p.chunk = ceil_div(length, p.chunks);
  int64_t rows = 0;
  for (size_t i = 0; i < s.convs.size(); ++i) {
    SameConv c = same_conv(s, p, i, p.chunk + 2 * p.halos[i]);
    // At the ends of the sound a convolution starts later, so its tiles may end anywhere up to one group
    // further.
    int64_t excess = c.variant == kDirect ? 0 : int64_t(c.dilation) * kFastVariants[c.variant].outputs - 1;
    rows = std::max(rows, c.rows + excess - p.halos[i] + reach(s.convs[i]));
    const Format format = s.convs[i].format;
    p.workspace = std::max(p.workspace,
                           format == Format::float32 ? same_conv_workspace(c) : narrow_workspace(format, c));
  }
  p.buffer_rows = p.halo + std::max(rows, p.chunk + p.halo);
  return p;
}

// One chunk of one batch entry, through all blocks.
class Chunk {
 public:
  Chunk(const ResStage& stage, const Plan& plan, int64_t begin, int64_t end, float* memory)
      : stage_(stage), plan_(plan), begin_(begin), end_(end) {
    // Buffers start at odd multiples of a cache line within a page, so that equal rows do not alias.
    int64_t size = round_up(plan.buffer_rows * plan.channels, 16) + 16;
    for (int i = 0; i < plan.buffers; ++i, memory += size) buffers_[i] = memory;
    workspace_ = memory;
  }

  static int64_t floats(const Plan& p) {
    return p.buffers * (round_up(p.buffer_rows * p.channels, 16) + 16) + p.workspace;
  }

  void run(const float* x, const void* const* weights, const float* const* biases, float* y) {
    float *input = buffers_[0], *current = buffers_[1], *inner = buffers_[2], *total = buffers_[3];
    float* other = plan_.buffers > 4 ? buffers_[4] : nullptr;
    const int64_t channels = plan_.channels;
    int64_t low = first(plan_.halo), high = last(plan_.halo);
    std::memcpy(at(input, low), x + low * channels, (high - low) * channels * sizeof(float));

    const Kernels& k = kernels();
    const float* from = input;  // x of the running step
    float* in = input;          // of the next convolution
    int64_t valid = high;       // where the rows of `in` end
    bool first_block = true;
    for (size_t i = 0; i < stage_.convs.size(); ++i) {
      const ResConv& conv = stage_.convs[i];
      low = first(plan_.halos[i]);
      high = last(plan_.halos[i]);
      SameConv c = same_conv(stage_, plan_, i, high - low);
      // Zeros outside the sound, and where the last tile reads past the rows there are.
      clear(in, low - reach(conv), std::min<int64_t>(low, 0));
      clear(in, valid, low + written_rows(c) + reach(conv));
      float* out = in == inner ? other : inner;
      if (conv.ends_step) {
        c.residual = at(const_cast<float*>(from), low);
        if (conv.ends_block) {
          out = total;
          if (!first_block) c.total = at(total, low);
        } else if (in != current) {
          out = current;
        }
      }
      c.x = at(in, low);
      c.y = at(out, low);
      c.bias = biases[i];
      c.workspace = workspace_;
      if (conv.format != Format::float32) {
        narrow_conv(conv.format, c, weights[i], plan_.taps[i]);
      } else {
        c.w = static_cast<const float*>(weights[i]);
        k.same_conv(c);
      }
      in = out;
      valid = high;
      if (conv.ends_block) {
        from = in = input;
        valid = last(plan_.halo);
        first_block = false;
      } else if (conv.ends_step) {
        if (out == inner) std::swap(current, inner);
        from = current;
      }
    }
    const float* sum = at(total, begin_);
    const float scale = 1.0f / static_cast<float>(plan_.blocks);
    y += begin_ * channels;
    for (int64_t i = 0; i < (end_ - begin_) * channels; ++i) y[i] = sum[i] * scale;
  }

 private:
  int64_t first(int64_t halo) const { return std::max<int64_t>(begin_ - halo, 0); }
  int64_t last(int64_t halo) const { return std::min(end_ + halo, plan_.length); }
  float* at(float* buffer, int64_t row) const {
    return buffer + (row - (begin_ - plan_.halo)) * plan_.channels;
  }
  void clear(float* buffer, int64_t from, int64_t to) const {
    if (from < to) std::memset(at(buffer, from), 0, (to - from) * plan_.channels * sizeof(float));
  }

  const ResStage& stage_;
  const Plan& plan_;
  int64_t begin_, end_;
  float* buffers_[5];
  float* workspace_;
};

}  // namespace

Work resblock_work(ResStage stage, const float* x, int64_t batch, int64_t length,
                   std::vector<const void*> weights, std::vector<const float*> biases, float* y,
                   ResTuning tuning) {
  Plan p = plan(stage, batch, length, tuning);
  const size_t each = Chunk::floats(p);
  auto run = [=, stage = std::move(stage), p = std::move(p), weights = std::move(weights),
              biases = std::move(biases)](const Scratch& scratch) {
    const int64_t size = length * stage.channels;
    parallel_for(batch * p.chunks, scratch, [&](int64_t item, float* memory) {
      int64_t b = item / p.chunks, i = item % p.chunks;
      Chunk chunk(stage, p, length * i / p.chunks, length * (i + 1) / p.chunks, memory);
      chunk.run(x + b * size, weights.data(), biases.data(), y + b * size);
    });
  };
  return {.each = each, .run = std::move(run)};
}

}  // namespace rvc_fast
