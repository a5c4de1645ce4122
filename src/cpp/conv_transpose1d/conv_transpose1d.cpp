#include "conv_transpose1d/conv_transpose1d.h"

namespace rvc_fast {

mx::array conv_transpose1d_pack(const mx::array& weight, int stride, const std::string& dtype,
                                mx::StreamOrDevice s) {
  const char* op = "conv_transpose1d";
  require(weight.ndim() == 3, op, "weight must be of shape (O, K, C), got " + to_string(weight.shape()));
  ConvParams p{.op = op, .kernel = {1, weight.shape(1)}, .stride = {1, stride}, .transposed = true};
  p.in_channels = weight.shape(2);
  p.out_channels = weight.shape(0);
  p.format = parse_format(op, dtype);
  return pack_conv(p, weight, s);
}

mx::array conv_transpose1d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                           const std::optional<mx::array>& residual, int out_channels, int kernel, int stride,
                           int padding, int output_padding, float leaky, mx::StreamOrDevice s) {
  const char* op = "conv_transpose1d";
  require(x.ndim() == 3, op, "x must be of shape (B, T, C), got " + to_string(x.shape()));
  require(output_padding >= 0 && output_padding < stride, op,
          "output_padding must be from 0 to below the stride");
  ConvParams p{.op = op, .kernel = {1, kernel}, .stride = {1, stride}, .transposed = true};
  p.before = {0, padding};
  p.after = {0, padding - output_padding};
  p.out_channels = out_channels;
  p.leaky = leaky;
  return conv(p, x, packed, bias, residual, s);
}

}  // namespace rvc_fast
