"""ARITHMETIC.md's equations over exact rationals: what quaver.reference itself is held to.

A number is a Python float, which holds every float32, float16 and bfloat16 exactly. A float operation is the exact
rational result, rounded once by `rounded`: no floating-point arithmetic takes part, neither torch's nor Python's.
"""

from fractions import Fraction
from functools import cache
from math import copysign, floor, inf, isfinite, isinf, isnan, isqrt, ldexp, nan
from typing import NamedTuple


class Format(NamedTuple):
    precision: int  # bits of the significand, the hidden one too
    smallest: int  # 2**smallest is the smallest positive number, the unit of all denormals
    limit: int  # from 2**limit on, rounding gives infinity


FLOAT32 = Format(precision=24, smallest=-149, limit=128)
FLOAT64 = Format(precision=53, smallest=-1074, limit=1024)
FLOAT16 = Format(precision=11, smallest=-24, limit=16)
BFLOAT16 = Format(precision=8, smallest=-133, limit=128)

LARGEST = 2.0**128 - 2.0**104
SMALLEST_NORMAL = ldexp(1, -126)


@cache
def power_of_two(exponent):
    return Fraction(2) ** exponent


def unit_exponent(magnitude, form):
    """The exponent of the spacing of a format's numbers around a positive rational."""
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < power_of_two(exponent):
        exponent -= 1
    return max(exponent - form.precision + 1, form.smallest)


def rounded(value, form=FLOAT32):
    """The number of a format nearest to a rational; of two equally near ones, the even one."""
    if value < 0:
        return -rounded(-value, form)
    if value == 0:
        return 0.0
    exponent = unit_exponent(value, form)
    steps = round(value / power_of_two(exponent))  # Fraction rounds half to even, exactly
    return inf if steps * power_of_two(exponent) >= 2**form.limit else ldexp(steps, exponent)


def neighbours(value, form=FLOAT32):
    """A positive rational's nearest number and the ones a unit in the last place below and above."""
    unit = power_of_two(unit_exponent(value, form))
    return [rounded(near, form) for near in (value - unit, value, value + unit)]


# Single-precision operations. Divisors are positive and finite, as scales are.


def convert(value, form):
    return copysign(rounded(abs(Fraction(value)), form), value) if isfinite(value) else value


def divide(a, b):
    return copysign(rounded(abs(Fraction(a)) / Fraction(b)), a) if isfinite(a) else a


def multiply(a, b):
    sign = copysign(1, a) * copysign(1, b)
    if isfinite(a) and isfinite(b):
        return copysign(rounded(abs(Fraction(a) * Fraction(b))), sign)
    return nan if isnan(a) or isnan(b) or a == 0 or b == 0 else copysign(inf, sign)


def add(a, b):
    if isfinite(a) and isfinite(b) and (a != 0 or b != 0):
        return rounded(Fraction(a) + Fraction(b))
    return a + b  # infinities, NaN and sums of zeros: no rounding


def square_root(a):
    """Of a number that is not negative. Whether the integer root is exact decides as far below as any tie lies."""
    if not isfinite(a) or a == 0:
        return a
    scaled = int(Fraction(a) * 4**200)  # an integer: float32 has no bit below 2^-149
    root = isqrt(scaled)
    return rounded(Fraction(2 * root + (root * root != scaled), 2**201))


def half_even(value):
    """The nearest integer; for an infinity, one beyond every code."""
    return round(Fraction(value)) if isfinite(value) else int(copysign(10**9, value))


def clamp(code, q_min, q_max):
    return max(q_min, min(code, q_max))


# The stages, in the data's order.


def choose_qparams(values, *, symmetric, q_min, q_max, eps=0.0):
    """(4): the scale and zero point of one block."""
    finite = [value for value in values if isfinite(value)] or [0.0]
    lo, hi = min(finite), max(finite)
    floor = max(rounded(Fraction(eps)), SMALLEST_NORMAL)
    if symmetric:
        bound = max(abs(lo), abs(hi))
        return (max(divide(bound, q_max), floor) if bound else 1.0), 0
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    steps = q_max - q_min
    width = add(hi, -lo)
    scale = add(divide(hi, steps), -divide(lo, steps)) if isinf(width) else divide(width, steps)
    scale = max(min(scale, LARGEST), floor) if width else 1.0
    return scale, clamp(half_even(add(q_min, -divide(lo, scale))), q_min, q_max)


def philox(counter, key):
    """Philox4x32-10 over Python's integers."""
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (second >> 32) ^ b ^ low, second % 2**32, (first >> 32) ^ d ^ high, first % 2**32
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return a, b, c, d


def uniform(index, seed):
    """What (2) draws for an element."""
    four = index // 4
    words = philox((four % 2**32, four >> 32, 0, 0), (seed % 2**32, (seed >> 32) % 2**32))
    return Fraction(words[index % 4] >> 8, 2**24)


def unclamped_code(x, scale, zero_point, mode="onnx", drawn=None):
    """(2) before the clamp; None for what is no number."""
    quotient = multiply(x, divide(1.0, scale)) if mode == "reciprocal" else divide(x, scale)
    if isnan(quotient):
        return None
    if mode == "affine":
        return half_even(add(quotient, float(zero_point)))
    if mode == "stochastic" and isfinite(quotient):
        below = floor(quotient)
        return below + (drawn < Fraction(add(quotient, -float(below)))) + zero_point
    return half_even(quotient) + zero_point


def quantize(x, scale, zero_point, q_min, q_max, mode="onnx", drawn=None):
    """(2)."""
    code = unclamped_code(x, scale, zero_point, mode, drawn)
    return clamp(zero_point if code is None else code, q_min, q_max)


def sum_of_squares(row):
    """(11)"""
    width = 1
    while width < len(row):
        width *= 2
    sums = [multiply(h, h) for h in row] + [0.0] * (width - len(row))
    while width > 1:
        width //= 2
        sums = [add(sums[j], sums[j + width]) for j in range(width)]
    return sums[0]


def rms_norm(row, weight, eps):
    """(11): y of a row of finite numbers."""
    root = square_root(add(divide(sum_of_squares(row), len(row)), rounded(Fraction(eps))))
    factor = 0.0 if isinf(root) else divide(1.0, root)
    return [multiply(multiply(h, factor), w) for h, w in zip(row, weight, strict=True)]


# (12), from the decimal numbers of ARITHMETIC.md.
LOG2_E, LN2_HIGH, LN2_LOW = (rounded(Fraction(text)) for text in ("1.44269502", "0.693359375", "-0.000212194442"))
POWERS = [
    rounded(Fraction(text))
    for text in ("0.000199095113", "0.00139461388", "0.00833328068", "0.0416662693", "0.166666672", "0.5")
]


def exponential(x):
    if isnan(x):
        return x
    cut = max(-104.0, min(x, 89.0))
    n = half_even(multiply(cut, LOG2_E))
    r = add(add(cut, -multiply(float(n), LN2_HIGH)), -multiply(float(n), LN2_LOW))
    p = POWERS[0]
    for coefficient in POWERS[1:]:
        p = add(multiply(p, r), coefficient)
    power = add(add(multiply(p, multiply(r, r)), r), 1.0)
    return rounded(Fraction(power) * power_of_two(n))


def silu(g):
    divisor = add(1.0, exponential(-g))
    if isnan(divisor) or (isinf(divisor) and isinf(g)):
        return nan
    return copysign(0.0, g) if isinf(divisor) else divide(g, divisor)


def product(rows, columns, row_zero_points, column_zero_points):
    """(6)."""
    return [
        [
            sum((a - a_zero) * (b - b_zero) for a, b in zip(row, column, strict=True))
            for column, b_zero in zip(columns, column_zero_points, strict=True)
        ]
        for row, a_zero in zip(rows, row_zero_points, strict=True)
    ]


def scale_product(acc, a_scale, b_scale, bias=None, relu=False):
    """(7), before the rounding to the output's type."""
    v = multiply(rounded(Fraction(acc)), multiply(a_scale, b_scale))
    v = v if bias is None else add(v, bias)
    return 0.0 if relu and v <= 0 else v


# (10), step by step as gemmlowp's fixedpoint.h and TFLite's quantization_util.cc and common.cc have it, in integers.

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def truncated(dividend, divisor):
    """The quotient that C gives: rounded towards zero."""
    size = abs(dividend) // divisor
    return size if dividend >= 0 else -size


def quantize_multiplier(a_scale, b_scale, out_scale):
    """QuantizeMultiplier of the double a_scale * b_scale / out_scale: (quantized multiplier, shift)."""
    product = Fraction(rounded(Fraction(a_scale) * Fraction(b_scale), FLOAT64))
    real = Fraction(rounded(product / Fraction(out_scale), FLOAT64))
    shift = unit_exponent(real, FLOAT64) + FLOAT64.precision  # real = fraction * 2^shift, 1/2 <= fraction < 1
    scaled = real / power_of_two(shift) * 2**31
    multiplier = int(scaled + Fraction(1, 2))  # half away from zero: it is positive
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        return INT32_MAX, 30
    return multiplier, shift


def saturating_rounding_doubling_high_mul(a, b):
    if a == b == INT32_MIN:
        return INT32_MAX
    nudge = 2**30 if a * b >= 0 else 1 - 2**30
    return truncated(a * b + nudge, 2**31)


def rounding_divide_by_pot(x, exponent):
    mask = 2**exponent - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if x & mask > threshold else 0)


def multiply_by_quantized_multiplier(x, multiplier, shift):
    """Where the shift to the left leaves int32, TFLite says nothing; here it saturates."""
    shifted = clamp(x * 2 ** max(shift, 0), INT32_MIN, INT32_MAX)
    return rounding_divide_by_pot(saturating_rounding_doubling_high_mul(shifted, multiplier), max(-shift, 0))


def requantize_fixed(acc, a_scale, b_scale, out_scale, zero_point, q_min, q_max, bias=0, relu=False):
    """(10). A ReLU is TFLite's: the least code is the zero point."""
    acc = (acc + bias + 2**31) % 2**32 - 2**31
    code = multiply_by_quantized_multiplier(acc, *quantize_multiplier(a_scale, b_scale, out_scale)) + zero_point
    return clamp(code, max(q_min, zero_point) if relu else q_min, q_max)


def dequantize(code, scale, zero_point, form=FLOAT32):
    """(3)."""
    return convert(multiply(float(code - zero_point), scale), form)
