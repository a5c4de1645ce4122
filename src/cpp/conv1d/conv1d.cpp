#include "conv1d/conv1d.h"

namespace rvc_fast {

namespace {

constexpr const char* kConv1d = "conv1d";

ConvParams params(const std::vector<int>& shape, int groups, const std::string& dtype) {
  require(
      shape.size() == 3, kConv1d,
      "weight must be of shape (O, K, C/groups), got " + to_string(mx::Shape(shape.begin(), shape.end())));
  require(groups >= 1, kConv1d, "groups must be at least 1, got " + std::to_string(groups));
  ConvParams p{.op = kConv1d, .kernel = {1, shape[1]}};
  p.in_channels = shape[2] * groups;
  p.out_channels = shape[0];
  p.groups = groups;
  p.format = parse_format(kConv1d, dtype);
  return p;
}

}  // namespace

std::string conv1d_algorithm(const std::vector<int>& shape, int groups, const std::string& wanted,
                             const std::string& dtype) {
  return name_of(choose_algorithm(params(shape, groups, dtype), Method::fast, wanted));
}

mx::array conv1d_pack(const mx::array& weight, int groups, const std::string& algorithm,
                      const std::string& dtype, mx::StreamOrDevice s) {
  ConvParams p = params({weight.shape().begin(), weight.shape().end()}, groups, dtype);
  p.algorithm = parse_algorithm(kConv1d, algorithm);
  return pack_conv(p, weight, s);
}

mx::array conv1d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, int kernel, int stride,
                 std::pair<int, int> padding, int dilation, int groups, float leaky,
                 const std::string& activation, float scale, const std::string& algorithm,
                 mx::StreamOrDevice s) {
  require(x.ndim() == 3, kConv1d, "x must be of shape (B, T, C), got " + to_string(x.shape()));
  ConvParams p{.op = kConv1d, .kernel = {1, kernel}, .stride = {1, stride}, .dilation = {1, dilation}};
  p.before = {0, padding.first};
  p.after = {0, padding.second};
  p.out_channels = out_channels;
  p.groups = groups;
  p.leaky = leaky;
  p.activation = parse_activation(kConv1d, activation);
  p.scale = scale;
  p.algorithm = parse_algorithm(kConv1d, algorithm);
  return conv(p, x, packed, bias, residual, s);
}

}  // namespace rvc_fast
