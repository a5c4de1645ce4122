#include "attention/attention.h"

#include <algorithm>
#include <memory>

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

  explicit View(const mx::array& x)
      : data(x.data<float>()),
        batch(x.strides(0)),
        head(x.strides(1)),
        row(x.strides(2)),
        column(x.strides(3)) {}
};

void run(View q, View k, View v, float* y, float* packed, int64_t batch, int64_t heads, int64_t rows,
         int64_t keys, int64_t dim, float scale) {
  const Kernels& kernel = kernels();
  const int64_t wide = (dim + 15) / 16 * 16, k_floats = (keys + 15) / 16 * 16 * dim, v_floats = keys * wide;
  const int64_t head_floats = (k_floats + v_floats + 15) / 16 * 16;
  const int64_t key_blocks = (keys + kKeyBlock - 1) / kKeyBlock, row_blocks = (rows + kRows - 1) / kRows;

  parallel_for(batch * heads * key_blocks, [&](int64_t item) {
    const int64_t block = item % key_blocks, head = item / key_blocks % heads, b = item / key_blocks / heads;
    float* to = packed + (b * heads + head) * head_floats;
    AttentionPack p{};
    p.k = k.data + b * k.batch + head * k.head, p.k_row = k.row, p.k_column = k.column;
    p.v = v.data + b * v.batch + head * v.head, p.v_row = v.row, p.v_column = v.column;
    p.begin = block * kKeyBlock, p.end = std::min(keys, p.begin + kKeyBlock), p.dim = dim;
    p.to_k = to, p.to_v = to + k_floats;
    kernel.attention_pack(p);
  });
  parallel_for(batch * heads * row_blocks, [&](int64_t item) {
    const int64_t block = item % row_blocks, head = item / row_blocks % heads, b = item / row_blocks / heads;
    // Rows are dealt evenly to the blocks.
    const int64_t begin = block * rows / row_blocks, end = (block + 1) * rows / row_blocks;
    Attention a{};
    a.q = q.data + b * q.batch + head * q.head + begin * q.row, a.q_row = q.row, a.q_column = q.column;
    a.rows = end - begin, a.keys = keys, a.dim = dim, a.scale = scale;
    a.k = packed + (b * heads + head) * head_floats, a.v = a.k + k_floats;
    a.y = y + ((b * rows + begin) * heads + head) * dim, a.y_row = heads * dim;
    a.scratch = scratch(Slot::partial, kernel.attention_floats(a.rows, dim));
    kernel.attention(a);
  });
}

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

    const int64_t wide = (dim + 15) / 16 * 16;
    const int64_t head_floats = ((keys + 15) / 16 * 16 * dim + keys * wide + 15) / 16 * 16;
    mx::array packed({static_cast<int>(batch * heads), static_cast<int>(head_floats)}, mx::float32, nullptr,
                     {});
    allocate(packed);
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([=, qv = View(q), kv = View(k), vv = View(v), y = dense.data<float>(),
                      p = packed.data<float>(),
                      scale = scale_] { run(qv, kv, vv, y, p, batch, heads, rows, keys, dim, scale); });
    encoder.add_temporary(packed);
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
  auto f32 = [&](const mx::array& x) { return mx::astype(x, mx::float32, s); };
  mx::array y(q.shape(), mx::float32, std::make_shared<AttentionPrimitive>(mx::to_stream(s), scale),
              {f32(q), f32(k), f32(v)});
  return mx::astype(y, q.dtype(), s);
}

}  // namespace rvc_fast
