// quantize.h: floats to codes, ARITHMETIC.md (2), over a part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/draws.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/quotient.h"

namespace quaver {

// int8 and uint8 codes differ in their range alone: in memory both are the lowest byte.
using CodeByte = uint8_t;

// x to its code.
template <QuantizeMode kMode, class Code, int kWidth>
struct Quantization {
  static constexpr bool kTakesReciprocals = kTakesColumnReciprocals<kMode, kWidth>;
  CodeRange range;

  template <class T>
  QUAVER_FUNCTION Code operator()(T x, float scale, int32_t zero_point, float uniform) const {
    return static_cast<Code>(quantize(to_float(x), scale, zero_point, range, kMode, uniform));
  }

  template <class T>
  QUAVER_FUNCTION Code by_reciprocal(T x, float scale, float reciprocal, int32_t zero_point) const {
    return static_cast<Code>(quantize_by_reciprocal<kMode>(to_float(x), scale, reciprocal, zero_point, range));
  }

  template <class Use>
  QUAVER_FUNCTION void share(float scale, int32_t zero_point, const Use& use) const {
    if constexpr (kAvoidsDivision<kMode, kWidth>) {
      if (avoids_division(scale, zero_point, range)) {
        const SharedScale<kMode> shared(scale, zero_point, range);
        return use([&](auto x, float) QUAVER_INLINE { return static_cast<Code>(shared.code(to_float(x))); });
      }
    }
    use([&](auto x, float uniform) QUAVER_INLINE { return (*this)(x, scale, zero_point, uniform); });
  }
};

template <QuantizeMode kMode, class T>
void quantize_elements(const QuantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    elementwise(arguments.nest, begin, end, DrawsOf<kMode>(arguments.seed), static_cast<const T*>(arguments.x),
                static_cast<CodeByte*>(arguments.q), arguments.scale, arguments.zero_point,
                Quantization<kMode, CodeByte, fused>{arguments.range}, fused);
  });
}

inline void quantize_elements(const QuantizeArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.x_type, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    with_mode(arguments.mode, [&](auto mode) { quantize_elements<decltype(mode)::kMode, T>(arguments, begin, end); });
  });
}

}  // namespace quaver
