// The kernels of one instruction set as a table of plain functions over pointers. Each instruction set
// compiles the same sources (isa/kernels.inc) in a translation unit of its own, inside a namespace of its own
// and without any std template, so that no code built for a newer CPU can be linked into the common part.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fastconv/same_conv.h"

namespace rvc_fast {

enum Activation { kNone, kRelu, kGelu, kSigmoid, kTanh };

// `length` consecutive floats of the reduction, `offset` floats from a row's start.
struct Segment {
  int64_t offset, length;
};

// y = (activation(sum over segments of x * w + bias) + residual) * scale, for `lines` x `rows` x `columns`
// outputs. Row r of line l reads x + l * x_line + r * x_row and writes y + l * y_line + r * y_row (residual
// likewise). w holds panels of 32 columns, [reduction][32]; a last panel with 16 columns or fewer is
// [reduction][16].
struct ConvBlock {
  const float* x;
  int64_t x_line, x_row;
  int64_t lines, rows, columns;
  const Segment* segments;
  const int32_t* block_ends;  // the segments of reduction block b end at block_ends[b]
  int32_t blocks;
  const float* w;
  const float* bias;      // or null
  const float* residual;  // or null
  float* y;
  int64_t y_line, y_row;
  float scale;
  Activation activation;
  float* partial;  // partial_floats(...) floats, needed if blocks > 1
};

// A block of tiles of a 3 x 3 convolution of stride 1 by Winograd's method, m x m outputs each, numbered row
// by row, `across` in a row. y = activation(conv(x) + bias) + residual for `columns` outputs.
struct Winograd {
  int m;           // 2 or 4
  const float* x;  // (height, width, channels), channels a multiple of 16
  int64_t height, width, channels;
  int64_t top, left;  // zero padding
  int64_t across, first, tiles;
  int64_t columns;
  const float* w;         // panels of 32 columns, [plane][channels][32]; a last one of 16 or fewer is 16 wide
  const float* bias;      // or null
  const float* residual;  // or null; as y
  float* y;               // (out_height, out_width, pitch)
  int64_t out_height, out_width, pitch;
  Activation activation;
  float* scratch;  // winograd_floats(...)
};

// A rectangle of x (height, width, pitch) copied to `to` (lines, rows, to_pitch), `channels` of it, through a
// leaky ReLU; what lies outside x becomes zero.
struct Stage {
  const float* x;  // first channel wanted
  int64_t height, width, pitch;
  int64_t line, row;  // upper left corner, may be negative
  int64_t lines, rows, channels;
  float slope;  // 1: plain copy
  float* to;
  int64_t to_pitch;
};

// One direction of a GRU over projected gates (steps, 3 hidden), from the state `before`; y (steps, hidden).
// Backward begins at the last step. packed holds gru_packed_floats(hidden), scratch
// gru_scratch_floats(hidden).
struct GruScan {
  const float* gates;
  int64_t steps, hidden;
  bool backward;
  const float* packed;
  const float* before;
  float* y;
  float* scratch;
};

// `frames` frames of a log mel spectrogram, at most `lanes` of them: each is one lane of the vectors. The
// transform has `points` complex points, the product of `factors`: n_fft / 2, or n_fft if that is odd.
struct MelFrames {
  const float* x;  // the first frame's
  int64_t frames, hop;
  const float* window;  // (n_fft)
  int64_t n_fft, points;
  const int32_t* factors;
  int32_t passes;
  const float* roots;    // cos and sin of -2 pi k / n_fft, k < n_fft
  const float* filters;  // (mels, n_fft / 2 + 1)
  const int32_t* bands;  // (mels, 2): where a filter's values other than zero begin and end
  int64_t mels;
  float floor;
  float* y;  // (frames, mels)
  float* scratch;
};

// Frames of an excitation. f0 and start begin at the first of them; `first` and `last` say whether it has a
// neighbour, which f0[-1] and f0[frames] then are.
struct NsfFrames {
  const float* f0;
  int64_t frames, hop, harmonics;
  bool first, last;
  float sample_rate;
  bool linear;          // else each frame's f0 is held
  bool by_frame;        // what is rounded: the advance of a frame, or the frequency of a sample
  const double* start;  // (harmonics, frames) cycles before the frame, a harmonic `start_row` after the other
  int64_t start_row;
  const float* noise;   // (frames * hop, harmonics)
  const float* weight;  // (harmonics)
  float bias;
  float* y;        // (frames * hop)
  float* scratch;  // 3 * (hop + 16)
};

// Offers `rows` vectors, whose ids begin at first_id and are higher than those before, to the heaps (wanted)
// of the queries. Scores are |v|^2 - 2 q.v, with `middle` taken off both.
struct KnnBlock {
  const float* vectors;  // (rows, dim)
  int64_t rows, dim;
  int32_t first_id;
  const float* middle;  // (dim)
  const float* packed;  // panels of 32 queries, from knn_pack
  int64_t queries, wanted;
  float* scores;  // (queries, wanted), infinity where there is no candidate yet
  int32_t* ids;   // (queries, wanted)
  float* scratch;
};

// Rows of one head's attention: y = softmax(scale * q k^T) v. Keys and values are packed in blocks of
// kKeyBlock keys: keys as panels of 32 (16) of them, [dim][32]; values as panels of 32 (16) columns, [keys of
// the block][32].
constexpr int64_t kKeyBlock = 512;
struct Attention {
  const float* q;
  int64_t q_row, q_column;  // strides
  int64_t rows, keys, dim;
  float scale;
  const float* k;  // packed, keys rounded up to 16, times dim
  const float* v;  // packed, keys times dim rounded up to 16
  // Null, or keys and values of relative positions, packed: row `window` + d of 2 window + 1 is added to the
  // key and the value d after a query. `first` is the position of the first row.
  const float *rel_k, *rel_v;
  int64_t window, first;
  float* y;
  int64_t y_row;
  float* scratch;  // attention_floats(rows, dim, 2 * window + 1 or 0)
};

// One head's keys and values (keys, dim), strided, into the packed layouts: those from `begin` to `end`,
// `begin` a multiple of kKeyBlock and `end` one too or all keys.
struct AttentionPack {
  const float *k, *v;
  int64_t k_row, k_column, v_row, v_column;
  int64_t begin, end, dim;
  float *to_k, *to_v;
};

// y = (x + residual - mean) / sqrt(variance + eps) * weight + bias of each row of `width`; what is null is
// left out.
struct LayerNorm {
  const float *x, *residual, *weight, *bias;
  int64_t rows, width;
  float eps;
  float* y;  // may be x or residual
};

struct Kernels {
  int lanes;
  int tile_rows;
  bool (*supported)();
  int64_t (*partial_floats)(int64_t lines, int64_t rows, int64_t columns);
  void (*conv_block)(const ConvBlock&);
  void (*stage)(const Stage&);
  void (*same_conv)(const SameConv&);
  int64_t (*winograd_floats)(int64_t m, int64_t tiles, int64_t channels);
  void (*winograd)(const Winograd&);
  int64_t (*gru_packed_floats)(int64_t hidden);
  int64_t (*gru_scratch_floats)(int64_t hidden);
  void (*gru_pack)(const float* w, const float* b, int64_t hidden, float* packed);  // w (3 hidden, hidden)
  void (*gru_scan)(const GruScan&);
  // y = tanh(a) * sigmoid(b), a and b the halves of the rows (2 hidden) of x + g; g's rows are g_row apart.
  void (*gate)(const float* x, const float* g, int64_t g_row, int64_t rows, int64_t hidden, float* y);
  int64_t (*mel_scratch_floats)(int64_t n_fft, int64_t mels);
  void (*mel_frames)(const MelFrames&);
  void (*nsf_advance)(const NsfFrames&,
                      double* advance);  // (harmonics, frames) as `start`: cycles of each frame
  void (*nsf_frames)(const NsfFrames&);
  int64_t (*knn_scratch_floats)(int64_t rows, int64_t dim);
  void (*knn_pack)(const float* queries, int64_t count, int64_t dim, const float* middle, float* packed);
  void (*knn_block)(const KnnBlock&);
  void (*knn_offer)(float* scores, int32_t* ids, int64_t size, float score, int32_t id);
  float (*knn_distance)(const float* a, const float* b, int64_t dim);
  int64_t (*attention_floats)(int64_t rows, int64_t dim, int64_t band);
  void (*attention_pack)(const AttentionPack&);
  void (*attention)(const Attention&);
  void (*layer_norm)(const LayerNorm&);
  double (*fma)(int64_t iterations, float* sink);  // floating-point operations done
};

struct Bf16Kernels;

// One choice of instructions.
struct Isa {
  const char* name;
  const Kernels* kernels;
  const Bf16Kernels* bf16;  // null where it cannot multiply in bfloat16
};

// Those that were compiled in, best first, ended by a null name.
extern const Isa kIsas[];

bool supported(const Isa& isa);  // by this CPU
const Isa& isa();                // the one in use
bool set_isa(const char* name);  // "" takes the best; false if unknown or not supported

inline const Kernels& kernels() { return *isa().kernels; }

}  // namespace rvc_fast
