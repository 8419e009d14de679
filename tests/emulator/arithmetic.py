"""Arithmetic, logic, comparisons and moves: what each lane does for itself."""

import re

from .lowering import TYPES
from .ptx import Pair, Vector

# Instructions that are one expression for each lane: pattern -> (destination type, source types, expression).
# "{t}" is the pattern's type; d is the result, a, b, c, e the sources.

INTEGER = r"(?P<t>[us](?:16|32|64))"
BITS = r"(?P<t>b(?:16|32|64))"
FLOAT = r"(?P<t>f32|f64)"


def unsigned(t):
    return f"uint{TYPES[t][1]}_t"


def _wrapping(symbol):
    return lambda m: (
        m["t"],
        (m["t"],) * 2,
        f"static_cast<{unsigned(m['t'])}>(a) {symbol} static_cast<{unsigned(m['t'])}>(b)",
    )


def _wide(t):
    return {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}[t]


def _high(m):
    t = m["t"]
    width = TYPES[t][1]
    big = ("unsigned " if t[0] == "u" else "") + "__int128"
    return f"static_cast<{TYPES[t][0]}>((static_cast<{big}>(a) * static_cast<{big}>(b)) >> {width})"


def _product(m):
    return f"static_cast<{TYPES[_wide(m['t'])][0]}>(a) * static_cast<{TYPES[_wide(m['t'])][0]}>(b)"


def same(count, expression):
    return lambda m: (m["t"], (m["t"],) * count, expression.format(u=unsigned(m["t"]), t=TYPES[m["t"]][0]))


SYMBOLS = {"add": "+", "sub": "-", "mul": "*"}
# Floats of 16 bits, whose values are the bits: instructions.h has their arithmetic.
SHORTS = {"f16": "Half", "bf16": "Bfloat16"}
SHORT = r"(?P<s>f16|bf16)(?P<x2>x2)?"


def _float(count, expression):
    """Of f32 and f64, with a result that may be a NaN or be saturated."""

    def make(m):
        value = f"canonical({expression.format(t=TYPES[m['t']][0])})"
        saturated = "sat" in m.re.groupindex and m["sat"]
        return m["t"], (m["t"],) * count, f"within_unit({value})" if saturated else value

    return make


def _short(count, function):
    """Of f16 and bf16, alone or in pairs."""

    def make(m):
        kind = m["s"] + (m["x2"] or "")
        operation = f"{function.format(**m.groupdict())}<{SHORTS[m['s']]}>"
        operands = ", ".join(("a", "b", "c_")[:count])
        return kind, (kind,) * count, f"pairwise({operation}, {operands})" if m["x2"] else f"{operation}({operands})"

    return make


def _short_bits(operator, mask):
    return lambda m: (
        m["s"] + (m["x2"] or ""),
        (m["s"] + (m["x2"] or ""),),
        f"a {operator} {mask * (0x10001 if m['x2'] else 1):#x}u",
    )


EXPRESSIONS = [
    (rf"add\.{INTEGER}", _wrapping("+")),
    (rf"sub\.{INTEGER}", _wrapping("-")),
    (
        r"(?P<op>add|sub)\.sat\.s32",
        lambda m: ("s32", ("s32",) * 2, f"saturate<int32_t>(int64_t{{a}} {SYMBOLS[m['op']]} b)"),
    ),
    (rf"mul\.lo\.{INTEGER}", same(2, "static_cast<{u}>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b))")),
    (rf"mul\.hi\.{INTEGER}", lambda m: (m["t"], (m["t"],) * 2, _high(m))),
    (r"mul\.wide\.(?P<t>[us](?:16|32))", lambda m: (_wide(m["t"]), (m["t"],) * 2, _product(m))),
    (
        rf"mad\.lo\.{INTEGER}",
        same(3, "static_cast<{u}>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b) + static_cast<uint64_t>(c_))"),
    ),
    (rf"mad\.hi\.{INTEGER}", lambda m: (m["t"], (m["t"],) * 3, f"static_cast<{unsigned(m['t'])}>({_high(m)}) + c_")),
    (
        r"mad\.wide\.(?P<t>[us](?:16|32))",
        lambda m: (
            _wide(m["t"]),
            (m["t"], m["t"], _wide(m["t"])),
            f"static_cast<{unsigned(_wide(m['t']))}>({_product(m)}) + c_",
        ),
    ),
    (rf"div\.{INTEGER}", same(2, "divide_integers<{t}>(a, b)")),
    (rf"rem\.{INTEGER}", same(2, "remainder_of_integers<{t}>(a, b)")),
    (rf"min\.{INTEGER}", same(2, "a < b ? a : b")),
    (rf"max\.{INTEGER}", same(2, "a > b ? a : b")),
    (
        r"abs\.(?P<t>s16|s32|s64)",
        same(1, "static_cast<{t}>(a < 0 ? static_cast<{u}>(0) - static_cast<{u}>(a) : static_cast<{u}>(a))"),
    ),
    (r"neg\.(?P<t>s16|s32|s64)", same(1, "static_cast<{t}>(static_cast<{u}>(0) - static_cast<{u}>(a))")),
    (
        rf"sad\.{INTEGER}",
        same(
            3,
            "static_cast<{u}>(c_) + (a < b ? static_cast<{u}>(b) - static_cast<{u}>(a)"
            " : static_cast<{u}>(a) - static_cast<{u}>(b))",
        ),
    ),
    (rf"and\.{BITS}", same(2, "a & b")),
    (rf"or\.{BITS}", same(2, "a | b")),
    (rf"xor\.{BITS}", same(2, "a ^ b")),
    (rf"not\.{BITS}", same(1, "static_cast<{t}>(~a)")),
    (r"and\.pred", lambda m: ("pred", ("pred",) * 2, "a && b")),
    (r"or\.pred", lambda m: ("pred", ("pred",) * 2, "a || b")),
    (r"xor\.pred", lambda m: ("pred", ("pred",) * 2, "a != b")),
    (r"not\.pred", lambda m: ("pred", ("pred",), "!a")),
    (r"mov\.pred", lambda m: ("pred", ("pred",), "a")),
    (rf"shl\.{BITS}", lambda m: (m["t"], (m["t"], "b32"), "shift_left(a, b)")),
    (r"shr\.(?P<t>[bus](?:16|32|64))", lambda m: (m["t"], (m["t"], "b32"), "shift_right(a, b)")),
    (
        r"shf\.l\.wrap\.b32",
        lambda m: (
            "b32",
            ("b32",) * 3,
            "static_cast<uint32_t>(((static_cast<uint64_t>(b) << 32 | a) << (c_ & 31)) >> 32)",
        ),
    ),
    (
        r"shf\.r\.wrap\.b32",
        lambda m: ("b32", ("b32",) * 3, "static_cast<uint32_t>((static_cast<uint64_t>(b) << 32 | a) >> (c_ & 31))"),
    ),
    (
        r"shf\.l\.clamp\.b32",
        lambda m: (
            "b32",
            ("b32",) * 3,
            "static_cast<uint32_t>(((static_cast<uint64_t>(b) << 32 | a) << (c_ > 32 ? 32 : c_)) >> 32)",
        ),
    ),
    (
        r"shf\.r\.clamp\.b32",
        lambda m: (
            "b32",
            ("b32",) * 3,
            "static_cast<uint32_t>((static_cast<uint64_t>(b) << 32 | a) >> (c_ > 32 ? 32 : c_))",
        ),
    ),
    (r"prmt\.b32", lambda m: ("b32", ("b32",) * 3, "permute_bytes(a, b, c_)")),
    (r"lop3\.b32", lambda m: ("b32", ("b32",) * 4, "logic3(a, b, c_, e)")),
    (r"bfe\.(?P<t>[us](?:32|64))", lambda m: (m["t"], (m["t"], "u32", "u32"), "extract_bits(a, b, c_)")),
    (r"bfi\.(?P<t>b(?:32|64))", lambda m: (m["t"], (m["t"], m["t"], "u32", "u32"), "insert_bits(a, b, c_, e)")),
    (r"popc\.b(?P<w>32|64)", lambda m: ("u32", (f"b{m['w']}",), "static_cast<uint32_t>(__builtin_popcountll(a))")),
    (
        r"clz\.b(?P<w>32|64)",
        lambda m: (
            "u32",
            (f"b{m['w']}",),
            f"a == 0 ? {m['w']}u : static_cast<uint32_t>(__builtin_clzll(a)) - (64 - {m['w']})",
        ),
    ),
    (r"brev\.(?P<t>b(?:32|64))", same(1, "reverse_bits(a)")),
    (
        r"bfind(?P<shift>\.shiftamt)?\.(?P<t>[us](?:32|64))",
        lambda m: ("u32", (m["t"],), f"find_bit<{'true' if m['shift'] else 'false'}>(a)"),
    ),
    (
        r"dp4a\.(?P<x>[us])32\.(?P<y>[us])32",
        lambda m: ("b32", ("b32",) * 3, f"dot_bytes<{_byte(m['x'])}, {_byte(m['y'])}>(a, b, c_)"),
    ),
    *(
        (rf"{name}(?:\.rn)?(?P<sat>\.sat)?\.{FLOAT}", _float(2, f"a {symbol} b"))
        for name, symbol in (("add", "+"), ("sub", "-"), ("mul", "*"))
    ),
    (rf"div\.rn\.{FLOAT}", _float(2, "a / b")),
    (rf"(?:fma|mad)\.rn(?P<sat>\.sat)?\.{FLOAT}", _float(3, "std::fma(a, b, c_)")),
    (rf"rcp\.rn\.{FLOAT}", _float(1, "{t}(1) / a")),
    (rf"sqrt\.rn\.{FLOAT}", _float(1, "std::sqrt(a)")),
    (rf"(?P<op>add|sub|mul)(?:\.rn)?\.{SHORT}", _short(2, "short_{op}")),
    (rf"(?P<op>min|max)\.{SHORT}", _short(2, "short_{op}")),
    (rf"fma\.rn\.{SHORT}", _short(3, "short_fma")),
    (rf"neg\.{SHORT}", _short_bits("^", 0x8000)),
    (rf"abs\.{SHORT}", _short_bits("&", 0x7FFF)),
    (rf"neg\.{FLOAT}", same(1, "-a")),
    (rf"abs\.{FLOAT}", same(1, "std::fabs(a)")),
    (rf"min\.{FLOAT}", same(2, "smaller_float(a, b)")),
    (rf"max\.{FLOAT}", same(2, "larger_float(a, b)")),
    (rf"copysign\.{FLOAT}", same(2, "std::copysign(b, a)")),
    (r"mov\.(?P<t>[busf](?:16|32|64))", same(1, "a")),
    (r"cvta\.to\.(?P<space>global|const)\.u64", lambda m: ("u64", ("u64",), "a")),
    (r"cvta\.(?:global|const)\.u64", lambda m: ("u64", ("u64",), "a")),
    (r"cvta\.to\.shared\.u64", lambda m: ("u64", ("u64",), "a - kSharedWindow")),
    (r"cvta\.shared\.u64", lambda m: ("u64", ("u64",), "a + kSharedWindow")),
    (r"cvta\.to\.local\.u64", lambda m: ("u64", ("u64",), "a - kLocalWindow")),
    (r"cvta\.local\.u64", lambda m: ("u64", ("u64",), "a + kLocalWindow")),
    (r"cvta\.to\.param\.u64", lambda m: ("u64", ("u64",), "a - kParamWindow")),
    (r"cvta\.param\.u64", lambda m: ("u64", ("u64",), "a + kParamWindow")),
    (
        r"slct\.(?P<t>[busf](?:16|32|64))\.(?P<c>s32|f32)",
        lambda m: (m["t"], (m["t"], m["t"], m["c"]), "c_ >= 0 ? a : b"),
    ),
    (r"selp\.(?P<t>[busf](?:16|32|64))", lambda m: (m["t"], (m["t"], m["t"], "pred"), "c_ ? a : b")),
]


def _byte(kind):
    return "uint8_t" if kind == "u" else "int8_t"


# lo, ls, hi and hs are of unsigned integers; .b types are only equal or not.
EQUALITY = {"eq": "a == b", "ne": "a != b"}
ORDER = {"lt": "a < b", "le": "a <= b", "gt": "a > b", "ge": "a >= b"}
COMPARISONS = {
    "b": EQUALITY,
    "s": {**EQUALITY, **ORDER},
    "u": {**EQUALITY, **ORDER, "lo": "a < b", "ls": "a <= b", "hi": "a > b", "hs": "a >= b"},
}
# Of floats: unordered comparisons are true where an operand is NaN, ordered ones false.
FLOAT_COMPARISONS = {
    "eq": "a == b",
    **ORDER,
    "ne": "a < b || a > b",
    "equ": "!(a < b || a > b)",
    "neu": "a != b",
    "ltu": "!(a >= b)",
    "leu": "!(a > b)",
    "gtu": "!(a <= b)",
    "geu": "!(a < b)",
    "num": "a == a && b == b",
    "nan": "a != a || b != b",
}
COMPARISONS["f"] = FLOAT_COMPARISONS


COMPARED = r"(?P<cmp>[a-z]+)(?:\.(?P<bool>and|or|xor))?"
SETP = re.compile(rf"setp\.{COMPARED}\.(?P<t>[busf](?:16|32|64))")
SET = re.compile(rf"set\.{COMPARED}\.(?P<to>u32|s32|f32)\.(?P<t>[busf](?:16|32|64))")
JOIN = {None: "", "and": " && with", "or": " || with", "xor": " != with"}


def lower_expression(b, to, sources, expression):
    destination, *operands = b.operands(1 + len(sources))
    b.destination("d", destination, to)
    for name, operand, kind in zip(("a", "b", "c_", "e"), operands, sources, strict=False):
        b.source(name, operand, kind)
    cpp = "bool" if to == "pred" else TYPES[to][0]
    return b.lanes(b.instruction.opcode, f"const {cpp} d = static_cast<{cpp}>({expression});")


def lower_pack(b, kind):
    """mov between a register and a vector of its parts."""
    destination, source = b.operands(2)
    width = TYPES[kind][1]
    parts = [len(x.elements) for x in (destination, source) if isinstance(x, Vector)]
    if len(parts) != 1 or parts[0] not in (2, 4) or width // parts[0] < 8:
        raise b.error("a register is packed of, or unpacked to, two or four parts")
    if isinstance(destination, Vector):
        part = width // len(destination.elements)
        names = [f"d{i}" for i in range(len(destination.elements))]
        for name, operand in zip(names, destination.elements, strict=True):
            b.destination(name, operand, f"b{part}")
        b.source("a", source, f"b{width}")
        body = " ".join(
            f"const uint{part}_t {n} = static_cast<uint{part}_t>(a >> {i * part});" for i, n in enumerate(names)
        )
        return b.lanes(f"{b.instruction.opcode} unpack", body)
    part = width // len(source.elements)
    b.destination("d", destination, f"b{width}")
    names = [f"a{i}" for i in range(len(source.elements))]
    for name, operand in zip(names, source.elements, strict=True):
        b.source(name, operand, f"b{part}")
    joined = " | ".join(f"static_cast<uint{width}_t>({n}) << {i * part}" for i, n in enumerate(names))
    return b.lanes(f"{b.instruction.opcode} pack", f"const uint{width}_t d = {joined};")


def _compare(b, match):
    """Declares the sources of a comparison, and gives it with what it is joined with, as a pair of texts."""
    table = COMPARISONS[match["t"][0]]
    if match["cmp"] not in table:
        raise b.error(f"unknown comparison {match['cmp']!r}")
    _, x, y, *rest = b.operands(4 if match["bool"] else 3)
    b.source("a", x, match["t"])
    b.source("b", y, match["t"])
    if match["bool"]:
        b.source("with", rest[0], "pred")
    return f"({table[match['cmp']]})", JOIN[match["bool"]]


def lower_setp(b, match):
    destination = b.instruction.operands[0]
    second = None
    if isinstance(destination, Pair):
        destination, second = destination.first, destination.second
    b.destination("d", destination, "pred")
    if second is not None:
        b.destination("d2", second, "pred")
    compare, join = _compare(b, match)
    return b.lanes(b.instruction.opcode, f"const bool d = {compare}{join}; const bool d2 = !{compare}{join};")


def lower_set(b, match):
    to = match["to"]
    b.destination("d", b.instruction.operands[0], to)
    compare, join = _compare(b, match)
    true = "1.0f" if to == "f32" else "-1"
    return b.lanes(b.instruction.opcode, f"const {TYPES[to][0]} d = {compare}{join} ? {true} : 0;")


def _expression_maker(make):
    def lower(b, match):
        if b.instruction.opcode.startswith("mov.") and any(isinstance(x, Vector) for x in b.instruction.operands):
            return lower_pack(b, match["t"])
        return lower_expression(b, *make(match))

    return lower


TABLE = [
    *((re.compile(pattern), _expression_maker(make)) for pattern, make in EXPRESSIONS),
    (SETP, lower_setp),
    (SET, lower_set),
]
