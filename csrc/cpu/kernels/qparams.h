// qparams.h: the range of each block of a tensor, ARITHMETIC.md (4). No torch header.
#pragma once

#include <type_traits>

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/walk.h"
#include "cpu/simd.h"

namespace quaver {

// Widens lo and hi by a run of one block. Many independent ranges, so that the loop vectorizes: minimum and maximum
// do not depend on the order.
template <class T>
inline __attribute__((always_inline)) void widen_one(const T* x, int64_t stride, int64_t n, float& lo, float& hi) {
  constexpr int kLanes = 32;
  float lows[kLanes];
  float highs[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) lows[lane] = highs[lane] = 0.0f;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + kLanes <= n; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const float value = finite_or_zero(to_float(x[i + lane]));
        lows[lane] = smaller(value, lows[lane]);
        highs[lane] = larger(value, highs[lane]);
      }
    }
  }
  for (; i < n; ++i) {
    const float value = finite_or_zero(to_float(x[i * stride]));
    lows[0] = smaller(value, lows[0]);
    highs[0] = larger(value, highs[0]);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    lo = smaller(lows[lane], lo);
    hi = larger(highs[lane], hi);
  }
}

// Widens the ranges of a run of neighbouring blocks by one element each.
template <class T>
inline __attribute__((always_inline)) void widen_each(const T* __restrict x, int64_t stride, int64_t n,
                                                      float* __restrict lo, float* __restrict hi, int64_t step) {
  const auto loop = [&](auto x_stride, auto block_stride) QUAVER_INLINE {
    for (int64_t i = 0; i < n; ++i) {
      const float value = finite_or_zero(to_float(x[i * x_stride]));
      lo[i * block_stride] = smaller(value, lo[i * block_stride]);
      hi[i * block_stride] = larger(value, hi[i * block_stride]);
    }
  };
  using Next = std::integral_constant<int64_t, 1>;
  if (stride == 1 && step == 1) return loop(Next{}, Next{});
  loop(stride, step);
}

// Widens the ranges [lo, hi] of all blocks by the elements of the nest; both start as 0 (a range holds 0).
template <class T>
void widen_ranges(const QparamsArguments& arguments, float* lo, float* hi) {
  vectorized([&]() QUAVER_INLINE {
    const ReductionNest& nest = arguments.nest;
    const T* x = static_cast<const T*>(arguments.x);
    const int64_t x_stride = inner_stride(nest, kReduced);
    const int64_t block_stride = inner_stride(nest, kResult);
    walk(nest, 0, nest.numel(), [&](const int64_t (&offset)[kReductionOperands], int64_t n) QUAVER_INLINE {
      const T* run = x + offset[kReduced];
      float* run_lo = lo + offset[kResult];
      float* run_hi = hi + offset[kResult];
      if (block_stride == 0) {
        widen_one(run, x_stride, n, *run_lo, *run_hi);
      } else {
        widen_each(run, x_stride, n, run_lo, run_hi, block_stride);
      }
    });
  });
}

inline void widen_ranges(const QparamsArguments& arguments, float* lo, float* hi) {
  with_type(arguments.x_type, [&](auto tag) { widen_ranges<typename decltype(tag)::type>(arguments, lo, hi); });
}

}  // namespace quaver
