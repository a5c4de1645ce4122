#include "conv2d/conv2d.h"

namespace rvc_fast {
namespace {

constexpr const char* kConv2d = "conv2d";

ConvParams params(const std::vector<int>& shape, Format format) {
  require(shape.size() == 4, kConv2d,
          "weight must be of shape (O, KH, KW, C), got " + to_string(mx::Shape(shape.begin(), shape.end())));
  ConvParams p{.op = kConv2d, .kernel = {shape[1], shape[2]}};
  p.in_channels = shape[3];
  p.out_channels = shape[0];
  p.format = format;
  return p;
}

}  // namespace

std::string conv2d_algorithm(const std::vector<int>& shape, const std::string& wanted,
                             const std::string& dtype) {
  return name_of(choose_algorithm(params(shape, parse_format(kConv2d, dtype)), Method::winograd, wanted));
}

mx::array conv2d_pack(const mx::array& weight, const std::string& algorithm, const std::string& dtype,
                      mx::StreamOrDevice s) {
  ConvParams p = params({weight.shape().begin(), weight.shape().end()}, parse_format(kConv2d, dtype));
  p.algorithm = parse_algorithm(kConv2d, algorithm);
  return pack_conv(p, weight, s);
}

mx::array conv2d(const mx::array& x, const mx::array& packed, const std::optional<mx::array>& bias,
                 const std::optional<mx::array>& residual, int out_channels, std::pair<int, int> kernel,
                 std::pair<int, int> padding, const std::string& activation, const std::string& algorithm,
                 mx::StreamOrDevice s) {
  require(x.ndim() == 4, kConv2d, "x must be of shape (B, H, W, C), got " + to_string(x.shape()));
  ConvParams p{.op = kConv2d, .kernel = {kernel.first, kernel.second}};
  p.before = p.after = {padding.first, padding.second};
  p.out_channels = out_channels;
  p.activation = parse_activation(kConv2d, activation);
  p.algorithm = parse_algorithm(kConv2d, algorithm);
  return conv(p, x, packed, bias, residual, s);
}

}  // namespace rvc_fast
