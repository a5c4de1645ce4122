#include "conv2d/conv2d.h"

namespace rvc_fast {

mx::array conv2d_pack(const mx::array& weight, const std::string& dtype, mx::StreamOrDevice s) {
  require(weight.ndim() == 4, "conv2d",
          "weight must be of shape (O, KH, KW, C), got " + to_string(weight.shape()));
  ConvParams p{.op = "conv2d", .kernel = {weight.shape(1), weight.shape(2)}};
  p.in_channels = weight.shape(3);
  p.out_channels = weight.shape(0);
  p.bf16 = parse_dtype("conv2d", dtype);
  return pack_conv(p, weight, s);
}

mx::array conv2d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, std::pair<int, int> kernel,
                 std::pair<int, int> padding, const std::string& activation, mx::StreamOrDevice s) {
  require(x.ndim() == 4, "conv2d", "x must be of shape (B, H, W, C), got " + to_string(x.shape()));
  ConvParams p{.op = "conv2d", .kernel = {kernel.first, kernel.second}};
  p.before = p.after = {padding.first, padding.second};
  p.out_channels = out_channels;
  p.activation = parse_activation("conv2d", activation);
  return conv(p, x, packed, bias, residual, s);
}

}  // namespace rvc_fast
