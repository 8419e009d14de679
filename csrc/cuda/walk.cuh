// walk.cuh: a LoopNest (layout.h) made ready for the device: from the number of an element to its offsets with
// multiplications alone. A division of 64-bit integers would cost more than everything else that an element needs.
#pragma once

#include <cstdint>

#include "layout.h"

namespace quaver {

// n / divisor for 0 <= n < 2^63 and 2 <= divisor <= 2^62 by the upper half of a product.
//
// With 2^(shift-1) < divisor <= 2^shift and magic = floor(2^(63+shift) / divisor) + 1, the product magic * divisor
// exceeds 2^(63+shift) by at most 2^shift. So n * magic / 2^(63+shift) exceeds n / divisor by less than n / 2^63 /
// divisor, which is less than 1 / divisor: too little to reach the next integer.
struct Divisor {
  uint64_t magic = 0;
  int64_t divisor = 1;
  int32_t shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t by) : divisor(by) {
    if (by < 2) return;  // nothing divides by 0: an empty loop has no elements
    while ((int64_t{1} << shift) < by) ++shift;
    magic = static_cast<uint64_t>((static_cast<unsigned __int128>(1) << (63 + shift)) / static_cast<uint64_t>(by)) + 1;
  }

  __device__ __forceinline__ int64_t quotient(int64_t n) const { return divisor == 1 ? n : quotient_by_many(n); }

  // For a divisor that is known not to be 1.
  __device__ __forceinline__ int64_t quotient_by_many(int64_t n) const {
    return static_cast<int64_t>(__umul64hi(static_cast<uint64_t>(n), magic) >> (shift - 1));
  }
};

// The same for 0 <= n < 2^31 and a divisor of at most kMost, which leaves room for a block's elements above two of it.
struct ShortDivisor {
  static constexpr int64_t kMost = (int64_t{1} << 30) - (1 << 14);
  uint32_t magic = 0;
  int32_t divisor = 1;
  int32_t shift = 0;

  ShortDivisor() = default;
  explicit ShortDivisor(int64_t by) {
    if (by < 2 || by > kMost) return;
    divisor = static_cast<int32_t>(by);
    while ((int64_t{1} << shift) < by) ++shift;
    magic = static_cast<uint32_t>((uint64_t{1} << (31 + shift)) / static_cast<uint64_t>(by) + 1);
  }

  __device__ __forceinline__ int32_t quotient(int32_t n) const {
    if (divisor == 1) return n;
    return static_cast<int32_t>(__umulhi(static_cast<uint32_t>(n), magic) >> (shift - 1));
  }
};

// Strides are in elements; loop 0 is the outermost. A loop of one round is none: a nest has left it out.
template <int kOperands>
struct Walk {
  int32_t loops = 0;
  Divisor size[kMaxLoops];
  int64_t stride[kMaxLoops][kOperands] = {};

  Walk() = default;
  explicit Walk(const LoopNest<kOperands>& nest) : loops(nest.loops) {
    for (int loop = 0; loop < loops; ++loop) {
      size[loop] = Divisor(nest.size[loop]);
      for (int i = 0; i < kOperands; ++i) stride[loop][i] = nest.stride[loop][i];
    }
  }

  // Adds what element `index`, counted with the last loop fastest, is away from the first, for each operand.
  __device__ __forceinline__ void add_offsets(int64_t index, int64_t (&offset)[kOperands]) const {
    // Where nothing is left, further loops add nothing; the test also keeps the compiler from unrolling.
    for (int loop = loops - 1; loop > 0 && index != 0; --loop) {
      const int64_t rest = size[loop].quotient_by_many(index);
      const int64_t step = index - rest * size[loop].divisor;
      for (int i = 0; i < kOperands; ++i) offset[i] += step * stride[loop][i];
      index = rest;
    }
    // The outermost loop divides nothing; where there is none, its stride is 0.
    for (int i = 0; i < kOperands; ++i) offset[i] += index * stride[0][i];
  }
};

// A nest without its innermost loop.
template <int kOperands>
LoopNest<kOperands> outer_loops(LoopNest<kOperands> nest) {
  if (nest.loops > 0) --nest.loops;
  return nest;
}

template <int kOperands>
int64_t inner_size(const LoopNest<kOperands>& nest) {
  return nest.loops > 0 ? nest.size[nest.loops - 1] : 1;
}

// A single element is its own neighbour: its stride says nothing.
template <int kOperands>
int64_t inner_stride(const LoopNest<kOperands>& nest, int operand) {
  return nest.loops > 0 ? nest.stride[nest.loops - 1][operand] : 1;
}

}  // namespace quaver
