// elementwise.h: one loop body for quantize and dequantize, specialized for the strides that vectorize.
// No torch header.
#pragma once

#include <type_traits>

#include "cpu/kernels/walk.h"
#include "cpu/simd.h"

namespace quaver {

inline constexpr int32_t kNoZeroPoint = 0;

// target[i] = compute(source[i], scale[i], zero_point[i]) over elements [begin, end) of the nest.
template <class Source, class Target, class Compute>
inline __attribute__((always_inline)) void elementwise(const ElementwiseNest& nest, int64_t begin, int64_t end,
                                                       const Source* source, Target* target, const float* scale,
                                                       const int32_t* zero_point, const Compute& compute) {
  using Same = std::integral_constant<int64_t, 0>;
  using Next = std::integral_constant<int64_t, 1>;
  if (zero_point == nullptr) zero_point = &kNoZeroPoint;  // its strides are 0
  const int64_t source_stride = inner_stride(nest, kSource);
  const int64_t target_stride = inner_stride(nest, kTarget);
  const int64_t scale_stride = inner_stride(nest, kScale);
  const int64_t zero_stride = inner_stride(nest, kZeroPoint);
  const bool contiguous = source_stride == 1 && target_stride == 1;

  walk(nest, begin, end, [&](const int64_t (&offset)[kElementwiseOperands], int64_t n) QUAVER_INLINE {
    const Source* __restrict from = source + offset[kSource];
    Target* __restrict to = target + offset[kTarget];
    const float* __restrict scales = scale + offset[kScale];
    const int32_t* __restrict zeros = zero_point + offset[kZeroPoint];
    const auto loop = [&](auto from_step, auto to_step, auto scale_step, auto zero_step) QUAVER_INLINE {
      for (int64_t i = 0; i < n; ++i)
        to[i * to_step] = compute(from[i * from_step], scales[i * scale_step], zeros[i * zero_step]);
    };
    if (contiguous && scale_stride == 0 && zero_stride == 0) return loop(Next{}, Next{}, Same{}, Same{});
    if (contiguous && scale_stride == 1 && zero_stride == 0) return loop(Next{}, Next{}, Next{}, Same{});
    if (contiguous && scale_stride == 1 && zero_stride == 1) return loop(Next{}, Next{}, Next{}, Next{});
    loop(source_stride, target_stride, scale_stride, zero_stride);
  });
}

}  // namespace quaver
