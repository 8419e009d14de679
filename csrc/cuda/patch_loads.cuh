// patch_loads.cuh: the rows of a convolution's product from images to a stage of shared memory: what the kernel lies
// over at each pixel of the result, tap by tap (conv2d_problem.h). No matrix of them is ever in device memory.
#pragma once

#include "conv2d_problem.h"
#include "mma_tile.cuh"

namespace quaver {

// A line of a is a pixel of the result. A thread brings one chunk of every kLinesOfPass-th line: so it is at one place
// along K, a tap and a channel, for all of its lines. Beyond x's edges there is the code of zero, beyond K zeros, and
// beyond the last pixel this one again, whose results are not stored.
template <class Tile, int kLines>
struct PatchLoads {
  static constexpr int kLinesOfPass = Tile::kThreads / Tile::kChunks;
  static constexpr int kPasses = kLines / kLinesOfPass;
  static_assert(kLines % kLinesOfPass == 0);

  // Where the kernel lies for a line.
  struct Window {
    const uint8_t* image;  // the group's first channel of its first pixel
    int top;
    int left;
  };

  const Conv2dProblem& conv;
  Window window[kPasses];
  int k;            // of this thread's next chunk
  int channel;      // there
  int tap[2];       // there
  uint32_t to;      // within a stage; passes change no place of a chunk
  uint32_t zero;    // four codes of zero
  bool are_chunks;  // neighbours along K are neighbours in memory, 16 by 16 and aligned

  __device__ __forceinline__ PatchLoads(const Conv2dProblem& conv, int64_t group, int64_t first_line, bool are_chunks)
      : conv(conv), are_chunks(are_chunks) {
    const int chunk = threadIdx.x % Tile::kChunks;
    const int line = threadIdx.x / Tile::kChunks;
    k = chunk * Tile::kChunk;
    to = chunk_offset(line, chunk);
    const int32_t* const zero_point = conv.product.a_zero_point.data;
    zero = zero_point == nullptr ? 0 : (*zero_point & 0xFF) * 0x01010101u;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass)
      window[pass] = window_at(min(first_line + line + pass * kLinesOfPass, conv.product.m - 1), group);
    find_place();
  }

  __device__ __forceinline__ void next(uint32_t stage) {
    const bool exists = k < static_cast<int>(conv.product.k);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const uint32_t place = stage + to + pass * kLinesOfPass * Tile::kK;
      if (are_chunks) {
        copy(window[pass], exists, place);
      } else {
        gather(window[pass], place);
      }
    }
    k += Tile::kK;
    if (are_chunks) {
      step_on();
    } else {
      find_place();
    }
  }

 private:
  __device__ __forceinline__ Window window_at(int64_t pixel, int64_t group) const {
    const int64_t line = pixel / conv.out_size[1];
    const int64_t image = line / conv.out_size[0];
    const int x = static_cast<int>((pixel - line * conv.out_size[1]) * conv.step[1] - conv.padding[1]);
    const int y = static_cast<int>((line - image * conv.out_size[0]) * conv.step[0] - conv.padding[0]);
    const int64_t offset = image * conv.x.image_stride + group * conv.channels * conv.x.channel_stride;
    return {static_cast<const uint8_t*>(conv.x.data) + offset, y, x};
  }

  // The tap and the channel of k.
  __device__ __forceinline__ void find_place() {
    const uint32_t channels = max(static_cast<uint32_t>(conv.channels), 1u);
    const uint32_t columns = static_cast<uint32_t>(conv.kernel[1]);
    const uint32_t number = static_cast<uint32_t>(k) / channels;
    channel = k - number * channels;
    tap[0] = number / columns;
    tap[1] = number - tap[0] * columns;
  }

  // The same for chunks of taps that have several: a stage further.
  __device__ __forceinline__ void step_on() {
    channel += Tile::kK;
    while (channel >= static_cast<int>(conv.channels)) {
      channel -= static_cast<int>(conv.channels);
      next_tap(tap);
    }
  }

  __device__ __forceinline__ void next_tap(int (&at)[2]) const {
    if (++at[1] < static_cast<int>(conv.kernel[1])) return;
    at[1] = 0;
    ++at[0];
  }

  // A tap's first channel, or null beyond x's edges.
  __device__ __forceinline__ const uint8_t* pixel_at(const Window& at, const int (&of_tap)[2]) const {
    const int y = at.top + of_tap[0] * static_cast<int>(conv.dilation[0]);
    const int x = at.left + of_tap[1] * static_cast<int>(conv.dilation[1]);
    const bool inside = y >= 0 && y < conv.size[0] && x >= 0 && x < conv.size[1];
    return inside ? at.image + y * conv.x.stride[0] + x * conv.x.stride[1] : nullptr;
  }

  __device__ __forceinline__ void copy(const Window& at, bool exists, uint32_t place) const {
    const uint8_t* const pixel = pixel_at(at, tap);
    const bool inside = exists && pixel != nullptr;
    if (inside || !exists || zero == 0) {
      copy_async<Tile::kChunk>(place, inside ? pixel + channel : conv.x.data, inside ? Tile::kChunk : 0);
    } else {
      store_shared(place, zero, zero, zero, zero);
    }
  }

  // Code by code.
  __device__ __forceinline__ void gather(const Window& at, uint32_t place) const {
    int of_tap[2] = {tap[0], tap[1]};
    int of_channel = channel;
    const uint8_t* pixel = pixel_at(at, of_tap);
    uint32_t word[4] = {};
#pragma unroll
    for (int i = 0; i < Tile::kChunk; ++i) {
      if (k + i < static_cast<int>(conv.product.k)) {
        const uint32_t code = pixel == nullptr ? zero & 0xFF : pixel[of_channel * conv.x.channel_stride];
        word[i / 4] |= code << (i % 4 * 8);
        if (++of_channel == static_cast<int>(conv.channels)) {
          of_channel = 0;
          next_tap(of_tap);
          pixel = pixel_at(at, of_tap);
        }
      }
    }
    store_shared(place, word[0], word[1], word[2], word[3]);
  }
};

}  // namespace quaver
