#include "conv1d/conv1d.h"

namespace rvc_fast {

mx::array conv1d_pack(const mx::array& weight, int groups, const std::string& dtype, mx::StreamOrDevice s) {
  require(weight.ndim() == 3, "conv1d",
          "weight must be of shape (O, K, C/groups), got " + to_string(weight.shape()));
  require(groups >= 1, "conv1d", "groups must be at least 1, got " + std::to_string(groups));
  ConvParams p{.op = "conv1d", .kernel = {1, weight.shape(1)}};
  p.in_channels = weight.shape(2) * groups;
  p.out_channels = weight.shape(0);
  p.groups = groups;
  p.format = parse_format("conv1d", dtype);
  return pack_conv(p, weight, s);
}

mx::array conv1d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, int kernel, int stride,
                 std::pair<int, int> padding, int dilation, int groups, float leaky,
                 const std::string& activation, float scale, mx::StreamOrDevice s) {
  require(x.ndim() == 3, "conv1d", "x must be of shape (B, T, C), got " + to_string(x.shape()));
  ConvParams p{.op = "conv1d", .kernel = {1, kernel}, .stride = {1, stride}, .dilation = {1, dilation}};
  p.before = {0, padding.first};
  p.after = {0, padding.second};
  p.out_channels = out_channels;
  p.groups = groups;
  p.leaky = leaky;
  p.activation = parse_activation("conv1d", activation);
  p.scale = scale;
  return conv(p, x, packed, bias, residual, s);
}

}  // namespace rvc_fast
