// requantize.h: int32 products to codes, ARITHMETIC.md (7) and (8) or (10), over a part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/products.h"

namespace quaver {

template <class Code>
inline __attribute__((always_inline)) void requantize_chunk(const RequantizeData& data, const ProductChunk& chunk) {
  int32_t acc_room[kProductChunk], zero_room[kProductChunk], integer_bias_room[kProductChunk];
  float a_room[kProductChunk], b_room[kProductChunk], out_room[kProductChunk], bias_room[kProductChunk];
  const int32_t* acc = chunk.values(data.acc, kProductAcc, 0, acc_room);
  const float* a_scale = chunk.values(data.a_scale, kProductAScale, 1.0f, a_room);
  const float* b_scale = chunk.values(data.b_scale, kProductBScale, 1.0f, b_room);
  const float* out_scale = chunk.values(data.out_scale, kProductOutScale, 1.0f, out_room);
  const int32_t* zero_point = chunk.values(data.out_zero_point, kProductZeroPoint, 0, zero_room);
  const int count = chunk.count;
  const CodeRange range = data.range;
  const bool relu = data.relu;
  chunk.results<Code>(data.q, [&](Code* __restrict codes) QUAVER_INLINE {
    if (data.mode == RequantizeMode::kFixed) {
      const int32_t* bias = chunk.values(data.integer_bias, kProductBias, 0, integer_bias_room);
      int32_t significand[kProductChunk], shift[kProductChunk];
      for (int i = 0; i < count; ++i) {
        const FixedMultiplier multiplier = fixed_multiplier(a_scale[i], b_scale[i], out_scale[i]);
        significand[i] = multiplier.significand;
        shift[i] = multiplier.shift;
      }
      for (int i = 0; i < count; ++i)
        codes[i] = static_cast<Code>(
            requantize_fixed(wrapping_add(acc[i], bias[i]), {significand[i], shift[i]}, relu, zero_point[i], range));
    } else {
      const float* bias = chunk.values(data.bias, kProductBias, 0.0f, bias_room);
      const bool has_bias = data.bias != nullptr;
      for (int i = 0; i < count; ++i) {
        const float v = scale_product(acc[i], a_scale[i], b_scale[i], has_bias, bias[i], relu);
        codes[i] = static_cast<Code>(quantize<QuantizeMode::kOnnx>(v, out_scale[i], zero_point[i], range));
      }
    }
  });
}

inline void requantize_elements(const RequantizeArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.data.q_type, [&](auto tag) {
    using Code = typename decltype(tag)::type;
    for_each_chunk(arguments.nest, begin, end,
                   [&](const ProductChunk& chunk) QUAVER_INLINE { requantize_chunk<Code>(arguments.data, chunk); });
  });
}

}  // namespace quaver
