#include "relpos_attention/relpos_attention.h"

#include <cmath>

#include "attention/attention.h"

namespace rvc_fast {

mx::array relpos_attention(const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& rel_k,
                           const mx::array& rel_v, int window, mx::StreamOrDevice s) {
  const char* op = "relpos_attention";
  require(q.ndim() == 4 && q.size() > 0, op, "q must be of shape (B, H, T, D), got " + to_string(q.shape()));
  require(window >= 0 && window < (1 << 30), op, "window must be at least 0, got " + std::to_string(window));
  auto check = [&](const char* argument, const mx::array& x, const mx::Shape& shape) {
    require(is_floating(x), op, std::string(argument) + " must be float32, float16 or bfloat16");
    require(
        x.shape() == shape, op,
        std::string(argument) + " must be of shape " + to_string(shape) + ", got " + to_string(x.shape()));
  };
  check("q", q, q.shape());
  check("k", k, q.shape());
  check("v", v, q.shape());
  check("rel_k", rel_k, {2 * window + 1, q.shape(3)});
  check("rel_v", rel_v, {2 * window + 1, q.shape(3)});
  return attend({q, k, v, rel_k, rel_v}, 1.0f / std::sqrt(static_cast<float>(q.shape(3))), s);
}

}  // namespace rvc_fast
