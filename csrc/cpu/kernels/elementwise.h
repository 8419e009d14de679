// elementwise.h: one loop body for quantize and dequantize, specialized for the strides that vectorize.
// No torch header.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "cpu/kernels/walk.h"
#include "cpu/simd.h"

namespace quaver {

inline constexpr int32_t kNoZeroPoint = 0;

// What an op draws for its elements, so many at once: nothing. draws.h has random numbers.
struct NoDraws {
  inline __attribute__((always_inline)) explicit NoDraws(int64_t /*seed*/) {}
  static constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  inline __attribute__((always_inline)) void draw(int64_t /*first*/, int64_t /*n*/) {}
  inline __attribute__((always_inline)) float operator[](int64_t /*i*/) const { return 0.0f; }
};

// target[i] = compute(source[i], scale[i], zero_point[i], draws[i]) over elements [begin, end) of the nest.
template <class Draws, class Source, class Target, class Compute>
inline __attribute__((always_inline)) void elementwise(const ElementwiseNest& nest, int64_t begin, int64_t end,
                                                       Draws draws, const Source* source, Target* target,
                                                       const float* scale, const int32_t* zero_point,
                                                       const Compute& compute) {
  using Same = std::integral_constant<int64_t, 0>;
  using Next = std::integral_constant<int64_t, 1>;
  if (zero_point == nullptr) zero_point = &kNoZeroPoint;  // its strides are 0
  const int64_t source_stride = inner_stride(nest, kSource);
  const int64_t target_stride = inner_stride(nest, kTarget);
  const int64_t scale_stride = inner_stride(nest, kScale);
  const int64_t zero_stride = inner_stride(nest, kZeroPoint);
  const bool contiguous = source_stride == 1 && target_stride == 1;

  walk(nest, begin, end, [&](const int64_t (&offset)[kElementwiseOperands], int64_t run) QUAVER_INLINE {
    for (int64_t done = 0, n; done < run; done += n) {
      n = std::min(run - done, Draws::kMost);
      draws.draw(begin, n);
      begin += n;
      const Source* __restrict from = source + offset[kSource] + done * source_stride;
      Target* __restrict to = target + offset[kTarget] + done * target_stride;
      const float* __restrict scales = scale + offset[kScale] + done * scale_stride;
      const int32_t* __restrict zeros = zero_point + offset[kZeroPoint] + done * zero_stride;
      const auto loop = [&](auto from_step, auto to_step, auto scale_step, auto zero_step) QUAVER_INLINE {
        for (int64_t i = 0; i < n; ++i)
          to[i * to_step] = compute(from[i * from_step], scales[i * scale_step], zeros[i * zero_step], draws[i]);
      };
      if (contiguous && scale_stride == 0 && zero_stride == 0) {
        loop(Next{}, Next{}, Same{}, Same{});
      } else if (contiguous && scale_stride == 1 && zero_stride == 0) {
        loop(Next{}, Next{}, Next{}, Same{});
      } else if (contiguous && scale_stride == 1 && zero_stride == 1) {
        loop(Next{}, Next{}, Next{}, Next{});
      } else {
        loop(source_stride, target_stride, scale_stride, zero_stride);
      }
    }
  });
}

template <class Source, class Target, class Compute>
inline __attribute__((always_inline)) void elementwise(const ElementwiseNest& nest, int64_t begin, int64_t end,
                                                       const Source* source, Target* target, const float* scale,
                                                       const int32_t* zero_point, const Compute& compute) {
  elementwise(nest, begin, end, NoDraws(0), source, target, scale, zero_point,
              [&](Source value, float one_scale, int32_t zero, float)
                  QUAVER_INLINE { return compute(value, one_scale, zero); });
}

}  // namespace quaver
