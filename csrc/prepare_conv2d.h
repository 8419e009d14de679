// prepare_conv2d.h: from a convolution's tensors to a checked Conv2dProblem; shared by the CPU and CUDA backends.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "checks.h"
#include "conv2d_problem.h"
#include "prepare_matmul.h"

namespace quaver {

struct Conv2dArguments {
  static constexpr const char* kOp = "int8_conv2d";
  const Tensor& x;
  const Tensor& weight;
  const Tensor& x_scale;
  const Tensor& weight_scale;
  OptionalTensor out_scale, x_zero_point, out_zero_point, bias;
  Shape stride, padding, dilation;
  int64_t groups;
  bool relu;
  ScalarType dtype;
  std::optional<int64_t> q_min, q_max;
};

// A pair of numbers, for rows and for columns.
inline void check_pair(const char* op, const char* name, const Shape& pair, int64_t least, int64_t (&to)[2]) {
  constexpr int64_t kMost = 2147483647;
  const bool fits = pair.size() == 2 && std::min(pair[0], pair[1]) >= least && std::max(pair[0], pair[1]) <= kMost;
  QUAVER_CHECK(fits, op, name, " must be two numbers from ", least, " to ", kMost, ", got ", to_words(pair));
  std::copy(pair.begin(), pair.end(), to);
}

// Along what has one element no step is taken: there the stride is 0.
inline ImageView image_view(const Tensor& images) {
  const auto stride = [&](int64_t dim) { return images.size(dim) > 1 ? images.stride(dim) : 0; };
  return {images.const_data_ptr(), stride(0), stride(1), {stride(2), stride(3)}};
}

// Shapes and numbers: all but what the epilogue takes.
inline Conv2dProblem conv2d_geometry(const Conv2dArguments& arguments) {
  const char* op = arguments.kOp;
  const Tensor& x = arguments.x;
  const Tensor& weight = arguments.weight;
  const int64_t groups = arguments.groups;
  Conv2dProblem conv;
  conv.product.a_type = check_codes(op, "x", x);
  QUAVER_CHECK(x.dim() == 4, op, "x must have 4 dimensions, [N, C, H, W], got ", x.dim());
  check_companion(op, "weight", weight, ScalarType::Char, "x", x);
  QUAVER_CHECK(weight.dim() == 4, op, "weight must have 4 dimensions, [O, C / groups, kH, kW], got ", weight.dim());
  QUAVER_CHECK(groups >= 1, op, "groups must be at least 1, got ", groups);
  QUAVER_CHECK(x.size(1) % groups == 0 && weight.size(0) % groups == 0, op,
               "groups must divide the channels of x and of the result, got groups=", groups, " for ", x.size(1),
               " and ", weight.size(0));
  QUAVER_CHECK(weight.size(1) == x.size(1) / groups, op, "weight must have the shape [O, ", x.size(1) / groups,
               ", kH, kW] for x ", to_words(shape_of(x)), " and groups=", groups, ", got ", to_words(shape_of(weight)));
  QUAVER_CHECK(weight.size(2) >= 1 && weight.size(3) >= 1, op, "weight must have a kernel of 1 x 1 or more, got ",
               weight.size(2), " x ", weight.size(3));
  check_pair(op, "stride", arguments.stride, 1, conv.step);
  check_pair(op, "padding", arguments.padding, 0, conv.padding);
  check_pair(op, "dilation", arguments.dilation, 1, conv.dilation);
  conv.images = x.size(0);
  conv.channels = weight.size(1);
  conv.groups = groups;
  Shape padded(2), reach(2);
  for (int64_t dim = 0; dim < 2; ++dim) {
    conv.size[dim] = x.size(2 + dim);
    conv.kernel[dim] = weight.size(2 + dim);
    padded[dim] = conv.size[dim] + 2 * conv.padding[dim];
    reach[dim] = conv.dilation[dim] * (conv.kernel[dim] - 1) + 1;
    conv.out_size[dim] = (padded[dim] - reach[dim]) / conv.step[dim] + 1;
  }
  QUAVER_CHECK(std::max(padded[0], padded[1]) < int64_t{1} << 31, op,
               "x with its padding must have fewer than 2^31 rows and columns, got ", to_words(padded));
  QUAVER_CHECK(reach[0] <= padded[0] && reach[1] <= padded[1], op,
               "the kernel with its dilation must not be larger than x with its padding, got ", to_words(reach),
               " for ", to_words(padded));
  conv.x = image_view(x);
  conv.weight = image_view(weight);
  conv.product.m = conv.images * conv.out_size[0] * conv.out_size[1];
  conv.product.n = weight.size(0) / groups;
  conv.product.k = conv.channels * conv.kernel[0] * conv.kernel[1];
  conv.product.batch_dims = 1;
  conv.product.batch_size[0] = groups;
  check_k(op, conv.product.k, conv.product.a_type, CodeType::kInt8, arguments.x_zero_point.has_value());
  return conv;
}

// A value for all of the result.
template <class T>
VectorView<T> single_value(const char* op, const char* name, const OptionalTensor& tensor, const Tensor& x) {
  VectorView<T> view;
  if (!tensor) return view;
  check_companion(op, name, *tensor, kTypeOf<T>, "x", x);
  QUAVER_CHECK(tensor->numel() == 1, op, name, " must have one element, got ", to_words(shape_of(*tensor)));
  view.data = tensor->const_data_ptr<T>();
  return view;
}

inline VectorView<float> weight_scale_view(const Conv2dArguments& arguments, int64_t channels_of_group) {
  const char* op = arguments.kOp;
  const Tensor& scale = arguments.weight_scale;
  const Shape per_channel = {arguments.weight.size(0), 1, 1, 1};
  check_companion(op, "weight_scale", scale, ScalarType::Float, "x", arguments.x);
  const bool single = scale.numel() == 1;
  QUAVER_CHECK(single || shape_of(scale) == per_channel, op, "weight_scale must have one element or the shape ",
               to_words(per_channel), ", got ", to_words(shape_of(scale)));
  VectorView<float> view;
  view.data = scale.const_data_ptr<float>();
  view.stride = single ? 0 : scale.stride(0);
  view.batch_stride[0] = channels_of_group * view.stride;
  return view;
}

inline MatmulOutput conv2d_output(const Conv2dArguments& arguments, CodeRange& range) {
  const char* op = arguments.kOp;
  const ScalarType dtype = arguments.dtype;
  const bool codes = dtype == ScalarType::Char || dtype == ScalarType::Byte;
  const bool floats = dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
  QUAVER_CHECK(codes || floats, op, "dtype must be float32, float16, bfloat16, int8 or uint8, got ", name_of(dtype));
  if (floats) {
    const bool asked = arguments.out_scale || arguments.out_zero_point || arguments.q_min || arguments.q_max;
    QUAVER_CHECK(!asked, op, "out_scale, out_zero_point, q_min and q_max are for a dtype of codes, got ",
                 name_of(dtype));
    return output_of(check_float_type(op, "dtype", dtype));
  }
  QUAVER_CHECK(arguments.out_scale, op, "out_scale must be given for a dtype of codes, got None for ", name_of(dtype));
  const CodeType type = check_code_type(op, "dtype", dtype);
  range = check_code_range(op, type, arguments.q_min, arguments.q_max);
  return output_of(type);
}

// All that there is to check but the result's own memory.
inline Conv2dProblem conv2d_problem(const Conv2dArguments& arguments) {
  const char* op = arguments.kOp;
  const Tensor& x = arguments.x;
  Conv2dProblem conv = conv2d_geometry(arguments);
  MatmulProblem& product = conv.product;
  product.a_scale = single_value<float>(op, "x_scale", arguments.x_scale, x);
  product.a_zero_point = single_value<int32_t>(op, "x_zero_point", arguments.x_zero_point, x);
  product.b_scale = weight_scale_view(arguments, product.n);
  product.out_scale = single_value<float>(op, "out_scale", arguments.out_scale, x);
  product.out_zero_point = single_value<int32_t>(op, "out_zero_point", arguments.out_zero_point, x);
  if (arguments.bias) {
    product.bias = bias_view<float>(op, *arguments.bias, product.n * conv.groups, "x", x);
    product.bias.batch_stride[0] = product.n * product.bias.stride;
  }
  product.relu = arguments.relu;
  product.out_type = conv2d_output(arguments, product.range);
  return conv;
}

// Whether a result is to be channels_last: as torch's x.suggest_memory_format(), which the stable ABI has not, decides
// by the strides: each of C, W, H and N reaches over what the one before spans.
inline bool suggests_channels_last(const Tensor& x) {
  if (x.stride(1) == 0) return false;
  int64_t least = 0;
  for (const int64_t dim : {1, 3, 2, 0}) {
    if (x.size(dim) == 0 || x.stride(dim) < least) return false;
    if (dim == 0 && least == x.stride(1)) return false;  // one pixel of one channel looks like both
    least = x.stride(dim) * std::max<int64_t>(x.size(dim), 1);
  }
  return true;
}

// Checks or makes the result, and says where it goes.
inline Tensor provide_images(const Conv2dArguments& arguments, Conv2dProblem& conv, const Tensor* given) {
  const Tensor& x = arguments.x;
  const Shape shape = {conv.images, arguments.weight.size(0), conv.out_size[0], conv.out_size[1]};
  Tensor out;
  if (given != nullptr) {
    check_out(arguments.kOp, "out", *given, shape, arguments.dtype, Layout::kImages,
              {{"x", x},
               {"weight", arguments.weight},
               {"x_scale", arguments.x_scale},
               {"weight_scale", arguments.weight_scale},
               {"out_scale", arguments.out_scale},
               {"x_zero_point", arguments.x_zero_point},
               {"out_zero_point", arguments.out_zero_point},
               {"bias", arguments.bias}});
    out = *given;
  } else if (suggests_channels_last(x)) {
    out = new_tensor(x, {shape[0], shape[2], shape[3], shape[1]}, arguments.dtype);
    out = torch::stable::transpose(torch::stable::transpose(out, 1, 3), 2, 3);
  } else {
    out = new_tensor(x, shape, arguments.dtype);
  }
  const int64_t channels = shape[1];
  const int64_t pixels = shape[2] * shape[3];
  if (is_channels_last(out)) {
    conv.places = {conv.product.n, 0, channels, 1, conv.product.m};
  } else {
    conv.places = {conv.product.n * pixels, channels * pixels, 1, pixels, pixels};
  }
  conv.product.out = out.mutable_data_ptr();
  return out;
}

}  // namespace quaver
