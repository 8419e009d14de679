// requantize.h: int32 products to codes, ARITHMETIC.md (7) and (8) or (10), over a part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/walk.h"
#include "cpu/simd.h"

namespace quaver {

inline constexpr int kRequantizeChunk = 256;

// `count` values as neighbours: where they are, or in `room`; `absent` where nobody gave any.
template <class T>
inline __attribute__((always_inline)) const T* neighbours(const T* values, int64_t stride, int count, T absent,
                                                          T (&room)[kRequantizeChunk]) {
  if (values != nullptr && stride == 1) return values;
  for (int i = 0; i < count; ++i) room[i] = values != nullptr ? values[i * stride] : absent;
  return room;
}

// A part of a run, at these offsets.
template <class Code>
inline __attribute__((always_inline)) void requantize_chunk(const RequantizeArguments& arguments,
                                                            const int64_t (&offset)[kRequantizeOperands], int count) {
  const RequantizeData& data = arguments.data;
  const auto values = [&](const auto* from, int operand, auto absent, auto& room) QUAVER_INLINE {
    return neighbours(from == nullptr ? nullptr : from + offset[operand], inner_stride(arguments.nest, operand), count,
                      absent, room);
  };
  int32_t acc_room[kRequantizeChunk], zero_room[kRequantizeChunk], integer_bias_room[kRequantizeChunk];
  float a_room[kRequantizeChunk], b_room[kRequantizeChunk], out_room[kRequantizeChunk], bias_room[kRequantizeChunk];
  Code code_room[kRequantizeChunk];
  const int32_t* acc = values(data.acc, kRequantizeAcc, 0, acc_room);
  const float* a_scale = values(data.a_scale, kRequantizeAScale, 1.0f, a_room);
  const float* b_scale = values(data.b_scale, kRequantizeBScale, 1.0f, b_room);
  const float* out_scale = values(data.out_scale, kRequantizeOutScale, 1.0f, out_room);
  const int32_t* zero_point = values(data.out_zero_point, kRequantizeZeroPoint, 0, zero_room);

  Code* const q = static_cast<Code*>(data.q) + offset[kRequantizeQ];
  const int64_t q_stride = inner_stride(arguments.nest, kRequantizeQ);
  Code* __restrict codes = q_stride == 1 ? q : code_room;
  const CodeRange range = data.range;
  const bool relu = data.relu;
  if (data.mode == RequantizeMode::kFixed) {
    const int32_t* bias = values(data.integer_bias, kRequantizeBias, 0, integer_bias_room);
    for (int i = 0; i < count; ++i) {
      const FixedMultiplier multiplier = fixed_multiplier(a_scale[i], b_scale[i], out_scale[i]);
      codes[i] =
          static_cast<Code>(requantize_fixed(wrapping_add(acc[i], bias[i]), multiplier, relu, zero_point[i], range));
    }
  } else {
    const float* bias = values(data.bias, kRequantizeBias, 0.0f, bias_room);
    const bool has_bias = data.bias != nullptr;
    for (int i = 0; i < count; ++i) {
      const float v = scale_product(acc[i], a_scale[i], b_scale[i], has_bias, bias[i], relu);
      codes[i] = static_cast<Code>(quantize<QuantizeMode::kOnnx>(v, out_scale[i], zero_point[i], range));
    }
  }
  if (q_stride != 1)
    for (int i = 0; i < count; ++i) q[i * q_stride] = code_room[i];
}

inline void requantize_elements(const RequantizeArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.data.q_type, [&](auto tag) {
    using Code = typename decltype(tag)::type;
    vectorized([&]() QUAVER_INLINE {
      walk(arguments.nest, begin, end, [&](int64_t (&offset)[kRequantizeOperands], int64_t length) QUAVER_INLINE {
        for (int64_t at = 0; at < length; at += kRequantizeChunk) {
          const int count = static_cast<int>(std::min<int64_t>(kRequantizeChunk, length - at));
          requantize_chunk<Code>(arguments, offset, count);
          for (int i = 0; i < kRequantizeOperands; ++i) offset[i] += count * inner_stride(arguments.nest, i);
        }
      });
    });
  });
}

}  // namespace quaver
