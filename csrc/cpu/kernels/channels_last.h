// channels_last.h: images, and weights, in the order in which convolutions read them: pixel by pixel, each with its
// channels side by side. No torch header.
#pragma once

#include <algorithm>

#include "conv2d_problem.h"

namespace quaver {

// Images of `channels` channels and size[0] by size[1] pixels.
struct ImageSizes {
  int64_t channels;
  int64_t size[2];

  int64_t codes() const { return channels * size[0] * size[1]; }
  int64_t codes_of_line() const { return channels * size[1]; }
};

// Lines [begin, end) of all images' to [N, H, W, C].
inline void take_lines(const ImageView& from, const ImageSizes& sizes, int64_t begin, int64_t end, uint8_t* to) {
  constexpr int64_t kChannels = 64;  // whose lines of a cache are kept
  for (int64_t line = begin; line < end; ++line) {
    const uint8_t* const codes = static_cast<const uint8_t*>(from.data) + line / sizes.size[0] * from.image_stride +
                                 line % sizes.size[0] * from.stride[0];
    uint8_t* const __restrict target = to + line * sizes.codes_of_line();
    for (int64_t first = 0; first < sizes.channels; first += kChannels) {
      const int64_t last = std::min(first + kChannels, sizes.channels);
      for (int64_t x = 0; x < sizes.size[1]; ++x)
        for (int64_t channel = first; channel < last; ++channel)
          target[x * sizes.channels + channel] = codes[x * from.stride[1] + channel * from.channel_stride];
    }
  }
}

inline ImageView channels_last_view(const uint8_t* data, const ImageSizes& sizes) {
  return {data, sizes.codes(), 1, {sizes.codes_of_line(), sizes.channels}};
}

}  // namespace quaver
