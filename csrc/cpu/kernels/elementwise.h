// elementwise.h: one walk for quantize, dequantize and fake_quantize, with loops that vectorize for all strides and
// types. No torch header.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "cpu/fused.h"
#include "cpu/kernels/column_reciprocals.h"
#include "cpu/kernels/neighbours.h"
#include "cpu/kernels/walk.h"

namespace quaver {

inline constexpr int32_t kNoZeroPoint = 0;

// What an op draws for its elements, so many at once: nothing. draws.h has random numbers.
struct NoDraws {
  inline __attribute__((always_inline)) explicit NoDraws(int64_t /*seed*/) {}
  static constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  inline __attribute__((always_inline)) void draw(int64_t /*first*/, int64_t /*n*/) {}
  inline __attribute__((always_inline)) float operator[](int64_t /*i*/) const { return 0.0f; }
};

// None, where an op takes none.
template <class Compute>
inline __attribute__((always_inline)) ColumnReciprocals column_reciprocals(const ElementwiseNest& nest,
                                                                           int64_t elements, const float* scale,
                                                                           const int32_t* zero_point,
                                                                           const Compute& compute) {
  if constexpr (Compute::kTakesReciprocals) return {nest, elements, scale, zero_point, compute.range};
  return {};
}

// target = compute(source, scale, zero point, draw) for elements [begin, end) of the nest. Where a run shares its
// scale and zero point, compute.share(scale, zero_point, use) calls use(one) with a function one(source, draw).
template <class Draws, class Source, class Target, class Compute, int kWidth>
inline __attribute__((always_inline)) void elementwise(const ElementwiseNest& nest, int64_t begin, int64_t end,
                                                       Draws draws, const Source* source, Target* target,
                                                       const float* scale, const int32_t* zero_point,
                                                       const Compute& compute, Fused<kWidth> fused) {
  if (zero_point == nullptr) zero_point = &kNoZeroPoint;  // its strides are 0
  const int64_t source_stride = inner_stride(nest, kSource);
  const int64_t target_stride = inner_stride(nest, kTarget);
  const int64_t scale_stride = inner_stride(nest, kScale);
  const int64_t zero_stride = inner_stride(nest, kZeroPoint);
  const bool shared = scale_stride == 0 && zero_stride == 0;
  const bool streams = worth_streaming(nest, kTarget, sizeof(Target));
  const bool in_place = kIsLane<Target> && target_stride == 1 && !streams;
  const bool far = nest.numel() * static_cast<int64_t>(sizeof(Source) + sizeof(Target)) >= kFarBytes;
  const bool chunked = far || !(kIsLane<Source> && source_stride == 1 && in_place && shared);
  const int64_t most = std::min(chunked ? kChunk : std::numeric_limits<int64_t>::max(), Draws::kMost);
  const ColumnReciprocals reciprocals = column_reciprocals(nest, end - begin, scale, zero_point, compute);
  Lane<Source> source_room[kChunk];
  Lane<Target> target_room[kChunk];
  float scale_room[kChunk];
  int32_t zero_room[kChunk];

  walk(nest, begin, end, [&](const int64_t (&offset)[kElementwiseOperands], int64_t run) QUAVER_INLINE {
    for (int64_t done = 0, n; done < run; done += n) {
      Target* const place = target + offset[kTarget] + done * target_stride;
      n = std::min(run - done, streams ? most - past_line(place) : most);
      draws.draw(begin, n);
      begin += n;
      const Source* const first = source + offset[kSource] + done * source_stride;
      if (far && source_stride == 1) fetch_ahead(first, n);
      const Lane<Source>* __restrict from = bring_lanes(first, source_stride, n, source_room, fused);
      Lane<Target>* __restrict to = in_place ? reinterpret_cast<Lane<Target>*>(place) : target_room;
      const float* const first_scale = scale + offset[kScale] + done * scale_stride;
      const int32_t* const first_zero = zero_point + offset[kZeroPoint] + done * zero_stride;
      if (shared) {
        compute.share(*first_scale, *first_zero, [&](const auto& one) QUAVER_INLINE {
          for (int64_t i = 0; i < n; ++i) to[i] = one(from[i], draws[i]);
        });
      } else {
        const float* __restrict scales = bring(first_scale, scale_stride, n, scale_room);
        const int32_t* __restrict zeros = bring(first_zero, zero_stride, n, zero_room);
        if constexpr (Compute::kTakesReciprocals) {
          if (reciprocals) {
            const float* __restrict inverse = reciprocals.from(first_scale - scale);
            for (int64_t i = 0; i < n; ++i) to[i] = compute.by_reciprocal(from[i], scales[i], inverse[i], zeros[i]);
          }
        }
        if (!reciprocals)
          for (int64_t i = 0; i < n; ++i) to[i] = compute(from[i], scales[i], zeros[i], draws[i]);
      }
      if (!in_place) take_lanes(target_room, n, place, target_stride, streams, fused);
    }
  });
  if (streams) finish_streams();
}

}  // namespace quaver
