// channels_last.h: images, and weights, in the order in which convolutions read them: pixel by pixel, each with its
// channels side by side. No torch header.
#pragma once

#include <algorithm>

#include "conv2d_problem.h"
#include "cpu/kernels/transpose.h"

namespace quaver {

// Images of `channels` channels and size[0] by size[1] pixels.
struct ImageSizes {
  int64_t channels;
  int64_t size[2];

  int64_t pixels() const { return size[0] * size[1]; }
  int64_t codes() const { return channels * pixels(); }
};

// Pixels [begin, end) of all images' to [N, H, W, C].
inline void take_pixels(const ImageView& from, const ImageSizes& sizes, int64_t begin, int64_t end, uint8_t* to) {
  const bool one_run = from.stride[0] == sizes.size[1] * from.stride[1];
  const int64_t run = one_run ? sizes.pixels() : sizes.size[1];
  for (int64_t pixel = begin; pixel < end;) {
    const int64_t at = pixel % sizes.pixels();
    const int64_t count = std::min(run - at % run, end - pixel);
    const uint8_t* const codes = static_cast<const uint8_t*>(from.data) + pixel / sizes.pixels() * from.image_stride +
                                 at / sizes.size[1] * from.stride[0] + at % sizes.size[1] * from.stride[1];
    uint8_t* const target = to + pixel * sizes.channels;
    if (from.stride[1] == 1) {
      transpose<uint8_t>({codes, from.channel_stride}, sizes.channels, count, {target, sizes.channels});
    } else {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t channel = 0; channel < sizes.channels; ++channel)
          target[i * sizes.channels + channel] = codes[i * from.stride[1] + channel * from.channel_stride];
    }
    pixel += count;
  }
}

inline ImageView channels_last_view(const uint8_t* data, const ImageSizes& sizes) {
  return {data, sizes.codes(), 1, {sizes.channels * sizes.size[1], sizes.channels}};
}

}  // namespace quaver
