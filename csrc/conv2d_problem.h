// conv2d_problem.h: one int8 convolution with its epilogue, as every convolution kernel receives it. No torch header.
//
// It is a matmul for each group, ARITHMETIC.md (13): a row for each pixel of the result, a column for each of the
// group's channels there, and along K what the kernel lies over, tap by tap: [kH, kW, C / groups]. So the codes of a
// tap are neighbours where a pixel's channels are. Pairs are of rows, then columns of an image.
#pragma once

#include <cstdint>

#include "matmul_problem.h"

namespace quaver {

struct ImageView {
  const void* data = nullptr;
  int64_t image_stride = 0;  // of a weight: from one channel of the result to the next
  int64_t channel_stride = 0;
  int64_t stride[2] = {};
};

struct Conv2dProblem {
  int64_t images = 0;
  int64_t channels = 0;  // of a group of x
  int64_t groups = 1;
  int64_t size[2] = {};
  int64_t kernel[2] = {};
  int64_t step[2] = {};  // from pixel to pixel of the result, in pixels of x
  int64_t padding[2] = {};
  int64_t dilation[2] = {};
  int64_t out_size[2] = {};

  ImageView x;       // [N, C, H, W] int8 or uint8
  ImageView weight;  // [O, C / groups, kH, kW] int8
  ResultPlaces places;
  MatmulProblem product;  // a batch for each group; where a and b are is the kernels' affair

  // A channel of x for each of the result's, or for several: products along K are few.
  bool is_depthwise() const { return channels == 1 && groups > 1; }
};

}  // namespace quaver
