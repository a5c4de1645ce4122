// The number formats that weights come in and that a convolution multiplies in: a row of a table for each.
// What an instruction set adds to a row are `FormatKernels` (isa/kernels.h). Sums are float32 in all of them.
#pragma once

#include <stdint.h>

namespace rvc_fast {

// bfloat16x2: a number is the sum of two in bfloat16.
enum class Format { float32, float16, bfloat16, int8, bfloat16x2 };
constexpr int kFormats = 5;

// One tap of one panel of a weight: `channels` of `columns`, of which value (column, channel) is number
// `from` + column * `row` + channel of the weight.
struct Tap {
  const void* weight;
  Format format;  // of the weight
  int64_t from, row;
  int64_t channels, columns, width;  // width: columns as packed, with those that are zeros
};

struct FormatRow {
  const char* name;
  int64_t bytes;  // of a value
  // Packs a tap for the kernels that multiply in this format; null if there are none, so that it can only be
  // what weights come in. What follows is of these kernels.
  void (*pack)(const Tap&, void* to);
  const char* needs;         // the instructions, for messages
  bool converts;             // its block does not take float32: `copy_input` makes its inputs
  int64_t depth;             // channels are filled up to a multiple of this, with zeros
  int64_t longest;           // stretch of the reduction that passes a tile in one go
  int64_t copy_values;       // of the input that rows with one pass over the weights may take
  int64_t items_per_thread;  // enough to even out threads of unequal speed
  int64_t pieces = 0;     // of a value, each in a plane of its own of the copied input; 0: it has no planes
  int64_t row_extra = 0;  // bytes that follow each row of the copied input
  // Bytes that each column of a packed tap has beside its values, which are bytes too.
  int64_t column_extra = 0;
};

const FormatRow& format_row(Format format);

}  // namespace rvc_fast
