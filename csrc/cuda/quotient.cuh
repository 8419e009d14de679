// quotient.cuh: quantization by a scale that many elements share: the bits of ARITHMETIC.md (2) without a division for
// each element.
//
// With r = 1 / s rounded to nearest, rest = 1 / s - r nearly, and three products fused with sums,
//
//     q0 = fma(x, r, x * rest)        e = fma(-q0, s, x)        q1 = fma(e, r, q0)
//
// is q1 = x / s rounded to nearest. Why: write s = S * 2^i with 2^23 <= S < 2^24, and measure in units of q0's last
// place.
//
//  - r differs from 1 / s by a share of at most S * 2^-48, since its significand is 2^24 / S, not 1. The rest makes up
//    for it, so q0 differs from x / s by less than 1/2 + 2^-22; e is a small multiple of the last places of q0 and s,
//    and exact.
//  - So q1 is x / s, moved by at most |x / s - q0| * S * 2^-48, and then rounded. This could only go wrong if the way
//    led across a midpoint m of two neighbouring floats. Let D = |x / s - m|: then q0 is one of the two neighbours, and
//    |x / s - q0| <= 1/2 + D.
//  - x - m * s is a multiple of half the product of the last places, and not 0: an m of 25 significant bits, the last
//    of them 1, times s has more significant bits than x. So D >= 1 / (2 S).
//  - The way is shorter than D: (1/2 + D) * S * 2^-48 < D, because S <= 2^24 - 1. ARITHMETIC.md (2) names the theorem.
//
// This holds while nothing overflows and e is no less than the smallest float. So s and x are multiplied by a power of
// 2 that brings s near 1, and x is cut to what the codes' range needs, also an x that has become infinite. An x that
// has lost bits below the normal floats is so small that no code depends on them, as any x with |x / s| < 2^-40.
#pragma once

#include "arith.h"

namespace quaver {

template <QuantizeMode kMode>
struct SharedScale {
  float factor;  // the power of 2
  float scale;   // times the factor, as are the following but for their inverses
  float reciprocal;
  float rest;
  float lowest;  // the real numbers whose codes are the range's ends: beyond them lie no others
  float highest;
  int32_t zero;

  SharedScale() = default;
  __device__ __forceinline__ SharedScale(float given, int32_t zero, CodeRange range) : zero(zero) {
    constexpr float kSmall = 8.67361738e-19f;  // 2^-60
    constexpr float kLarge = 1.15292150e+18f;  // 2^60
    constexpr float kRaise = 1.26765060e+30f;  // 2^100, to 2^-49 at least
    constexpr float kLower = 8.27180613e-25f;  // 2^-80, to 2^48 at most
    factor = given < kSmall ? kRaise : given > kLarge ? kLower : 1.0f;
    scale = multiply(given, factor);
    reciprocal = __frcp_rn(scale);
    rest = multiply(__fmaf_rn(-scale, reciprocal, 1.0f), reciprocal);
    lowest = multiply(scale, static_cast<float>(wrapping_subtract(range.q_min, zero)));
    highest = multiply(scale, static_cast<float>(wrapping_subtract(range.q_max, zero)));
  }

  // ARITHMETIC.md (2)
  __device__ __forceinline__ int32_t code(float x) const {
    const float raised = multiply(is_nan(x) ? 0.0f : x, factor);
    const float cut = smaller(larger(raised, lowest), highest);
    const float near = __fmaf_rn(cut, reciprocal, multiply(cut, rest));
    const float quotient = __fmaf_rn(__fmaf_rn(-near, scale, cut), reciprocal, near);
    if (kMode == QuantizeMode::kAffine) return round_half_even(add(quotient, static_cast<float>(zero)));
    return wrapping_add(round_half_even(quotient), zero);
  }
};

// A product with 1 / s is the mode's own definition: nothing to make up for.
template <>
struct SharedScale<QuantizeMode::kReciprocal> {
  float reciprocal;
  float lowest;  // the products whose codes are the range's ends
  float highest;
  int32_t zero;

  SharedScale() = default;
  __device__ __forceinline__ SharedScale(float scale, int32_t zero, CodeRange range)
      : reciprocal(divide(1.0f, scale)),
        lowest(static_cast<float>(wrapping_subtract(range.q_min, zero))),
        highest(static_cast<float>(wrapping_subtract(range.q_max, zero))),
        zero(zero) {}

  // ARITHMETIC.md (2). The product is NaN for x = 0, too, where 1 / s is infinite.
  __device__ __forceinline__ int32_t code(float x) const {
    const float product = multiply(x, reciprocal);
    const float cut = smaller(larger(is_nan(product) ? 0.0f : product, lowest), highest);
    return wrapping_add(round_half_even(cut), zero);
  }
};

}  // namespace quaver
