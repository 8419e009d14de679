// silu_mul_quantize.h: rows of silu(gate) * up to codes, ARITHMETIC.md (12). No torch header.
#pragma once

#include <vector>

#include "cpu/kernels/row_codes.h"

namespace quaver {

// Rows [begin, end).
template <class T>
void silu_mul_quantize_rows(const SiluMulArguments& arguments, int64_t begin, int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    const SiluMulData& data = arguments.data;
    const int64_t n = data.codes.length;
    std::vector<float> gates(n), products(n);
    float* __restrict gate = gates.data();
    float* __restrict y = products.data();
    for (int64_t row = begin; row < end; ++row) {
      int64_t offset[kRowOperands];
      arguments.nest.offsets(row, offset);
      widen_row(static_cast<const T*>(data.gate) + offset[kRowFirst], data.gate_step, n, gate);
      widen_row(static_cast<const T*>(data.up) + offset[kRowSecond], data.up_step, n, y);
      for (int64_t i = 0; i < n; ++i) y[i] = multiply(silu(gate[i]), y[i]);
      quantize_row(y, data.codes, row, fused);
    }
  });
}

inline void silu_mul_quantize_rows(const SiluMulArguments& arguments, int64_t begin, int64_t end) {
  with_type(arguments.data.type,
            [&](auto tag) { silu_mul_quantize_rows<typename decltype(tag)::type>(arguments, begin, end); });
}

}  // namespace quaver
