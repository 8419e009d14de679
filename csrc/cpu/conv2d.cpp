// conv2d.cpp: int8_conv2d on the CPU: the matmul's loops over rows that are gathered from images as they are needed, or
// loops of their own where each channel is convolved for itself.
#include "cpu/kernels/channels_last.h"
#include "cpu/kernels/depthwise.h"
#include "cpu/kernels/matmul.h"
#include "cpu/ops.h"
#include "cpu/packed.h"
#include "cpu/parallel.h"
#include "prepare_conv2d.h"

namespace quaver {
namespace {

constexpr const char* kOp = Conv2dArguments::kOp;

// Images with a pixel's channels side by side; `keeper` holds those that did not lie so.
void bring_channels_together(Conv2dProblem& conv, std::unique_ptr<uint8_t[]>& keeper) {
  const ImageSizes sizes{conv.channels * conv.groups, {conv.size[0], conv.size[1]}};
  if (sizes.channels == 1 || conv.x.channel_stride == 1) return;
  keeper = uninitialized(conv.images * sizes.codes());
  const ImageView from = conv.x;
  share(conv.images * sizes.pixels(), kElementsPerThread / (sizes.channels + 1) + 1,
        [&](int64_t begin, int64_t end) { take_pixels(from, sizes, begin, end, keeper.get()); });
  conv.x = channels_last_view(keeper.get(), sizes);
}

// The weight as b [K, O / groups] of each group; `keeper` holds one whose K is no run of equal steps.
void take_weight(Conv2dProblem& conv, std::unique_ptr<uint8_t[]>& keeper) {
  MatmulProblem& product = conv.product;
  LoopNest<1> taps;
  taps.push(conv.kernel[0], {conv.weight.stride[0]});
  taps.push(conv.kernel[1], {conv.weight.stride[1]});
  taps.push(conv.channels, {conv.weight.channel_stride});
  taps.merge();
  if (taps.loops > 1) {
    const int64_t channels = product.n * conv.groups;
    const ImageSizes sizes{conv.channels, {conv.kernel[0], conv.kernel[1]}};
    keeper = uninitialized(channels * sizes.codes());
    take_pixels(conv.weight, sizes, 0, channels * sizes.pixels(), keeper.get());
    conv.weight = channels_last_view(keeper.get(), sizes);
  }
  product.b.data = conv.weight.data;
  product.b.batch_stride[0] = product.n * conv.weight.image_stride;
  product.b.row_stride = taps.loops == 1 ? taps.stride[0][0] : 1;
  product.b.column_stride = conv.weight.image_stride;
}

// A kernel of one pixel, whose rows are x as it lies: a [M, C] for each group.
bool takes_pixels_as_they_are(const Conv2dProblem& conv) {
  for (int dim = 0; dim < 2; ++dim)
    if (conv.kernel[dim] != 1 || conv.step[dim] != 1 || conv.padding[dim] != 0) return false;
  LoopNest<1> pixels;
  pixels.push(conv.images, {conv.x.image_stride});
  pixels.push(conv.size[0], {conv.x.stride[0]});
  pixels.push(conv.size[1], {conv.x.stride[1]});
  pixels.merge();
  return pixels.loops <= 1;
}

uint8_t code_of_zero(const MatmulProblem& product) {
  return static_cast<uint8_t>(product.a_zero_point.data == nullptr ? 0 : *product.a_zero_point.data);
}

void convolve(Conv2dProblem conv, const uint8_t* packed) {
  MatmulProblem& product = conv.product;
  std::unique_ptr<uint8_t[]> images, weight;
  bring_channels_together(conv, images);
  if (packed == nullptr) take_weight(conv, weight);
  const bool as_they_are = takes_pixels_as_they_are(conv);
  if (as_they_are) {
    product.a.data = conv.x.data;
    product.a.batch_stride[0] = conv.channels;
    product.a.row_stride = conv.size[1] > 1   ? conv.x.stride[1]
                           : conv.size[0] > 1 ? conv.x.stride[0]
                                              : conv.x.image_stride;
    product.a.column_stride = 1;
  }
  const Patches patches{conv, code_of_zero(product)};
  const MatmulTasks tasks(product);
  share(tasks.count(product), tasks.grain(product), [&](int64_t begin, int64_t end) {
    MatmulThread(product, tasks, packed, false, conv.places, as_they_are ? nullptr : &patches).run(begin, end);
  });
}

void convolve_each_channel(Conv2dProblem conv) {
  std::unique_ptr<uint8_t[]> images;
  bring_channels_together(conv, images);
  const DepthwiseWeight weight(conv);
  const MatmulProblem product = depthwise_product(conv);
  const int32_t* const zero_point = conv.product.a_zero_point.data;
  share(DepthwiseThread::tasks(conv), DepthwiseThread::grain(conv), [&](int64_t begin, int64_t end) {
    DepthwiseThread(conv, weight, product, zero_point == nullptr ? 0 : *zero_point).run(begin, end);
  });
}

const uint8_t* packed_weight(const OptionalTensor& packed, const Tensor& x, const Conv2dProblem& conv) {
  if (!packed) return nullptr;
  check_companion(kOp, "weight_packed", *packed, ScalarType::Char, "x", x);
  QUAVER_CHECK(conv.groups == 1, kOp,
               "weight_packed needs groups=1, since a panel has columns of one matrix, got groups=", conv.groups);
  return packed_panels(kOp, "weight_packed", *packed, conv.product.k, conv.product.n);
}

}  // namespace

Tensor int8_conv2d_cpu(const Outs<1>* given, const Tensor& x, const Tensor& weight, const Tensor& x_scale,
                       const Tensor& weight_scale, OptionalTensor out_scale, OptionalTensor x_zero_point,
                       OptionalTensor out_zero_point, OptionalTensor bias, Shape stride, Shape padding, Shape dilation,
                       int64_t groups, bool relu, ScalarType dtype, std::optional<int64_t> q_min,
                       std::optional<int64_t> q_max, OptionalTensor weight_packed) {
  const Conv2dArguments arguments{x,     weight, x_scale, weight_scale, out_scale, x_zero_point, out_zero_point,
                                  bias,  stride, padding, dilation,     groups,    relu,         dtype,
                                  q_min, q_max};
  Conv2dProblem conv = conv2d_problem(arguments);
  const uint8_t* packed = packed_weight(weight_packed, x, conv);
  const Tensor out = provide_images(arguments, conv, out_at(given, 0));
  if (out.numel() == 0) return out;
  if (conv.is_depthwise()) {
    convolve_each_channel(conv);
  } else {
    convolve(conv, packed);
  }
  return out;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::int8_conv2d_cpu>(m, "int8_conv2d"); }
