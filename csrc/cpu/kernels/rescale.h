// rescale.h: int32 products to floats, ARITHMETIC.md (7), over a part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/products.h"

namespace quaver {

template <class Y>
inline __attribute__((always_inline)) void rescale_chunk(const RescaleData& data, const ProductChunk& chunk) {
  int32_t acc_room[kProductChunk];
  float a_room[kProductChunk], b_room[kProductChunk], bias_room[kProductChunk];
  const int32_t* acc = chunk.values(data.acc, kProductAcc, 0, acc_room);
  const float* a_scale = chunk.values(data.a_scale, kProductAScale, 1.0f, a_room);
  const float* b_scale = chunk.values(data.b_scale, kProductBScale, 1.0f, b_room);
  const float* bias = chunk.values(data.bias, kProductBias, 0.0f, bias_room);
  const int count = chunk.count;
  const bool has_bias = data.bias != nullptr, relu = data.relu;
  chunk.results<Y>(data.y, [&](Y* __restrict y) QUAVER_INLINE {
    for (int i = 0; i < count; ++i)
      from_float(scale_product(acc[i], a_scale[i], b_scale[i], has_bias, bias[i], relu), y[i]);
  });
}

inline void rescale_elements(const RescaleArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.data.y_type, [&](auto tag) {
    using Y = typename decltype(tag)::type;
    for_each_chunk(arguments.nest, begin, end,
                   [&](const ProductChunk& chunk) QUAVER_INLINE { rescale_chunk<Y>(arguments.data, chunk); });
  });
}

}  // namespace quaver
