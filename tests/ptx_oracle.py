"""What PTX instructions do to one lane, in Python's integers and fractions: a second reading of the PTX ISA.

Every value is the bits of a register as a non-negative integer. Nothing here is shared with the emulator, and no float
of the host takes part: sums, products and quotients are fractions, rounded once by `encode`.
"""

import math
from fractions import Fraction

NAN = "NaN"  # any NaN: PTX ISA leaves its bits open
FORMATS = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52)}  # bits of exponent and mantissa


def width(kind):
    return int(kind.lstrip("bfus").removesuffix("x2")) * (2 if kind.endswith("x2") else 1)


def is_float(kind):
    return kind in FORMATS


# Integers.


def as_integer(bits, kind):
    n = width(kind)
    bits &= (1 << n) - 1
    return bits - (1 << n) if kind[0] == "s" and bits >> (n - 1) else bits


def bounds(kind):
    n = width(kind)
    return (-(1 << (n - 1)), (1 << (n - 1)) - 1) if kind[0] == "s" else (0, (1 << n) - 1)


def wrap(value, kind):
    return value & ((1 << width(kind)) - 1)


def clamp(value, kind):
    low, high = bounds(kind)
    return min(max(value, low), high)


def integers(kind, function, to=None):
    """A function of integers as a function of bits, which wraps."""
    return lambda *bits: wrap(function(*(as_integer(b, kind) for b in bits)), to or kind)


def quotient(a, b):
    """Toward zero. PTX ISA leaves division by zero open; hardware gives all ones."""
    if b == 0:
        return -1
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def remainder(a, b):
    return a if b == 0 else a - quotient(a, b) * b


def bits_of(value, count):
    return [value >> i & 1 for i in range(count)]


def from_bits(bits):
    return sum(bit << i for i, bit in enumerate(bits))


def bfe(kind):
    def extract(a, start, length):
        start, length, n = start & 0xFF, length & 0xFF, width(kind)
        source = bits_of(a, n)
        sign = source[min(start + length - 1, n - 1)] if kind[0] == "s" and length else 0
        return from_bits([source[start + i] if i < length and start + i < n else sign for i in range(n)])

    return extract


def bfi(kind):
    def insert(a, b, start, length):
        start, length, n = start & 0xFF, length & 0xFF, width(kind)
        return from_bits([a >> (i - start) & 1 if start <= i < start + length else b >> i & 1 for i in range(n)])

    return insert


def bfind(kind, as_shift):
    def find(a):
        a = as_integer(a, kind)
        at = (~a if a < 0 else a).bit_length() - 1
        if at < 0:
            return 0xFFFFFFFF
        return width(kind) - 1 - at if as_shift else at

    return find


def prmt(a, b, selector):
    data = [*a.to_bytes(4, "little"), *b.to_bytes(4, "little")]
    result = []
    for i in range(4):
        choice = selector >> (4 * i) & 15
        byte = data[choice & 7]
        result.append((255 if byte > 127 else 0) if choice > 7 else byte)
    return int.from_bytes(bytes(result), "little")


def lop3(table):
    def look_up(a, b, c):
        return from_bits(
            [table >> (4 * x + 2 * y + z) & 1 for x, y, z in zip(*(bits_of(v, 32) for v in (a, b, c)), strict=True)]
        )

    return look_up


def shift(direction, kind):
    def moved(a, n):
        a = as_integer(a, kind)
        return wrap(a << min(n, 64) if direction == "l" else a >> min(n, 64), kind)

    return moved


def funnel(direction, mode):
    def moved(a, b, c):
        n = min(c, 32) if mode == "clamp" else c % 32
        both = b << 32 | a
        return (both << n) >> 32 & 0xFFFFFFFF if direction == "l" else both >> n & 0xFFFFFFFF

    return moved


def dp4a(a_kind, b_kind):
    def dot(a, b, c):
        pairs = zip(a.to_bytes(4, "little"), b.to_bytes(4, "little"), strict=True)
        return wrap(c + sum(as_integer(x, a_kind + "8") * as_integer(y, b_kind + "8") for x, y in pairs), "u32")

    return dot


def pack(kind, with_c):
    def packed(a, b, c=0):
        n = width(kind)
        low, high = (wrap(clamp(as_integer(x, "s32"), kind), kind) for x in (b, a))
        return wrap((c << 2 * n if with_c else 0) | high << n | low, "u32")

    return packed


# Floats.


def decode(bits, kind):
    """None for NaN, an infinity, or a fraction (which has no -0: see `sign`)."""
    exponents, mantissas = FORMATS[kind]
    exponent = bits >> mantissas & ((1 << exponents) - 1)
    mantissa = bits & ((1 << mantissas) - 1)
    bias = (1 << (exponents - 1)) - 1
    if exponent == (1 << exponents) - 1:
        return None if mantissa else math.copysign(math.inf, -1 if sign(bits, kind) else 1)
    if exponent:
        mantissa |= 1 << mantissas
    size = Fraction(mantissa) * Fraction(2) ** (max(exponent, 1) - bias - mantissas)
    return -size if sign(bits, kind) else size


def sign(bits, kind):
    return bits >> (width(kind) - 1) & 1


def whole(value, mode):
    """A fraction to an integer: to nearest even, toward zero, minus or plus infinity."""
    down = value.numerator // value.denominator
    if mode == "n":
        twice = 2 * (value - down)
        return down + (twice > 1 or (twice == 1 and down % 2))
    up = down if value == down else down + 1
    return {"m": down, "p": up, "z": up if value < 0 else down}[mode]


def encode(value, kind, mode="n", negative_zero=False):
    """A fraction, an infinity or None (NaN) to bits, rounded once."""
    exponents, mantissas = FORMATS[kind]
    if value is None:
        return NAN
    top = 1 << (width(kind) - 1)
    infinity = ((1 << exponents) - 1) << mantissas
    if value in (math.inf, -math.inf):
        return infinity | (top if value < 0 else 0)
    if value == 0:
        return top if negative_zero else 0
    bias = (1 << (exponents - 1)) - 1
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = max(exponent, 1 - bias) - mantissas
    steps = abs(whole(value / Fraction(2) ** unit, mode))
    if steps == 2 << mantissas:
        steps, unit = 1 << mantissas, unit + 1
    if unit + mantissas > bias:
        to_infinity = mode == "n" or (mode == "p" and value > 0) or (mode == "m" and value < 0)
        result = infinity if to_infinity else infinity - 1
    elif steps < 1 << mantissas:
        result = steps
    else:
        result = (unit + mantissas + bias) << mantissas | (steps - (1 << mantissas))
    return result | (top if value < 0 else 0)


def fma(kind, *, product=True, addend=True, negate=False, saturate=False):
    """a * b + c; without `product` a + b, or a - b with `negate`; without `addend` a * b."""

    def compute(*operands):
        bits = list(operands)
        if product:
            a, b = bits[:2]
            x, y = decode(a, kind), decode(b, kind)
            left, left_sign = multiply(x, y), sign(a, kind) ^ sign(b, kind)
        else:
            left, left_sign = decode(bits[0], kind), sign(bits[0], kind)
        if not addend:
            result = encode(left, kind, negative_zero=left_sign)
        else:
            right, right_sign = decode(bits[-1], kind), sign(bits[-1], kind)
            if negate:
                right, right_sign = None if right is None else -right, 1 - right_sign
            result = encode(add(left, right), kind, negative_zero=left_sign and right_sign and not (left or right))
        return unit_interval(result, kind) if saturate else result

    return compute


def multiply(x, y):
    if x is None or y is None or {abs(x), abs(y)} == {0, math.inf}:
        return None
    if math.inf in (abs(x), abs(y)):
        return math.inf if (x > 0) == (y > 0) else -math.inf
    return x * y


def add(x, y):
    if x is None or y is None:
        return None
    infinities = {v for v in (x, y) if abs(v) == math.inf}
    if infinities:
        return infinities.pop() if len(infinities) == 1 else None
    return x + y


def unit_interval(bits, kind):
    if bits == NAN:
        return 0
    value = decode(bits, kind)
    if value is None or value <= 0:
        return 0
    return encode(Fraction(1), kind) if value > 1 else bits


def divide(kind):
    def compute(a, b):
        x, y = decode(a, kind), decode(b, kind)
        negative = sign(a, kind) ^ sign(b, kind)
        if x is None or y is None or (x == 0 and y == 0) or (abs(x) == math.inf and abs(y) == math.inf):
            return NAN
        if abs(x) == math.inf or y == 0:
            return encode(-math.inf if negative else math.inf, kind)
        return encode(Fraction(0) if abs(y) == math.inf else x / y, kind, negative_zero=negative)

    return compute


def reciprocal(kind):
    one = encode(Fraction(1), kind)
    return lambda a: divide(kind)(one, a)


def square_root(kind):
    def compute(a):
        x = decode(a, kind)
        if x is None or x < 0:
            return NAN
        if x == 0 or x == math.inf:
            return a
        # An integer root with far more bits than the format, marked where it is not exact.
        scale = 2 * (FORMATS[kind][1] + 8 + x.denominator.bit_length())
        scaled = x * (1 << 2 * scale)
        root = math.isqrt(scaled.numerator // scaled.denominator)
        exact = root * root == scaled
        return encode(Fraction(2 * root + (not exact), 2 << scale), kind)

    return compute


def extreme(kind, largest):
    """min and max: a number beats NaN, -0 is below +0, two NaNs give the canonical one."""

    def compute(a, b):
        x, y = decode(a, kind), decode(b, kind)
        if x is None and y is None:
            return (1 << (width(kind) - 1)) - 1
        if x is None or y is None:
            return b if x is None else a
        ordered = sorted((a, b), key=lambda v: (decode(v, kind), not sign(v, kind)))
        return ordered[1 if largest else 0]

    return compute


def compare(name, kind):
    """A comparison of two registers, as 0 or 1."""
    base = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(name, name)
    unordered = is_float(kind) and len(base) == 3 and base.endswith("u")

    def compute(a, b):
        x, y = (decode(v, kind) if is_float(kind) else as_integer(v, kind) for v in (a, b))
        nan = x is None or y is None
        if base in ("num", "nan"):
            return int(nan == (base == "nan"))
        if nan:
            return int(unordered)
        relation = base[:2]
        return int({"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[relation])

    return compute


def convert(to, start, mode=None, saturate=False):
    def compute(bits):
        if not is_float(start):
            value = as_integer(bits, start)
            if not is_float(to):
                return wrap(clamp(value, to) if saturate else value, to)
            result = encode(Fraction(value), to, mode[1])
            return unit_interval(result, to) if saturate else result
        value = decode(bits, start)
        if not is_float(to):
            return float_to_integer(value, to, start, mode)
        if mode and mode.endswith("i") and value is not None and abs(value) != math.inf:
            value = Fraction(whole(value, mode[1]))
        # Of the same type it is a copy; a whole number is exact in the type that it came from.
        result = encode(value, to, (mode or "rn")[1], negative_zero=sign(bits, start))
        return unit_interval(result, to) if saturate else result

    return compute


def float_to_integer(value, to, start, mode):
    """PTX ISA, cvt: it saturates, and a NaN gives 0, or the highest bit alone where 64 bits take part."""
    low, high = bounds(to)
    if value is None:
        return 1 << (width(to) - 1) if start == "f64" or width(to) == 64 else 0
    if abs(value) == math.inf:
        return wrap(high if value > 0 else low, to)
    return wrap(min(max(whole(value, mode[1]), low), high), to)


def halves(function):
    """A function of 16-bit floats on both halves of registers."""

    def compute(*bits):
        return [function(*(b >> at & 0xFFFF for b in bits)) for at in (0, 16)]

    return compute


def float_pair(kind, mode):
    one = convert(kind, "f32", mode)
    return lambda a, b: [one(b), one(a)]
