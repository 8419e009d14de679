// arith.h: the equations of ARITHMETIC.md as scalar functions for host and device. No torch header.
//
// Every float operation is one IEEE single-precision operation, in (10) one of double precision: on the device by an
// intrinsic that ptxas may not contract, on the host by compiling with -ffp-contract=off. Nothing here branches on data
// in a way that a compiler could not turn into a select, so that host loops over these functions vectorize.
#pragma once

#include <cstdint>
#include <cstring>

#include "types.h"

#if defined(__CUDACC__)
#define QUAVER_FUNCTION __host__ __device__ __forceinline__
#else
#define QUAVER_FUNCTION inline __attribute__((always_inline))
#endif

namespace quaver {

inline constexpr float kLargestFloat = 3.402823466e+38f;
inline constexpr float kSmallestNormalFloat = 1.17549435e-38f;

QUAVER_FUNCTION float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

QUAVER_FUNCTION float multiply(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

QUAVER_FUNCTION double divide(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __ddiv_rn(a, b);
#else
  return a / b;
#endif
}

QUAVER_FUNCTION double multiply(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

QUAVER_FUNCTION float add(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

QUAVER_FUNCTION float subtract(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(a, b);
#else
  return a - b;
#endif
}

QUAVER_FUNCTION float square_root(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}

// The second where the first is NaN. Of two zeros either may be given, and no equation depends on which.
QUAVER_FUNCTION float smaller(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fminf(a, b);
#else
  return a < b ? a : b;
#endif
}

QUAVER_FUNCTION float larger(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fmaxf(a, b);
#else
  return a > b ? a : b;
#endif
}

QUAVER_FUNCTION float magnitude(float a) {
#if defined(__CUDA_ARCH__)
  return fabsf(a);
#else
  return a < 0.0f ? -a : a;
#endif
}

QUAVER_FUNCTION bool is_nan(float a) { return a != a; }
QUAVER_FUNCTION bool is_finite(float a) { return magnitude(a) <= kLargestFloat; }

QUAVER_FUNCTION int32_t clamp_code(int32_t code, CodeRange range) {
  code = code < range.q_min ? range.q_min : code;
  return code > range.q_max ? range.q_max : code;
}

// Integer sums wrap instead of overflowing: parameters that nobody checked give unspecified codes, never undefined
// behaviour.
QUAVER_FUNCTION int32_t wrapping_add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
QUAVER_FUNCTION int32_t wrapping_subtract(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}
QUAVER_FUNCTION int32_t wrapping_multiply(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

// Round half to even, for |t| <= 2^22: adding 1.5 * 2^23 leaves no bit below the units, so that the addition itself
// rounds, and the integer stands in the low bits of the sum.
QUAVER_FUNCTION int32_t round_half_even(float t) {
  constexpr float kShift = 12582912.0f;
  constexpr int32_t kShiftBits = 0x4B400000;
  const float sum = add(t, kShift);
  int32_t bits;
  memcpy(&bits, &sum, sizeof bits);
  return wrapping_subtract(bits, kShiftBits);
}

// A quotient beyond +-512 saturates whatever the zero point is (both lie within -128..255), so it can be cut there
// before it is rounded. NaN is cut to -512.
QUAVER_FUNCTION float cut_quotient(float t) { return smaller(larger(t, -512.0f), 512.0f); }

// (2) x divided by s, each mode in its way; with one division, which takes the most code of all
QUAVER_FUNCTION float quotient(float x, float scale, QuantizeMode mode) {
  const bool reciprocal = mode == QuantizeMode::kReciprocal;
  const float divided = divide(reciprocal ? 1.0f : x, scale);
  return reciprocal ? multiply(x, divided) : divided;
}

// The integer below or above t, for |t| <= 2^22: the one above where `uniform`, in [0, 1), is less than what t has
// beyond the one below.
QUAVER_FUNCTION int32_t round_stochastic(float t, float uniform) {
  const int32_t nearest = round_half_even(t);
  const int32_t below = static_cast<float>(nearest) > t ? nearest - 1 : nearest;
  return uniform < subtract(t, static_cast<float>(below)) ? below + 1 : below;
}

// (2) from the quotient to the code before the clamp, or to another one that is no code either, as for NaN. `uniform`
// is the mode kStochastic's.
QUAVER_FUNCTION int32_t unclamped_code(float quotient, int32_t zero_point, QuantizeMode mode, float uniform = 0.0f) {
  if (mode == QuantizeMode::kAffine)
    return round_half_even(cut_quotient(add(quotient, static_cast<float>(zero_point))));
  const float cut = cut_quotient(quotient);
  const int32_t rounded = mode == QuantizeMode::kStochastic ? round_stochastic(cut, uniform) : round_half_even(cut);
  return wrapping_add(rounded, zero_point);
}

// (2) quantize
QUAVER_FUNCTION int32_t quantize(float x, float scale, int32_t zero_point, CodeRange range, QuantizeMode mode,
                                 float uniform = 0.0f) {
  const float steps = quotient(x, scale, mode);
  return clamp_code(is_nan(steps) ? zero_point : unclamped_code(steps, zero_point, mode, uniform), range);
}
template <QuantizeMode kMode>
QUAVER_FUNCTION int32_t quantize(float x, float scale, int32_t zero_point, CodeRange range) {
  return quantize(x, scale, zero_point, range, kMode);
}

// (3) dequantize, before the rounding to the output's type
QUAVER_FUNCTION float dequantize(int32_t code, float scale, int32_t zero_point) {
  return multiply(static_cast<float>(wrapping_subtract(code, zero_point)), scale);
}

// (9) whether the clamp of (2) leaves the code as it is: there fake quantization has a gradient
QUAVER_FUNCTION bool is_unclamped(float x, float scale, int32_t zero_point, CodeRange range, QuantizeMode mode,
                                  float uniform) {
  const int32_t code = unclamped_code(quotient(x, scale, mode), zero_point, mode, uniform);
  return range.q_min <= code && code <= range.q_max;
}

// (4) range to parameters
struct ScaleAndZeroPoint {
  float scale;
  int32_t zero_point;
};

// What a range ends counts: an element that is not finite stands as 0, which changes no range that (4) uses.
QUAVER_FUNCTION float finite_or_zero(float x) { return is_finite(x) ? x : 0.0f; }

QUAVER_FUNCTION ScaleAndZeroPoint choose_qparams(float lo, float hi, bool symmetric, CodeRange range, float eps) {
  const float floor = larger(eps, kSmallestNormalFloat);
  if (symmetric) {
    const float bound = larger(magnitude(lo), magnitude(hi));
    const float scale = divide(bound, static_cast<float>(range.q_max));
    return {bound == 0.0f ? 1.0f : larger(scale, floor), 0};
  }
  lo = smaller(lo, 0.0f);
  hi = larger(hi, 0.0f);
  const float steps = static_cast<float>(range.q_max - range.q_min);
  const float width = subtract(hi, lo);
  float scale = is_finite(width) ? divide(width, steps) : subtract(divide(hi, steps), divide(lo, steps));
  scale = smaller(scale, kLargestFloat);  // two codes over a range wider than every float
  scale = width == 0.0f ? 1.0f : larger(scale, floor);
  const float zero = subtract(static_cast<float>(range.q_min), divide(lo, scale));
  return {scale, clamp_code(round_half_even(cut_quotient(zero)), range)};
}

// (6) the exact product of codes less zero points, from the product and the sums of the codes themselves
QUAVER_FUNCTION int32_t correct_for_zero_points(int32_t product, int32_t a_zero_point, int32_t b_zero_point,
                                                int32_t a_sum, int32_t b_sum, int32_t k) {
  int32_t acc = wrapping_subtract(product, wrapping_multiply(a_zero_point, b_sum));
  acc = wrapping_subtract(acc, wrapping_multiply(b_zero_point, a_sum));
  return wrapping_add(acc, wrapping_multiply(k, wrapping_multiply(a_zero_point, b_zero_point)));
}

// (7) scaling, before the rounding to the output's type. No bias is not a bias of 0, which would turn -0 into +0.
QUAVER_FUNCTION float scale_product(int32_t acc, float a_scale, float b_scale, bool has_bias, float bias, bool relu) {
  float v = multiply(static_cast<float>(acc), multiply(a_scale, b_scale));
  if (has_bias) v = add(v, bias);
  return relu && v <= 0.0f ? 0.0f : v;
}

// (10) a real multiplier as significand * 2^(shift - 31): a significand in [2^30, 2^31) or 0, a shift in [-31, 30]
struct FixedMultiplier {
  int32_t significand;
  int32_t shift;
};

// The significand of a double has 53 bits with its hidden one, 22 more than are kept: adding half of what is cut rounds
// half up.
QUAVER_FUNCTION FixedMultiplier fixed_multiplier(float a_scale, float b_scale, float out_scale) {
  constexpr int kStored = 52;
  constexpr int kCut = kStored + 1 - 31;
  constexpr uint64_t kHidden = uint64_t{1} << kStored;
  const double product = multiply(static_cast<double>(a_scale), static_cast<double>(b_scale));
  const double real = divide(product, static_cast<double>(out_scale));
  uint64_t bits;
  memcpy(&bits, &real, sizeof bits);
  const uint64_t whole = (bits & (kHidden - 1)) | kHidden;
  const uint32_t rounded = static_cast<uint32_t>((whole + (uint64_t{1} << (kCut - 1))) >> kCut);
  const bool carried = rounded == 0x80000000u;
  const int32_t shift = static_cast<int32_t>((bits >> kStored) & 0x7FF) - 1022 + (carried ? 1 : 0);
  const int32_t significand = carried ? 0x40000000 : static_cast<int32_t>(rounded);
  if (shift < -31) return {0, 0};
  if (shift > 30) return {0x7FFFFFFF, 30};
  return {significand, shift};
}

// (10) gemmlowp's saturating rounding doubling high multiplication, which rounds ties up, after a shift to the left; or
// before a shift to the right, which rounds ties away from zero.
QUAVER_FUNCTION int32_t multiply_fixed(int32_t acc, FixedMultiplier multiplier) {
  const int32_t left = multiplier.shift > 0 ? multiplier.shift : 0;
  const int32_t right = multiplier.shift < 0 ? -multiplier.shift : 0;
  int64_t raised = static_cast<int64_t>(acc) * (int32_t{1} << left);
  raised = raised < INT32_MIN ? INT32_MIN : raised;
  raised = raised > INT32_MAX ? INT32_MAX : raised;
  const int64_t product = static_cast<int64_t>(static_cast<int32_t>(raised)) * multiplier.significand;
  const int32_t high = static_cast<int32_t>((product + (int64_t{1} << 30)) >> 31);
  const int32_t mask = static_cast<int32_t>((uint32_t{1} << right) - 1);
  const int32_t threshold = (mask >> 1) + (high < 0 ? 1 : 0);
  return (high >> right) + ((high & mask) > threshold ? 1 : 0);
}

// (10) requantize by a multiplier; `acc` has its bias already. Cut as in `cut_quotient`.
QUAVER_FUNCTION int32_t requantize_fixed(int32_t acc, FixedMultiplier multiplier, bool relu, int32_t zero_point,
                                         CodeRange range) {
  const int32_t least = relu ? 0 : -512;
  int32_t t = multiply_fixed(acc, multiplier);
  t = t < least ? least : t;
  t = t > 512 ? 512 : t;
  return clamp_code(wrapping_add(t, zero_point), range);
}

// (11) what the numbers of a row are multiplied by, from the sum of their squares
QUAVER_FUNCTION float inverse_rms(float square_sum, int64_t length, float eps) {
  const float mean = divide(square_sum, static_cast<float>(length));
  return divide(1.0f, square_root(add(mean, eps)));
}

QUAVER_FUNCTION float normalize(float h, float inverse_rms, float weight) {
  return multiply(multiply(h, inverse_rms), weight);
}

// 2^n for -126 <= n <= 127
QUAVER_FUNCTION float power_of_two(int32_t n) {
  const int32_t bits = (n + 127) * (1 << 23);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// (12) e^x. Outside of [-104, 89] the result is 0 or infinite already at the ends.
QUAVER_FUNCTION float exponential(float x) {
  const float cut = smaller(larger(x, -104.0f), 89.0f);
  const int32_t n = round_half_even(multiply(cut, 1.44269502f));
  const float whole = static_cast<float>(n);
  const float r = subtract(subtract(cut, multiply(whole, 0.693359375f)), multiply(whole, -0.000212194442f));
  float p = 0.000199095113f;
  p = add(multiply(p, r), 0.00139461388f);
  p = add(multiply(p, r), 0.00833328068f);
  p = add(multiply(p, r), 0.0416662693f);
  p = add(multiply(p, r), 0.166666672f);
  p = add(multiply(p, r), 0.5f);
  const float power = add(add(multiply(p, multiply(r, r)), r), 1.0f);
  const int32_t half = n >> 1;
  const float result = multiply(multiply(power, power_of_two(half)), power_of_two(n - half));
  return is_nan(x) ? x : result;
}

QUAVER_FUNCTION float silu(float g) { return divide(g, add(1.0f, exponential(-g))); }

}  // namespace quaver
