// patches.h: what a convolution multiplies at each pixel of its result: the codes that its kernel lies over, tap by tap
// (conv2d_problem.h), gathered from images whose pixels have their channels side by side. No torch header.
#pragma once

#include <cstring>

#include "conv2d_problem.h"

namespace quaver {

struct Patches {
  const Conv2dProblem& conv;
  uint8_t zero;  // the code that stands for 0: what padding is made of

  // The row of a pixel of the result, [kH, kW, channels].
  void gather(int64_t group, int64_t pixel, uint8_t* to) const {
    const int64_t column = pixel % conv.out_size[1];
    const int64_t line = pixel / conv.out_size[1];
    const int64_t top = line % conv.out_size[0] * conv.step[0] - conv.padding[0];
    const int64_t left = column * conv.step[1] - conv.padding[1];
    const uint8_t* const image = static_cast<const uint8_t*>(conv.x.data) +
                                 line / conv.out_size[0] * conv.x.image_stride + group * conv.channels;
    const int64_t codes = conv.kernel[1] * conv.channels;
    const bool inside = left >= 0 && left + conv.kernel[1] <= conv.size[1];
    const bool in_one_piece = inside && conv.dilation[1] == 1 && conv.x.stride[1] == conv.channels;
    for (int64_t tap = 0; tap < conv.kernel[0]; ++tap, to += codes) {
      const int64_t y = top + tap * conv.dilation[0];
      if (y < 0 || y >= conv.size[0]) {
        std::memset(to, zero, codes);
      } else if (in_one_piece) {
        std::memcpy(to, image + y * conv.x.stride[0] + left * conv.channels, codes);
      } else {
        gather_line(image + y * conv.x.stride[0], left, to);
      }
    }
  }

 private:
  // A row of the kernel, tap by tap.
  void gather_line(const uint8_t* line, int64_t left, uint8_t* to) const {
    for (int64_t tap = 0; tap < conv.kernel[1]; ++tap, to += conv.channels) {
      const int64_t x = left + tap * conv.dilation[1];
      if (x < 0 || x >= conv.size[1]) {
        std::memset(to, zero, conv.channels);
      } else {
        std::memcpy(to, line + x * conv.x.stride[1], conv.channels);
      }
    }
  }
};

}  // namespace quaver
