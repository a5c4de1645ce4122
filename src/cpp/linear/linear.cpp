#include "linear/linear.h"

namespace rvc_fast {

mx::array linear_pack(const mx::array& weight, const std::string& dtype, mx::StreamOrDevice s) {
  require(weight.ndim() == 2, "linear", "weight must be of shape (O, C), got " + to_string(weight.shape()));
  ConvParams p{.op = "linear"};
  p.in_channels = weight.shape(1);
  p.out_channels = weight.shape(0);
  p.format = parse_format("linear", dtype);
  return pack_conv(p, weight, s);
}

mx::array linear(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, const std::string& activation,
                 mx::StreamOrDevice s) {
  require(x.ndim() >= 1, "linear", "x must be of shape (..., C), got " + to_string(x.shape()));
  require(x.size() > 0, "linear", "x must not be empty, got " + to_string(x.shape()));
  ConvParams p{.op = "linear"};
  p.out_channels = out_channels;
  p.activation = parse_activation("linear", activation);
  mx::Shape shape = x.shape();
  shape.back() = out_channels;
  std::optional<mx::array> rows;
  if (residual) {
    require(residual->shape() == shape, "linear",
            "residual must be of shape " + to_string(shape) + ", got " + to_string(residual->shape()));
    rows = mx::reshape(*residual, {-1, out_channels}, s);
  }
  return mx::reshape(conv(p, mx::reshape(x, {-1, x.shape(-1)}, s), packed, bias, rows, s), shape, s);
}

}  // namespace rvc_fast
