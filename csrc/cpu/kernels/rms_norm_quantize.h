// rms_norm_quantize.h: rows divided by their root mean square to codes, ARITHMETIC.md (11). No torch header.
#pragma once

#include <vector>

#include "cpu/kernels/row_codes.h"

namespace quaver {

inline int64_t power_of_two_from(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

// The sum of n squares by halving, with `square` as scratch for as many as the next power of 2.
inline __attribute__((always_inline)) float sum_of_squares(const float* __restrict h, int64_t n,
                                                           float* __restrict square) {
  const int64_t whole = power_of_two_from(n);
  for (int64_t i = 0; i < n; ++i) square[i] = multiply(h[i], h[i]);
  for (int64_t i = n; i < whole; ++i) square[i] = 0.0f;
  for (int64_t width = whole / 2; width > 0; width /= 2) {
    float* __restrict lower = square;
    const float* __restrict upper = square + width;
    for (int64_t i = 0; i < width; ++i) lower[i] = add(lower[i], upper[i]);
  }
  return square[0];
}

template <class T>
inline __attribute__((always_inline)) void add_residual(const T* __restrict residual, int64_t step, int64_t n,
                                                        float* __restrict h, T* __restrict out) {
  with_step(step, [&](auto known) QUAVER_INLINE {
    for (int64_t i = 0; i < n; ++i) {
      from_float(add(h[i], to_float(residual[i * known])), out[i]);
      h[i] = to_float(out[i]);
    }
  });
}

// Rows [begin, end); weight is widened already.
template <class T>
void rms_norm_quantize_rows(const RmsNormArguments& arguments, const float* weight, int64_t begin, int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    const RmsNormData& data = arguments.data;
    const int64_t n = data.codes.length;
    std::vector<float> held(n), scratch(power_of_two_from(n));
    float* __restrict h = held.data();
    const T* x = static_cast<const T*>(data.x);
    const T* residual = static_cast<const T*>(data.residual);
    for (int64_t row = begin; row < end; ++row) {
      int64_t offset[kRowOperands];
      arguments.nest.offsets(row, offset);
      widen_row(x + offset[kRowFirst], data.x_step, n, h);
      if (residual != nullptr)
        add_residual(residual + offset[kRowSecond], data.residual_step, n, h,
                     static_cast<T*>(data.residual_out) + row * n);
      const float factor = inverse_rms(sum_of_squares(h, n, scratch.data()), n, data.eps);
      for (int64_t i = 0; i < n; ++i) h[i] = normalize(h[i], factor, weight[i]);
      quantize_row(h, data.codes, row, fused);
    }
  });
}

inline void rms_norm_quantize_rows(const RmsNormArguments& arguments, const float* weight, int64_t begin, int64_t end) {
  with_type(arguments.data.x_type,
            [&](auto tag) { rms_norm_quantize_rows<typename decltype(tag)::type>(arguments, weight, begin, end); });
}

inline std::vector<float> widened_weight(const RmsNormData& data) {
  std::vector<float> weight(data.codes.length);
  with_type(data.weight_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    widen_row(static_cast<const T*>(data.weight), 1, data.codes.length, weight.data());
  });
  return weight;
}

}  // namespace quaver
