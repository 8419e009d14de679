// quantize.h: floats to codes, ARITHMETIC.md (2), over a part of a nest. No torch header.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/draws.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/elementwise.h"

namespace quaver {

template <QuantizeMode kMode, class T, class Code>
void quantize_elements(const QuantizeArguments& arguments, int64_t begin, int64_t end) {
  vectorized([&]() QUAVER_INLINE {
    const CodeRange range = arguments.range;
    elementwise(arguments.nest, begin, end, DrawsOf<kMode>(arguments.seed), static_cast<const T*>(arguments.x),
                static_cast<Code*>(arguments.q), arguments.scale, arguments.zero_point,
                [=](T x, float scale, int32_t zero_point, float uniform) QUAVER_INLINE {
                  return static_cast<Code>(quantize(to_float(x), scale, zero_point, range, kMode, uniform));
                });
  });
}

inline void quantize_elements(const QuantizeArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.x_type, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    with_type(arguments.q_type, [&](auto q_tag) {
      using Code = typename decltype(q_tag)::type;
      with_mode(arguments.mode,
                [&](auto mode) { quantize_elements<decltype(mode)::kMode, T, Code>(arguments, begin, end); });
    });
  });
}

}  // namespace quaver
