"""Conversions between integers and floats of all widths."""

import re

from .lowering import TYPES

FLOATS = ("f16", "bf16", "f32", "f64")
SHORTS = {"f16": "Half", "bf16": "Bfloat16"}
FORMATS = {"f16": "5, 10", "bf16": "8, 7", "f32": "8, 23"}  # bits of exponent and mantissa
# To a whole number, still a float.
WHOLE = {"rni": "std::nearbyint({})", "rzi": "std::trunc({})", "rmi": "std::floor({})", "rpi": "std::ceil({})"}

CVT = re.compile(
    r"cvt(?:\.(?P<round>rn|rz|rm|rp|rni|rzi|rmi|rpi))?(?P<sat>\.sat)?\."
    r"(?P<to>[us](?:8|16|32|64)|f16|bf16|f32|f64)\.(?P<from>[us](?:8|16|32|64)|f16|bf16|f32|f64)"
)
PAIR = re.compile(r"cvt\.(?P<round>rn|rz)\.(?P<to>f16|bf16)x2\.f32")
PACK = re.compile(r"cvt\.pack\.sat\.(?P<to>[us](?:8|16))\.s32(?P<c>\.b32)?")


def lower_cvt(b, match):
    destination, source = b.operands(2)
    to, start, rounding = match["to"], match["from"], match["round"]
    if "bf16" in (to, start) and {"s8", "u8"} & {to, start}:
        raise b.error("bf16 is not converted from or to integers of 8 bits")
    b.destination("d", destination, to)
    b.source("a", source, start)
    value = _conversion(b, to, start, rounding, bool(match["sat"]))
    return b.lanes(b.instruction.opcode, f"const {TYPES[to][0]} d = {value};")


def _conversion(b, to, start, rounding, sat):
    if start not in FLOATS and to not in FLOATS:
        if rounding:
            raise b.error("integers are not rounded")
        return f"saturate<{TYPES[to][0]}>(a)" if sat else f"static_cast<{TYPES[to][0]}>(a)"
    value = f"{SHORTS[start]}::widen(a)" if start in SHORTS else "a"
    if to not in FLOATS:
        return _to_integer(b, to, start, value, rounding)
    if rounding in WHOLE:
        if to != start:
            raise b.error("a float rounded to a whole number keeps its type")
        value = WHOLE[rounding].format(value)
        value = f"{SHORTS[to]}::narrow({value})" if to in SHORTS else value
    elif _is_exact(start, to):
        if rounding:
            raise b.error("an exact conversion is not rounded")
        value = "a" if start == to else f"static_cast<{TYPES[to][0]}>({value})"
    elif rounding is None:
        raise b.error("this conversion needs a rounding")
    else:
        value = _rounded(b, to, start, value, rounding)
    if sat and to not in ("f32", "f64"):
        raise b.error("unknown saturating conversion")
    return f"within_unit({value})" if sat else value


def _is_exact(start, to):
    if start not in FLOATS:
        return False  # PTX wants a rounding even where none is needed
    return start == to or to == "f64" or (to == "f32" and start in SHORTS)


def _to_integer(b, to, start, value, rounding):
    if rounding not in WHOLE:
        raise b.error("a conversion to an integer needs a rounding")
    # PTX ISA, cvt: NaN gives 0, but the integer with only its highest bit where 64 bits take part.
    wide = start == "f64" or to in ("s64", "u64")
    nan = f"static_cast<{TYPES[to][0]}>(1ull << {TYPES[to][1] - 1})" if wide else "0"
    return f"to_integer<{TYPES[to][0]}>({WHOLE[rounding].format(value)}, {nan})"


def _rounded(b, to, start, value, rounding):
    if to == "f64":
        if start in ("s64", "u64") and rounding != "rn":
            raise b.error("64-bit integers are converted to f64 in the rounding .rn alone")
        return "static_cast<double>(a)"
    if rounding == "rn" and to == "f32":
        return "canonical(static_cast<float>(a))"
    value = f"round_to_format<{FORMATS[to]}>({value}, Round::k{rounding[1].upper()})"
    return f"bits<float>({value})" if to == "f32" else f"static_cast<uint16_t>({value})"


def lower_pair(b, match):
    """Two floats to a register of two short ones: the first operand is the upper half."""
    destination, x, y = b.operands(3)
    b.destination("d", destination, "b32")
    b.source("a", x, "f32")
    b.source("b", y, "f32")
    upper, lower = (f"round_to_format<{FORMATS[match['to']]}>({n}, Round::k{match['round'][1].upper()})" for n in "ab")
    body = f"const uint32_t d = static_cast<uint32_t>({upper}) << 16 | {lower};"
    return b.lanes(b.instruction.opcode, body)


def lower_pack(b, match):
    """Two integers saturated side by side, the first above the second; bytes push what c has upwards."""
    to = match["to"]
    cpp, width = TYPES[to]
    if (width == 8) != bool(match["c"]):
        raise b.error("bytes are packed with a third operand, 16-bit integers without")
    destination, x, y, *rest = b.operands(4 if match["c"] else 3)
    b.destination("d", destination, "b32")
    b.source("a", x, "s32")
    b.source("b", y, "s32")
    joined = " | ".join(
        f"static_cast<uint32_t>(static_cast<uint{width}_t>(saturate<{cpp}>({n}))) << {at}"
        for n, at in (("a", width), ("b", 0))
    )
    if rest:
        b.source("c_", rest[0], "b32")
        joined += " | c_ << 16"
    return b.lanes(b.instruction.opcode, f"const uint32_t d = {joined};")


TABLE = [(CVT, lower_cvt), (PAIR, lower_pair), (PACK, lower_pack)]
