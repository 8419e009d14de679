// qparams.h: the range of each block of a tensor, ARITHMETIC.md (4). No torch header.
#pragma once

#include <algorithm>
#include <type_traits>

#include "arguments.h"
#include "arith.h"
#include "cpu/fused.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/neighbours.h"
#include "cpu/kernels/walk.h"

namespace quaver {

// Ranges side by side, so that loops over them vectorize: minimum and maximum do not depend on the order.
inline constexpr int kRanges = 32;

// n neighbours, each into the range of its place.
template <class T>
inline __attribute__((always_inline)) void widen_places(const T* __restrict x, int64_t n, float (&lows)[kRanges],
                                                        float (&highs)[kRanges]) {
  const auto widen = [&](int place, T element) QUAVER_INLINE {
    const float value = finite_or_zero(to_float(element));
    lows[place] = smaller(value, lows[place]);
    highs[place] = larger(value, highs[place]);
  };
  int64_t i = 0;
  for (; i + kRanges <= n; i += kRanges)
    for (int place = 0; place < kRanges; ++place) widen(place, x[i + place]);
  for (int place = 0; place < n - i; ++place) widen(place, x[i + place]);
}

// Widens lo and hi by a run of one block; from afar, if it is in no cache yet.
template <class T, int kWidth>
inline __attribute__((always_inline)) void widen_one(const T* x, int64_t stride, int64_t n, bool far, float& lo,
                                                     float& hi, Fused<kWidth> fused) {
  float lows[kRanges] = {};
  float highs[kRanges] = {};
  Lane<T> room[kChunk];
  for (int64_t at = 0; at < n; at += kChunk) {
    const int64_t count = std::min(kChunk, n - at);
    const T* const first = x + at * stride;
    if (far && stride == 1) fetch_ahead(first, count);
    widen_places(bring_lanes(first, stride, count, room, fused), count, lows, highs);
  }
  for (int half = kRanges / 2; half > 0; half /= 2) {
    for (int place = 0; place < half; ++place) {
      lows[place] = smaller(lows[place + half], lows[place]);
      highs[place] = larger(highs[place + half], highs[place]);
    }
  }
  lo = smaller(lows[0], lo);
  hi = larger(highs[0], hi);
}

// Widens the ranges of a run of neighbouring blocks by one element each.
template <class T, int kWidth>
inline __attribute__((always_inline)) void widen_each(const T* x, int64_t stride, int64_t n, bool far,
                                                      float* __restrict lo, float* __restrict hi, int64_t step,
                                                      Fused<kWidth> fused) {
  Lane<T> room[kChunk];
  for (int64_t at = 0; at < n; at += kChunk) {
    const int64_t count = std::min(kChunk, n - at);
    const T* const first = x + at * stride;
    if (far && stride == 1) fetch_ahead(first, count);
    const Lane<T>* __restrict lanes = bring_lanes(first, stride, count, room, fused);
    const auto loop = [&](auto block_step) QUAVER_INLINE {
      for (int64_t i = 0; i < count; ++i) {
        const float value = finite_or_zero(to_float(lanes[i]));
        float& low = lo[(at + i) * block_step];
        float& high = hi[(at + i) * block_step];
        low = smaller(value, low);
        high = larger(value, high);
      }
    };
    if (step == 1) {
      loop(std::integral_constant<int64_t, 1>{});
    } else {
      loop(step);
    }
  }
}

// Widens the ranges [lo, hi] of all blocks by the elements of the nest; both start as 0 (a range holds 0).
template <class T>
void widen_ranges(const QparamsArguments& arguments, float* lo, float* hi) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    const ReductionNest& nest = arguments.nest;
    const T* x = static_cast<const T*>(arguments.x);
    const int64_t x_stride = inner_stride(nest, kReduced);
    const int64_t block_stride = inner_stride(nest, kResult);
    const bool far = nest.numel() * static_cast<int64_t>(sizeof(T)) >= kFarBytes;
    walk(nest, 0, nest.numel(), [&](const int64_t (&offset)[kReductionOperands], int64_t n) QUAVER_INLINE {
      const T* run = x + offset[kReduced];
      float* run_lo = lo + offset[kResult];
      float* run_hi = hi + offset[kResult];
      if (block_stride == 0) {
        widen_one(run, x_stride, n, far, *run_lo, *run_hi, fused);
      } else {
        widen_each(run, x_stride, n, far, run_lo, run_hi, block_stride, fused);
      }
    });
  });
}

inline void widen_ranges(const QparamsArguments& arguments, float* lo, float* hi) {
  with_type(arguments.x_type, [&](auto tag) { widen_ranges<typename decltype(tag)::type>(arguments, lo, hi); });
}

}  // namespace quaver
