// quotient.cuh: quantization by a scale that many elements share: the bits of ARITHMETIC.md (2) without a division for
// each element.
//
// With r = 1 / s rounded to nearest, rest = 1 / s - r nearly, and three products fused with sums,
//
//     q0 = fma(x, r, x * rest)        e = fma(-q0, s, x)        q1 = fma(e, r, q0)
//
// is q1 = x / s rounded to nearest. Why: write s = S * 2^i with 2^23 <= S < 2^24, and measure in units of q0's last
// place.
//  - r differs from 1 / s by a share of at most S * 2^-48, since its significand is 2^24 / S, not 1. The rest makes up
//  for
//    it, so q0 differs from x / s by less than 1/2 + 2^-22; e is a small multiple of the last places of q0 and s:
//    exact.
//  - So q1 is x / s, moved by at most |x / s - q0| * S * 2^-48, and then rounded. This could only go wrong if the way
//  led
//    across a midpoint m of two neighbouring floats. Let D = |x / s - m|, in which case q0 is one of the two neighbours
//    and |x / s - q0| <= 1/2 + D.
//  - x - m * s is an integer multiple of half the last places' product, and not 0: an m of 25 significant bits, the
//  last of
//    them 1, times s has more significant bits than x. So D >= 1 / (2 S).
//  - The way is shorter than D: (1/2 + D) * S * 2^-48 < D, because S <= 2^24 - 1. [Markstein 1990] has the theorem.
//
// This holds while nothing overflows or falls below the normal floats, which kSmallest and kLargest see to: x is first
// cut to what the codes' range needs, and where |x / s| < 2^-40 the codes do not depend on its last bits. A power of 2
// has S = 2^23 and r exact.
#pragma once

#include "arith.h"

namespace quaver {

template <QuantizeMode kMode>
struct SharedScale {
  static constexpr float kSmallest = 8.67361738e-19f;  // 2^-60
  static constexpr float kLargest = 1.15292150e+18f;   // 2^60

  float scale;
  int32_t zero;
  float reciprocal;
  float rest;
  float lowest;  // the real numbers whose codes are the range's ends: beyond them lie no others
  float highest;

  SharedScale() = default;
  __device__ __forceinline__ SharedScale(float scale, int32_t zero, CodeRange range) : scale(scale), zero(zero) {
    reciprocal = __frcp_rn(scale);
    rest = multiply(__fmaf_rn(-scale, reciprocal, 1.0f), reciprocal);
    lowest = multiply(scale, static_cast<float>(wrapping_subtract(range.q_min, zero)));
    highest = multiply(scale, static_cast<float>(wrapping_subtract(range.q_max, zero)));
  }

  __device__ __forceinline__ bool is_ordinary() const { return kSmallest <= scale && scale <= kLargest; }

  // Of an ordinary scale.
  __device__ __forceinline__ int32_t code(float x) const {
    const float cut = smaller(larger(is_nan(x) ? 0.0f : x, lowest), highest);
    const float near = __fmaf_rn(cut, reciprocal, multiply(cut, rest));
    const float quotient = __fmaf_rn(__fmaf_rn(-near, scale, cut), reciprocal, near);
    if (kMode == QuantizeMode::kAffine) return round_half_even(add(quotient, static_cast<float>(zero)));
    return wrapping_add(round_half_even(quotient), zero);
  }
};

// The codes of kCount elements.
template <QuantizeMode kMode, int kCount>
__device__ __forceinline__ void quantize_all(const float (&x)[kCount], const SharedScale<kMode>& scale, CodeRange range,
                                             int32_t (&code)[kCount]) {
  if (scale.is_ordinary()) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) code[i] = scale.code(x[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) code[i] = quantize<kMode>(x[i], scale.scale, scale.zero, range);
  }
}

}  // namespace quaver
