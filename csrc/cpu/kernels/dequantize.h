// dequantize.h: codes to floats, ARITHMETIC.md (3), over a part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/elementwise.h"

namespace quaver {

template <class T, class Code>
void dequantize_elements(const DequantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized([&]() QUAVER_INLINE {
    elementwise(arguments.nest, begin, end, static_cast<const Code*>(arguments.q), static_cast<T*>(arguments.x),
                arguments.scale, arguments.zero_point, [](Code code, float scale, int32_t zero_point) QUAVER_INLINE {
                  T x;
                  from_float(dequantize(code, scale, zero_point), x);
                  return x;
                });
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
