#include "conv_transpose2d/conv_transpose2d.h"

namespace rvc_fast {

mx::array conv_transpose2d_pack(const mx::array& weight, std::pair<int, int> stride, const std::string& dtype,
                                mx::StreamOrDevice s) {
  const char* op = "conv_transpose2d";
  require(weight.ndim() == 4, op, "weight must be of shape (O, KH, KW, C), got " + to_string(weight.shape()));
  ConvParams p{.op = op, .kernel = {weight.shape(1), weight.shape(2)}, .transposed = true};
  p.stride = {stride.first, stride.second};
  p.in_channels = weight.shape(3);
  p.out_channels = weight.shape(0);
  p.format = parse_format(op, dtype);
  return pack_conv(p, weight, s);
}

mx::array conv_transpose2d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                           int out_channels, std::pair<int, int> kernel, std::pair<int, int> stride,
                           std::pair<int, int> padding, std::pair<int, int> output_padding,
                           const std::string& activation, const std::optional<mx::array>& beside,
                           mx::StreamOrDevice s) {
  const char* op = "conv_transpose2d";
  require(x.ndim() == 4, op, "x must be of shape (B, H, W, C), got " + to_string(x.shape()));
  require(output_padding.first >= 0 && output_padding.first < stride.first && output_padding.second >= 0 &&
              output_padding.second < stride.second,
          op, "output_padding must be from 0 to below the stride");
  ConvParams p{.op = op, .kernel = {kernel.first, kernel.second}, .transposed = true};
  p.stride = {stride.first, stride.second};
  p.before = {padding.first, padding.second};
  p.after = {padding.first - output_padding.first, padding.second - output_padding.second};
  p.out_channels = out_channels;
  p.activation = parse_activation(op, activation);
  return conv(p, x, packed, bias, std::nullopt, s, beside);
}

}  // namespace rvc_fast
