// fake_quantize.h: floats to what their codes stand for, and to whether these were clamped, ARITHMETIC.md (9), over a
// part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/draws.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/quantize.h"

namespace quaver {

// x to the float that its code stands for; float16 is made of that later.
template <QuantizeMode kMode, class T, int kWidth>
struct FakeQuantization {
  static constexpr bool kTakesReciprocals = kTakesColumnReciprocals<kMode, kWidth>;
  CodeRange range;

  QUAVER_FUNCTION T by_reciprocal(T x, float scale, float reciprocal, int32_t zero_point) const {
    return of(quantize_by_reciprocal<kMode>(to_float(x), scale, reciprocal, zero_point, range), scale, zero_point);
  }

  template <class Use>
  QUAVER_FUNCTION void share(float scale, int32_t zero_point, const Use& use) const {
    Quantization<kMode, int32_t, kWidth>{range}.share(scale, zero_point, [&](const auto& code) QUAVER_INLINE {
      use([&](T x, float uniform) QUAVER_INLINE { return of(code(x, uniform), scale, zero_point); });
    });
  }

  QUAVER_FUNCTION T operator()(T x, float scale, int32_t zero_point, float uniform) const {
    return of(quantize(to_float(x), scale, zero_point, range, kMode, uniform), scale, zero_point);
  }

 private:
  static QUAVER_FUNCTION T of(int32_t code, float scale, int32_t zero_point) {
    T y;
    from_float(dequantize(code, scale, zero_point), y);
    return y;
  }
};

// x to whether its code is not clamped.
template <QuantizeMode kMode, int kWidth>
struct FakeQuantizationMask {
  static constexpr bool kTakesReciprocals = false;
  CodeRange range;

  template <class T>
  QUAVER_FUNCTION uint8_t operator()(T x, float scale, int32_t zero_point, float uniform) const {
    return is_unclamped(to_float(x), scale, zero_point, range, kMode, uniform) ? 1 : 0;
  }

  // A range that is wider by a code at each end tells what lies beyond.
  template <class Use>
  QUAVER_FUNCTION void share(float scale, int32_t zero_point, const Use& use) const {
    if constexpr (kAvoidsDivision<kMode, kWidth>) {
      if (avoids_division(scale, zero_point, range)) {
        const SharedScale<kMode> shared(scale, zero_point, {range.q_min - 1, range.q_max + 1});
        return use([&](auto x, float) QUAVER_INLINE {
          const int32_t code = shared.code(to_float(x));
          const bool passes = range.q_min <= code && code <= range.q_max && !is_nan(to_float(x));
          return static_cast<uint8_t>(passes ? 1 : 0);
        });
      }
    }
    use([&](auto x, float uniform) QUAVER_INLINE { return (*this)(x, scale, zero_point, uniform); });
  }
};

template <QuantizeMode kMode, class T>
void fake_quantize_elements(const FakeQuantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    elementwise(arguments.nest, begin, end, DrawsOf<kMode>(arguments.seed), static_cast<const T*>(arguments.x),
                static_cast<T*>(arguments.result), arguments.scale, arguments.zero_point,
                FakeQuantization<kMode, Lane<T>, fused>{arguments.range}, fused);
  });
}

template <QuantizeMode kMode, class T>
void fake_quantize_mask_elements(const FakeQuantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    elementwise(arguments.nest, begin, end, DrawsOf<kMode>(arguments.seed), static_cast<const T*>(arguments.x),
                static_cast<uint8_t*>(arguments.result), arguments.scale, arguments.zero_point,
                FakeQuantizationMask<kMode, fused>{arguments.range}, fused);
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
