// fake_quantize.h: floats to what their codes stand for, and to whether these were clamped, ARITHMETIC.md (9), over a
// part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/draws.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/elementwise.h"

namespace quaver {

template <QuantizeMode kMode, class T>
void fake_quantize_elements(const FakeQuantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized([&]() QUAVER_INLINE {
    const CodeRange range = arguments.range;
    elementwise(arguments.nest, begin, end, DrawsOf<kMode>(arguments.seed), static_cast<const T*>(arguments.x),
                static_cast<T*>(arguments.result), arguments.scale, arguments.zero_point,
                [=](T x, float scale, int32_t zero_point, float uniform) QUAVER_INLINE {
                  const int32_t code = quantize(to_float(x), scale, zero_point, range, kMode, uniform);
                  T y;
                  from_float(dequantize(code, scale, zero_point), y);
                  return y;
                });
  });
}

template <QuantizeMode kMode, class T>
void fake_quantize_mask_elements(const FakeQuantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized([&]() QUAVER_INLINE {
    const CodeRange range = arguments.range;
    elementwise(arguments.nest, begin, end, DrawsOf<kMode>(arguments.seed), static_cast<const T*>(arguments.x),
                static_cast<uint8_t*>(arguments.result), arguments.scale, arguments.zero_point,
                [=](T x, float scale, int32_t zero_point, float uniform) QUAVER_INLINE {
                  const bool passes = is_unclamped(to_float(x), scale, zero_point, range, kMode, uniform);
                  return static_cast<uint8_t>(passes ? 1 : 0);
                });
  });
}

inline void fake_quantize_elements(const FakeQuantizeArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.x_type, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    with_mode(arguments.mode,
              [&](auto mode) { fake_quantize_elements<decltype(mode)::kMode, T>(arguments, begin, end); });
  });
}

inline void fake_quantize_mask_elements(const FakeQuantizeArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.x_type, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    with_mode(arguments.mode,
              [&](auto mode) { fake_quantize_mask_elements<decltype(mode)::kMode, T>(arguments, begin, end); });
  });
}

}  // namespace quaver
