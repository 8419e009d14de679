// products.h: the ways to int32 products, their results and what their rows and columns bring, chunk by chunk of a run.
// No torch header.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/kernels/walk.h"
#include "cpu/simd.h"
#include "layout.h"

namespace quaver {

inline constexpr int kProductChunk = 256;

// `count` values as neighbours: where they are, or in `room`; `absent` where nobody gave any.
template <class T>
inline __attribute__((always_inline)) const T* neighbours(const T* values, int64_t stride, int count, T absent,
                                                          T (&room)[kProductChunk]) {
  if (values != nullptr && stride == 1) return values;
  if (values == nullptr || stride == 0) {
    std::fill_n(room, count, values != nullptr ? *values : absent);
  } else {
    for (int i = 0; i < count; ++i) room[i] = values[i * stride];
  }
  return room;
}

// A part of a run.
struct ProductChunk {
  const ProductNest& nest;
  const int64_t (&offset)[kProductOperands];
  int count;

  template <class T>
  inline __attribute__((always_inline)) const T* values(const T* from, ProductOperand operand, T absent,
                                                        T (&room)[kProductChunk]) const {
    return neighbours(from == nullptr ? nullptr : from + offset[operand], inner_stride(nest, operand), count, absent,
                      room);
  }

  // fill(results) writes `count` of them side by side.
  template <class Result, class Fill>
  inline __attribute__((always_inline)) void results(void* to, const Fill& fill) const {
    Result* const first = static_cast<Result*>(to) + offset[kProductResult];
    const int64_t stride = inner_stride(nest, kProductResult);
    if (stride == 1) return fill(first);
    Result room[kProductChunk];
    fill(room);
    for (int i = 0; i < count; ++i) first[i * stride] = room[i];
  }
};

// body(ProductChunk) for rounds begin to end of the loops, compiled for each instruction set.
template <class Body>
void for_each_chunk(const ProductNest& nest, int64_t begin, int64_t end, const Body& body) {
  vectorized([&]() QUAVER_INLINE {
    walk(nest, begin, end, [&](int64_t (&offset)[kProductOperands], int64_t length) QUAVER_INLINE {
      for (int64_t at = 0; at < length; at += kProductChunk) {
        const int count = static_cast<int>(std::min<int64_t>(kProductChunk, length - at));
        body(ProductChunk{nest, offset, count});
        for (int i = 0; i < kProductOperands; ++i) offset[i] += count * inner_stride(nest, i);
      }
    });
  });
}

}  // namespace quaver
