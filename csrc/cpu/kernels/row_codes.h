// row_codes.h: a row of floats to its codes, ARITHMETIC.md (5), and what rows are made of: the elements of a tensor's
// row as floats. No torch header.
#pragma once

#include <type_traits>

#include "arguments.h"
#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/qparams.h"
#include "cpu/kernels/quantize.h"
#include "cpu/kernels/sum_codes.h"

namespace quaver {

template <class T>
inline __attribute__((always_inline)) void widen_row(const T* __restrict from, int64_t step, int64_t n,
                                                     float* __restrict to) {
  with_step(step, [&](auto known) QUAVER_INLINE {
    for (int64_t i = 0; i < n; ++i) to[i] = to_float(from[i * known]);
  });
}

// The parameters of a row, and its codes.
template <class T, class Code, int kWidth>
inline __attribute__((always_inline)) ScaleAndZeroPoint quantize_run(const T* x, int64_t step, int64_t n, Code* q,
                                                                     bool symmetric, CodeRange range,
                                                                     Fused<kWidth> fused) {
  float lo = 0.0f;
  float hi = 0.0f;
  widen_one(x, step, n, false, lo, hi, fused);
  const ScaleAndZeroPoint chosen = choose_qparams(lo, hi, symmetric, range, 0.0f);
  ElementwiseNest run;
  run.push(n, {step, 1, 0, 0});
  elementwise(run, 0, n, NoDraws(0), x, q, &chosen.scale, &chosen.zero_point,
              Quantization<QuantizeMode::kOnnx, Code, kWidth>{range}, fused);
  return chosen;
}

// y [codes.length] to codes, parameters and sum of row `row`.
template <int kWidth>
inline __attribute__((always_inline)) void quantize_row(const float* __restrict y, const RowCodes& codes, int64_t row,
                                                        Fused<kWidth> fused) {
  uint8_t* const q = codes.q + row * codes.length;
  const ScaleAndZeroPoint chosen = quantize_run(y, 1, codes.length, q, codes.symmetric, codes.range, fused);
  codes.scale[row] = chosen.scale;
  codes.zero_point[row] = chosen.zero_point;
  if (codes.row_sum == nullptr) return;
  const bool negative = codes.range.q_min < 0;  // without such codes both types have the same
  codes.row_sum[row] =
      negative ? sum_run(reinterpret_cast<const int8_t*>(q), 1, codes.length) : sum_run(q, 1, codes.length);
}

}  // namespace quaver
