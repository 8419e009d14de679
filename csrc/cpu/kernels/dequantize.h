// dequantize.h: codes to floats, ARITHMETIC.md (3), over a part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/elementwise.h"

namespace quaver {

// A code to the float that it stands for; float16 is made of that later.
template <class T>
struct Dequantization {
  static constexpr bool kTakesReciprocals = false;

  template <class Code>
  QUAVER_FUNCTION T operator()(Code code, float scale, int32_t zero_point, float /*draw*/) const {
    T x;
    from_float(dequantize(code, scale, zero_point), x);
    return x;
  }

  template <class Use>
  QUAVER_FUNCTION void share(float scale, int32_t zero_point, const Use& use) const {
    if (!is_finite(scale))
      return use([&](auto code, float draw) QUAVER_INLINE { return (*this)(code, scale, zero_point, draw); });
    use([&](auto code, float) QUAVER_INLINE {
      T x;
      from_number(dequantize(code, scale, zero_point), x);
      return x;
    });
  }
};

template <class T, class Code>
void dequantize_elements(const DequantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    elementwise(arguments.nest, begin, end, NoDraws(0), static_cast<const Code*>(arguments.q),
                static_cast<T*>(arguments.x), arguments.scale, arguments.zero_point, Dequantization<Lane<T>>{}, fused);
  });
}

inline void dequantize_elements(const DequantizeArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.x_type, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    with_type(arguments.q_type, [&](auto q_tag) {
      using Code = typename decltype(q_tag)::type;
      dequantize_elements<T, Code>(arguments, begin, end);
    });
  });
}

}  // namespace quaver
