#include "attention/attention.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "core/pool.h"
#include "isa/kernels.h"
#include "mlx/backend/cpu/encoder.h"

namespace rvc_fast {
namespace {

// Query rows that share a pass over the keys.
constexpr int64_t kRows = 48;

struct View {
  const float* data;
  int64_t batch, head, row, column;  // strides

  // Of the last four axes, as many as there are.
  explicit View(const mx::array& x)
      : data(x.data<float>()),
        batch(x.ndim() > 2 ? x.strides(-4) : 0),
        head(x.ndim() > 2 ? x.strides(-3) : 0),
        row(x.strides(-2)),
        column(x.strides(-1)) {}
};

// Where the packed keys and values of one head are.
struct Packed {
  int64_t keys, dim;

  int64_t k_floats() const { return round_up(keys, kNarrowPanel) * dim; }
  int64_t floats() const { return round_up(k_floats() + keys * round_up(dim, kNarrowPanel), 16); }
};

AttentionPack packing(const View& k, const View& v, int64_t batch, int64_t head, const Packed& sizes,
                      float* to) {
  AttentionPack p{};
  p.k = k.data + batch * k.batch + head * k.head, p.k_row = k.row, p.k_column = k.column;
  p.v = v.data + batch * v.batch + head * v.head, p.v_row = v.row, p.v_column = v.column;
  p.end = sizes.keys, p.dim = sizes.dim;
  p.to_k = to, p.to_v = to + sizes.k_floats();
  return p;
}

struct AttentionArrays {
  View q, k, v;
  std::optional<View> rel_k, rel_v;
  float* y;
  float* packed;
  int64_t batch, heads, rows, keys, dim, window;
  float scale;
};

// Memory of a thread.
int64_t floats(const AttentionArrays& a) {
  const int64_t blocks = (a.rows + kRows - 1) / kRows;
  return kernels().attention_floats((a.rows + blocks - 1) / blocks, a.dim, a.rel_k ? 2 * a.window + 1 : 0);
}

void run(const AttentionArrays& all, const Scratch& scratch) {
  const Kernels& kernel = kernels();
  const auto [q, k, v, rel_k, rel_v, y, packed, batch, heads, rows, keys, dim, window, scale] = all;
  const Packed head_sizes{keys, dim}, band_sizes{2 * window + 1, dim};
  const int64_t head_floats = head_sizes.floats();
  float* band = packed + batch * heads * head_floats;
  if (rel_k) kernel.attention_pack(packing(*rel_k, *rel_v, 0, 0, band_sizes, band));
  const int64_t key_blocks = ceil_div(keys, kKeyBlock), row_blocks = ceil_div(rows, kRows);

  parallel_for(batch * heads * key_blocks, [&](int64_t item) {
    const int64_t block = item % key_blocks, head = item / key_blocks % heads, b = item / key_blocks / heads;
    AttentionPack p = packing(k, v, b, head, head_sizes, packed + (b * heads + head) * head_floats);
    p.begin = block * kKeyBlock, p.end = std::min(keys, p.begin + kKeyBlock);
    kernel.attention_pack(p);
  });
  parallel_for(batch * heads * row_blocks, scratch, [&](int64_t item, float* memory) {
    const int64_t block = item % row_blocks, head = item / row_blocks % heads, b = item / row_blocks / heads;
    // Rows are dealt evenly to the blocks.
    const int64_t begin = block * rows / row_blocks, end = (block + 1) * rows / row_blocks;
    Attention a{};
    a.q = q.data + b * q.batch + head * q.head + begin * q.row, a.q_row = q.row, a.q_column = q.column;
    a.rows = end - begin, a.keys = keys, a.dim = dim, a.scale = scale;
    a.k = packed + (b * heads + head) * head_floats, a.v = a.k + head_sizes.k_floats();
    if (rel_k) a.rel_k = band, a.rel_v = band + band_sizes.k_floats(), a.window = window, a.first = begin;
    a.y = y + ((b * rows + begin) * heads + head) * dim, a.y_row = heads * dim;
    a.scratch = memory;
    kernel.attention(a);
  });
}

// Inputs as of `attend`.
class AttentionPrimitive : public CpuPrimitive {
 public:
  AttentionPrimitive(mx::Stream stream, float scale) : CpuPrimitive(stream), scale_(scale) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const mx::array &q = inputs[0], &k = inputs[1], &v = inputs[2];
    mx::array& out = outputs[0];
    const int64_t batch = q.shape(0), heads = q.shape(1), rows = q.shape(2), dim = q.shape(3),
                  keys = k.shape(2);

    // The result's memory in (B, T, H, D) order, seen through strides.
    mx::array dense({q.shape(0), q.shape(2), q.shape(1), q.shape(3)}, mx::float32, nullptr, {});
    allocate(dense);
    mx::array::Flags flags = dense.flags();
    flags.row_contiguous = heads == 1 || rows == 1;
    flags.col_contiguous = false;
    out.copy_shared_buffer(dense, {rows * heads * dim, dim, heads * dim, 1}, flags, dense.size());

    AttentionArrays a{View(q), View(k), View(v), {}, {},    dense.data<float>(), nullptr, batch, heads,
                      rows,    keys,    dim,     0,  scale_};
    int64_t size = batch * heads * Packed{keys, dim}.floats();
    if (inputs.size() == 5) {
      a.rel_k = View(inputs[3]), a.rel_v = View(inputs[4]);
      a.window = inputs[3].shape(0) / 2;
      size += Packed{inputs[3].shape(0), dim}.floats();
    }
    mx::array packed({static_cast<int>(size / 16), 16}, mx::float32, nullptr, {});
    allocate(packed);
    a.packed = packed.data<float>();
    dispatch({.each = size_t(floats(a)), .run = [a](const Scratch& scratch) { run(a, scratch); }});
    mx::cpu::get_command_encoder(stream()).add_temporary(packed);
  }

  const char* name() const override { return "attention"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return scale_ == static_cast<const AttentionPrimitive&>(other).scale_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape()};
  }

 private:
  float scale_;
};

}  // namespace

mx::array attention(const mx::array& q, const mx::array& k, const mx::array& v, float scale,
                    mx::StreamOrDevice s) {
  for (auto [name, x] : {std::pair{"q", &q}, std::pair{"k", &k}, std::pair{"v", &v}}) {
    require(is_floating(*x), "attention", std::string(name) + " must be float32, float16 or bfloat16");
    require(x->ndim() == 4 && x->size() > 0, "attention",
            std::string(name) + " must be of shape (B, H, T, D), got " + to_string(x->shape()));
  }
  mx::Shape keys{q.shape(0), q.shape(1), k.shape(2), q.shape(3)};
  require(k.shape() == keys, "attention",
          "k must be of shape " + to_string(keys) + ", got " + to_string(k.shape()));
  require(v.shape() == keys, "attention",
          "v must be of shape " + to_string(keys) + ", got " + to_string(v.shape()));
  return attend({q, k, v}, scale, s);
}

mx::array attend(const std::vector<mx::array>& inputs, float scale, mx::StreamOrDevice s) {
  std::vector<mx::array> floats;
  for (const mx::array& x : inputs) floats.push_back(mx::astype(x, mx::float32, s));
  const mx::array& q = inputs[0];
  mx::array y(q.shape(), mx::float32, std::make_shared<AttentionPrimitive>(mx::to_stream(s), scale), floats);
  return mx::astype(y, q.dtype(), s);
}

}  // namespace rvc_fast
