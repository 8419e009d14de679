// quotient.h: quantization by a scale that many elements share, as neighbours or one in each row: the bits of
// ARITHMETIC.md (2) without a division for each element, where the machine has a fused multiply-add. No torch header.
//
// csrc/cuda/quotient.cuh says why three fused products give x / s rounded to nearest. It multiplies scales far from 1
// by a power of 2; here they are refused, and their elements divided.
#pragma once

#include "arith.h"

namespace quaver {

// Whether a mode takes its codes from x / s, on a machine that fuses, kWidth as in Fused<kWidth>. A product with 1 / s
// is kReciprocal's own definition, and what kStochastic draws takes far longer than dividing.
template <QuantizeMode kMode, int kWidth>
inline constexpr bool kAvoidsDivision = kWidth > 0 && (kMode == QuantizeMode::kOnnx || kMode == QuantizeMode::kAffine);

QUAVER_FUNCTION bool avoids_division(float scale, int32_t zero_point, CodeRange range) {
  return 0x1p-60f <= scale && scale <= 0x1p60f && range.q_min <= zero_point && zero_point <= range.q_max;
}

// What makes up for the rounding of 1 / s.
QUAVER_FUNCTION float rest_of(float scale, float reciprocal) {
  return multiply(__builtin_fmaf(-scale, reciprocal, 1.0f), reciprocal);
}

// x / s rounded to nearest, |x| being no more than 512 s.
QUAVER_FUNCTION float quotient(float x, float scale, float reciprocal, float rest) {
  const float near = __builtin_fmaf(x, reciprocal, multiply(x, rest));
  return __builtin_fmaf(__builtin_fmaf(-near, scale, x), reciprocal, near);
}

template <QuantizeMode kMode>
QUAVER_FUNCTION int32_t code_of(float quotient, int32_t zero_point) {
  if (kMode == QuantizeMode::kAffine) return round_half_even(add(quotient, static_cast<float>(zero_point)));
  return wrapping_add(round_half_even(quotient), zero_point);
}

// For all elements of a run.
template <QuantizeMode kMode>
struct SharedScale {
  float scale;
  float reciprocal;
  float rest;
  float lowest;  // the real numbers whose codes are the range's ends: beyond them lie no others
  float highest;
  int32_t zero_point;

  QUAVER_FUNCTION SharedScale(float scale, int32_t zero_point, CodeRange range)
      : scale(scale),
        reciprocal(divide(1.0f, scale)),
        rest(rest_of(scale, reciprocal)),
        lowest(multiply(scale, static_cast<float>(range.q_min - zero_point))),
        highest(multiply(scale, static_cast<float>(range.q_max - zero_point))),
        zero_point(zero_point) {}

  // ARITHMETIC.md (2). NaN is replaced last: a compiler turns that into a masked instruction.
  QUAVER_FUNCTION int32_t code(float x) const {
    const float cut = smaller(larger(x, lowest), highest);
    return code_of<kMode>(quotient(is_nan(x) ? 0.0f : cut, scale, reciprocal, rest), zero_point);
  }
};

// The same for an element with a scale of its own, whose reciprocal is known. Cut as in `cut_quotient`.
template <QuantizeMode kMode>
QUAVER_FUNCTION int32_t quantize_by_reciprocal(float x, float scale, float reciprocal, int32_t zero_point,
                                               CodeRange range) {
  const float cut = smaller(larger(x, multiply(scale, -512.0f)), multiply(scale, 512.0f));
  const float steps = quotient(is_nan(x) ? 0.0f : cut, scale, reciprocal, rest_of(scale, reciprocal));
  return clamp_code(code_of<kMode>(steps, zero_point), range);
}

}  // namespace quaver
