"""Every instruction that one lane does for itself, with its types and what ptx_oracle.py says that it does."""

from dataclasses import dataclass
from itertools import product

from . import ptx_oracle as oracle

INTEGERS = [f"{sign}{bits}" for bits in (16, 32, 64) for sign in "us"]
ALL_INTEGERS = [f"{sign}{bits}" for bits in (8, 16, 32, 64) for sign in "us"]
BITS = ["b16", "b32", "b64"]
MODES = ("rn", "rz", "rm", "rp")
WHOLE_MODES = ("rni", "rzi", "rmi", "rpi")


@dataclass
class Case:
    """`text` has the opcode and operands: d (or d, d2) are results, a, b, c, e the sources in their order."""

    text: str
    to: str  # the result's type, or "pred"; a second result is a predicate
    sources: tuple
    function: object  # of the sources' bits; gives bits, NAN, a list of both halves, or a pair of two results
    registers: tuple = ()  # bits of the registers where they are wider than the types: the result's, then the sources'

    @property
    def opcode(self):
        return self.text.split()[0]


def plain(opcode, to, sources, function, **options):
    operands = ", ".join(["d", *"abce"[: len(sources)]])
    return Case(f"{opcode} {operands}", to, tuple(sources), function, **options)


def integer_cases():
    binary = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul.lo": lambda a, b: a * b,
        "div": oracle.quotient,
        "rem": oracle.remainder,
        "min": min,
        "max": max,
    }
    ternary = {"mad.lo": lambda a, b, c: a * b + c, "sad": lambda a, b, c: c + abs(a - b)}
    for t in INTEGERS:
        n = oracle.width(t)
        for name, function in binary.items():
            yield plain(f"{name}.{t}", t, (t, t), oracle.integers(t, function))
        for name, function in ternary.items():
            yield plain(f"{name}.{t}", t, (t,) * 3, oracle.integers(t, function))
        yield plain(f"mul.hi.{t}", t, (t, t), oracle.integers(t, lambda a, b, n=n: a * b >> n))
        yield plain(f"mad.hi.{t}", t, (t,) * 3, oracle.integers(t, lambda a, b, c, n=n: (a * b >> n) + c))
        if t[0] == "s":
            yield plain(f"abs.{t}", t, (t,), oracle.integers(t, abs))
            yield plain(f"neg.{t}", t, (t,), oracle.integers(t, lambda a: -a))
    for t, wide in (("u16", "u32"), ("s16", "s32"), ("u32", "u64"), ("s32", "s64")):
        yield plain(f"mul.wide.{t}", wide, (t, t), oracle.integers(t, lambda a, b: a * b, wide))

        def mad(a, b, c, t=t, wide=wide):
            return oracle.wrap(oracle.as_integer(a, t) * oracle.as_integer(b, t) + c, wide)

        yield plain(f"mad.wide.{t}", wide, (t, t, wide), mad)
    for name, sign in (("add", 1), ("sub", -1)):
        saturated = oracle.integers("s32", lambda a, b, sign=sign: oracle.clamp(a + sign * b, "s32"))
        yield plain(f"{name}.sat.s32", "s32", ("s32",) * 2, saturated)
    for x, y in product("us", repeat=2):
        yield plain(f"dp4a.{x}32.{y}32", "b32", ("b32",) * 3, oracle.dp4a(x, y))


def bit_cases():
    logic = {"and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b}
    for t in [*BITS, "pred"]:
        for name, function in logic.items():
            yield plain(f"{name}.{t}", t, (t, t), function)
        ones = 1 if t == "pred" else (1 << oracle.width(t)) - 1
        yield plain(f"not.{t}", t, (t,), lambda a, ones=ones: a ^ ones)
        yield plain(f"mov.{t}", t, (t,), lambda a: a)
    for t in ("and.pred", "or.pred"):
        function = logic[t.split(".")[0]]
        yield Case(f"{t} d, !a, b", "pred", ("pred",) * 2, lambda a, b, f=function: f(1 - a, b))
    for t in [*INTEGERS, "f32", "f64"]:
        yield plain(f"mov.{t}", t, (t,), lambda a: a)
    for t in BITS:
        yield plain(f"shl.{t}", t, (t, "count"), oracle.shift("l", t))
    for t in [*BITS, *INTEGERS]:
        yield plain(f"shr.{t}", t, (t, "count"), oracle.shift("r", t))
    for direction, mode in product("lr", ("wrap", "clamp")):
        yield plain(f"shf.{direction}.{mode}.b32", "b32", ("b32", "b32", "count"), oracle.funnel(direction, mode))
    yield plain("prmt.b32", "b32", ("b32",) * 3, oracle.prmt)
    yield Case("prmt.b32 d, a, b, 0x7531", "b32", ("b32",) * 2, lambda a, b: oracle.prmt(a, b, 0x7531))
    for table in range(256):
        yield Case(f"lop3.b32 d, a, b, c, {table:#x}", "b32", ("b32",) * 3, oracle.lop3(table))
    for t in ("u32", "s32", "u64", "s64"):
        yield plain(f"bfe.{t}", t, (t, "count", "count"), oracle.bfe(t))
        yield plain(f"bfind.{t}", "u32", (t,), oracle.bfind(t, False))
        yield plain(f"bfind.shiftamt.{t}", "u32", (t,), oracle.bfind(t, True))
    for t, n in (("b32", 32), ("b64", 64)):
        yield plain(f"bfi.{t}", t, (t, t, "count", "count"), oracle.bfi(t))
        yield plain(f"popc.{t}", "u32", (t,), lambda a: bin(a).count("1"))
        yield plain(f"clz.{t}", "u32", (t,), lambda a, n=n: n - a.bit_length())
        yield plain(f"brev.{t}", t, (t,), lambda a, n=n: oracle.from_bits(oracle.bits_of(a, n)[::-1]))
    for space, window in (
        ("global", 0),
        ("const", 0),
        ("shared", 0x7F << 56),
        ("local", 0x7E << 56),
        ("param", 0x7D << 56),
    ):
        yield plain(f"cvta.{space}.u64", "u64", ("u64",), lambda a, w=window: oracle.wrap(a + w, "u64"))
        yield plain(f"cvta.to.{space}.u64", "u64", ("u64",), lambda a, w=window: oracle.wrap(a - w, "u64"))


def float_cases():
    for t in ("f32", "f64"):
        for suffix in ("", ".rn", ".rn.sat", ".sat"):
            if suffix.endswith("sat") and t == "f64":
                continue
            sat = suffix.endswith("sat")
            yield plain(f"add{suffix}.{t}", t, (t, t), oracle.fma(t, product=False, saturate=sat))
            yield plain(f"sub{suffix}.{t}", t, (t, t), oracle.fma(t, product=False, negate=True, saturate=sat))
            yield plain(f"mul{suffix}.{t}", t, (t, t), oracle.fma(t, addend=False, saturate=sat))
            if "rn" in suffix:
                yield plain(f"fma{suffix}.{t}", t, (t,) * 3, oracle.fma(t, saturate=sat))
                yield plain(f"mad{suffix}.{t}", t, (t,) * 3, oracle.fma(t, saturate=sat))
        yield plain(f"div.rn.{t}", t, (t, t), oracle.divide(t))
        yield plain(f"rcp.rn.{t}", t, (t,), oracle.reciprocal(t))
        yield plain(f"sqrt.rn.{t}", t, (t,), oracle.square_root(t))
        top = 1 << (oracle.width(t) - 1)
        copy = plain(f"copysign.{t}", t, (t, t), lambda a, b, top=top: a & top | b & ~top)
        yield copy
    for t in ("f32", "f64", "f16", "bf16", "f16x2", "bf16x2"):
        one = t.removesuffix("x2")
        top = 1 << (oracle.width(one) - 1)
        each = oracle.halves if t.endswith("x2") else lambda function: function
        yield plain(f"neg.{t}", t, (t,), each(lambda a, top=top: a ^ top))
        yield plain(f"abs.{t}", t, (t,), each(lambda a, top=top: a & ~top))
        for name in ("min", "max"):
            yield plain(f"{name}.{t}", t, (t, t), each(oracle.extreme(one, name == "max")))
        if t[-2:] in ("32", "64"):
            continue
        yield plain(f"fma.rn.{t}", t, (t,) * 3, each(oracle.fma(one)))
        for rounding in ("", ".rn"):
            yield plain(f"add{rounding}.{t}", t, (t, t), each(oracle.fma(one, product=False)))
            yield plain(f"sub{rounding}.{t}", t, (t, t), each(oracle.fma(one, product=False, negate=True)))
            yield plain(f"mul{rounding}.{t}", t, (t, t), each(oracle.fma(one, addend=False)))


COMPARISONS = {
    "b": ("eq", "ne"),
    "s": ("eq", "ne", "lt", "le", "gt", "ge"),
    "u": ("eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"),
    "f": ("eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"),
}
JOINS = {"and": lambda t, c: t & c, "or": lambda t, c: t | c, "xor": lambda t, c: t ^ c}


def comparison_cases():
    for t in [*BITS, *INTEGERS, "f32", "f64"]:
        for name in COMPARISONS[t[0]]:
            test = oracle.compare(name, t)
            yield plain(f"setp.{name}.{t}", "pred", (t, t), test)
            ones = (1 << 32) - 1
            yield plain(f"set.{name}.u32.{t}", "u32", (t, t), lambda a, b, f=test, o=ones: o * f(a, b))
    for t, name in product(("s32", "u64", "f32"), ("lt", "ne")):
        test = oracle.compare(name, t)
        both = Case(f"setp.{name}.{t} d|d2, a, b", "pred", (t, t), lambda a, b, f=test: (f(a, b), 1 - f(a, b)))
        yield both
        for join, combine in JOINS.items():

            def joined(a, b, c, f=test, g=combine):
                return g(f(a, b), c), g(1 - f(a, b), c)

            def joined_to_not(a, b, c, f=joined):
                return f(a, b, 1 - c)

            yield Case(f"setp.{name}.{join}.{t} d|d2, a, b, c", "pred", (t, t, "pred"), joined)
            yield Case(f"setp.{name}.{join}.{t} d|d2, a, b, !c", "pred", (t, t, "pred"), joined_to_not)
            for to, true in (("f32", 0x3F800000), ("s32", 0xFFFFFFFF)):
                value = lambda a, b, c, f=joined, one=true: one * f(a, b, c)[0]  # noqa: E731
                yield plain(f"set.{name}.{join}.{to}.{t}", to, (t, t, "pred"), value)
    for t in [*BITS, *INTEGERS, "f32", "f64"]:
        yield plain(f"selp.{t}", t, (t, t, "pred"), lambda a, b, c: a if c else b)
        yield plain(f"slct.{t}.s32", t, (t, t, "s32"), lambda a, b, c: b if c >> 31 else a)
        zero_or_more = oracle.compare("ge", "f32")
        yield plain(f"slct.{t}.f32", t, (t, t, "f32"), lambda a, b, c, f=zero_or_more: a if f(c, 0) else b)


def conversion_cases():
    for to, start in product(ALL_INTEGERS, repeat=2):
        # Types of 8 bits live in wider registers: what is above them is not read, and is an extension when written.
        held = [max(16, oracle.width(t)) for t in (to, start)]
        yield plain(f"cvt.{to}.{start}", to, (start,), oracle.convert(to, start), registers=tuple(held))
        low, high = oracle.bounds(start)
        if low < oracle.bounds(to)[0] or high > oracle.bounds(to)[1]:
            saturated = oracle.convert(to, start, saturate=True)
            yield plain(f"cvt.sat.{to}.{start}", to, (start,), saturated, registers=tuple(held))
    for to, start in (("s8", "s16"), ("u8", "s32"), ("s16", "u8"), ("u16", "s8"), ("s32", "s16"), ("s32", "u8")):
        for held in ((32, 32), (64, 32), (32, 64), (64, 64)):
            yield plain(f"cvt.{to}.{start}", to, (start,), oracle.convert(to, start), registers=held)
    for to, start, mode in product(ALL_INTEGERS, ("f16", "bf16", "f32", "f64"), WHOLE_MODES):
        if start == "bf16" and oracle.width(to) == 8:
            continue  # PTX has no such conversion
        held = (max(16, oracle.width(to)), oracle.width(start))
        yield plain(f"cvt.{mode}.{to}.{start}", to, (start,), oracle.convert(to, start, mode), registers=held)
    yield plain("cvt.rni.sat.s8.f32", "s8", ("f32",), oracle.convert("s8", "f32", "rni"), registers=(32, 32))
    for to, start, mode in product(("f16", "bf16", "f32", "f64"), ALL_INTEGERS, MODES):
        held = (oracle.width(to), max(16, oracle.width(start)))
        if (to != "f64" or mode == "rn") and not (to == "bf16" and oracle.width(start) == 8):
            yield plain(f"cvt.{mode}.{to}.{start}", to, (start,), oracle.convert(to, start, mode), registers=held)
    for to, start in (("f32", "f16"), ("f64", "f16"), ("f32", "bf16"), ("f64", "f32"), ("f32", "f32"), ("f64", "f64")):
        yield plain(f"cvt.{to}.{start}", to, (start,), oracle.convert(to, start))
    for to, start in (("f16", "f32"), ("bf16", "f32"), ("f16", "f64"), ("f32", "f64")):
        for mode in MODES:
            yield plain(f"cvt.{mode}.{to}.{start}", to, (start,), oracle.convert(to, start, mode))
    for t, mode in product(("f16", "f32", "f64"), WHOLE_MODES):
        yield plain(f"cvt.{mode}.{t}.{t}", t, (t,), oracle.convert(t, t, mode))
    yield plain("cvt.sat.f32.f32", "f32", ("f32",), oracle.convert("f32", "f32", None, True))
    yield plain("cvt.rn.sat.f32.f64", "f32", ("f64",), oracle.convert("f32", "f64", "rn", True))
    yield plain("cvt.rn.sat.f32.s32", "f32", ("s32",), oracle.convert("f32", "s32", "rn", True))
    for to, mode in product(("f16", "bf16"), ("rn", "rz")):
        yield plain(f"cvt.{mode}.{to}x2.f32", f"{to}x2", ("f32", "f32"), oracle.float_pair(to, mode))
    for to in ("s8", "u8"):
        yield plain(f"cvt.pack.sat.{to}.s32.b32", "b32", ("s32", "s32", "b32"), oracle.pack(to, True))
    for to in ("s16", "u16"):
        yield plain(f"cvt.pack.sat.{to}.s32", "b32", ("s32", "s32"), oracle.pack(to, False))


def cases():
    makers = (integer_cases, bit_cases, float_cases, comparison_cases, conversion_cases)
    return [case for make in makers for case in make()]
