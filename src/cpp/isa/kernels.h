// The kernels of one instruction set as a table of plain functions over pointers. Each instruction set
// compiles the same sources (isa/kernels.inc) in a translation unit of its own, inside a namespace of its own
// and without any std template, so that no code built for a newer CPU can be linked into the common part.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "attention/kernel.h"
#include "bigru/kernel.h"
#include "conv/format.h"
#include "conv/kernel.h"
#include "fastconv/same_conv.h"
#include "knn/kernel.h"
#include "layer_norm/kernel.h"
#include "mel_stft/kernel.h"
#include "nsf_source/kernel.h"
#include "quantized_linear/kernel.h"

namespace rvc_fast {

// What multiplies in one number format.
struct FormatKernels {
  bool (*supported)();
  bool tiles;  // by instructions for whole tiles (AMX): many times faster than float32, not up to twice
  int tile_rows;
  bool whole_tiles;  // reads whole tiles of rows, see ConvBlock
  void (*block)(const ConvBlock&);
  void (*copy_input)(const InputCopy&);
  double (*peak)(int64_t iterations);  // floating-point operations done, by multiply-adds alone
};

// What computes in float32, whatever is multiplied in.
struct Kernels {
  int lanes;
  void (*same_conv)(const SameConv&);
  void (*fast_conv)(const FastConv&);
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
  void (*quantized_panels)(const QuantizedWeight&, int64_t first, int64_t columns, float* panels);
  int64_t (*quantized_row_floats)(int64_t words, int bits);
  void (*quantized_row)(const float* x, int64_t words, int bits, float* to);
  void (*quantized_dots)(const QuantizedDots&);
};

// One choice of instructions.
struct Isa {
  const char* name;
  const Kernels* kernels;
  const FormatKernels* formats[kFormats];  // in the order of Format; null where it cannot multiply in one
};

// Those that were compiled in, best first, ended by a null name.
extern const Isa kIsas[];

bool supported(const Isa& isa);  // by this CPU
const Isa& isa();                // the one in use
bool set_isa(const char* name);  // "" takes the best; false if unknown or not supported

inline const Kernels& kernels() { return *isa().kernels; }
// Of the instruction set in use; null where it cannot multiply in the format.
inline const FormatKernels* kernels(Format format) { return isa().formats[static_cast<int>(format)]; }

}  // namespace rvc_fast
