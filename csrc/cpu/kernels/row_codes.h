// row_codes.h: a row of floats that has just been made to its codes, ARITHMETIC.md (5), and what rows are made of: the
// elements of a tensor's row as floats. No torch header.
#pragma once

#include <type_traits>

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/qparams.h"

namespace quaver {

// Calls loop(step), with a step of 1 as a constant.
template <class Loop>
inline __attribute__((always_inline)) void with_step(int64_t step, const Loop& loop) {
  if (step == 1) return loop(std::integral_constant<int64_t, 1>{});
  loop(step);
}

template <class T>
inline __attribute__((always_inline)) void widen_row(const T* __restrict from, int64_t step, int64_t n,
                                                     float* __restrict to) {
  with_step(step, [&](auto known) QUAVER_INLINE {
    for (int64_t i = 0; i < n; ++i) to[i] = to_float(from[i * known]);
  });
}

// y [codes.length] to codes, parameters and sum of row `row`.
inline __attribute__((always_inline)) void quantize_row(const float* __restrict y, const RowCodes& codes, int64_t row) {
  float lo = 0.0f;
  float hi = 0.0f;
  widen_one(y, 1, codes.length, false, lo, hi, Fused<0>{});
  const CodeRange range = codes.range;
  const ScaleAndZeroPoint chosen = choose_qparams(lo, hi, codes.symmetric, range, 0.0f);
  uint8_t* __restrict q = codes.q + row * codes.length;
  uint32_t sum = 0;
  for (int64_t i = 0; i < codes.length; ++i) {
    const int32_t code = quantize<QuantizeMode::kOnnx>(y[i], chosen.scale, chosen.zero_point, range);
    sum += static_cast<uint32_t>(code);
    q[i] = static_cast<uint8_t>(code);
  }
  codes.scale[row] = chosen.scale;
  codes.zero_point[row] = chosen.zero_point;
  if (codes.row_sum != nullptr) codes.row_sum[row] = static_cast<int32_t>(sum);
}

}  // namespace quaver
