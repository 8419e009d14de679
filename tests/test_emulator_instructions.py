"""The emulator's instructions against ptx_oracle.py, bit by bit: edge values against each other, and random ones.

One generated kernel applies every instruction of ptx_cases.py to arrays, a thread to an element; a test looks at one.
"""

import itertools
import random
import zlib
from functools import cache

import numpy as np
import pytest

from tests.emulator import Module, arithmetic, conversions

from . import ptx_oracle as oracle
from .ptx_cases import cases

CASES = cases()
ELEMENTS = 512
FEWER = 48  # for lop3, whose 256 tables share one function
COUNTS = [
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    17,
    30,
    31,
    32,
    33,
    47,
    63,
    64,
    65,
    127,
    128,
    200,
    255,
    256,
    257,
    1 << 31,
    (1 << 32) - 1,
]
GARBAGE = 0x5AC396A55AC396A5  # in results before, and in registers above narrow sources


def edges(kind):
    """Bits that an instruction might get wrong."""
    if kind == "pred":
        return [0, 1]
    if kind == "count":
        return COUNTS
    if kind.endswith("x2"):
        values = edges(kind.removesuffix("x2"))
        return [high << 16 | low for high, low in zip(values, reversed(values), strict=True)]
    n = oracle.width(kind)
    ones = (1 << n) - 1
    if kind not in oracle.FORMATS:
        small = [0, 1, ones, 1 << (n - 1), ones >> 1, 2, ones - 1, (1 << (n - 1)) + 1, (ones >> 1) - 1, 7]
        return [*small, 0x5555555555555555 & ones, 0x80, 0x7F, 0xFF & ones, ones ^ 0x7F, 1 << (n // 2)]
    exponents, mantissas = oracle.FORMATS[kind]
    infinity = ((1 << exponents) - 1) << mantissas
    one = ((1 << (exponents - 1)) - 1) << mantissas
    unit = 1 << mantissas
    # 0, the ends of the denormals and of the normals, infinity, NaNs, 1 and around it, 1/2, 3/2, 5/2, 2^31
    positive = [0, 1, unit - 1, unit, infinity - 1, infinity, infinity | unit >> 1, infinity | 1, one, one + 1, one - 1]
    positive += [one - unit, one + (unit >> 1), one + unit + (unit >> 2), (one + 31 * unit) & (infinity - 1)]
    return [v | top for v in positive for top in (0, 1 << (n - 1))]


def tie(random):
    """A number halfway between two neighbours of some float format, normal or denormal."""
    if random.random() < 0.2:
        return oracle.Fraction(2 * random.randrange(1 << 10) + 1, 1 << 25)  # of f16's denormals
    digits = random.choice((8, 11, 24, 53))  # of bf16, f16, f32, f64
    return oracle.Fraction(2 * ((1 << (digits - 1)) | random.getrandbits(digits - 1)) + 1)


def draw(kind, random):
    """Random bits, most of them where something may go wrong: small integers, their halves, ties of rounding."""
    if kind == "pred":
        return random.getrandbits(1)
    if kind == "count":
        return random.randrange(72) if random.random() < 0.8 else random.getrandbits(32)
    if kind.endswith("x2"):
        return draw(kind[:-2], random) << 16 | draw(kind[:-2], random)
    choice = random.random()
    if choice < 0.4:
        return random.getrandbits(oracle.width(kind))
    if choice < 0.6:
        value = tie(random) * (1 << random.randrange(12)) * random.choice((1, -1))
        return oracle.wrap(int(value), kind) if kind not in oracle.FORMATS else oracle.encode(value, kind, "z")
    if kind not in oracle.FORMATS:
        return oracle.wrap(random.randrange(-300, 300), kind)
    mantissas = oracle.FORMATS[kind][1]
    if random.random() < 0.5:
        return oracle.encode(oracle.Fraction(random.randrange(-600, 600), 2), kind, "z")
    one = oracle.encode(oracle.Fraction(1), kind)
    size = one + (random.randrange(-mantissas - 3, mantissas + 3) << mantissas) + random.getrandbits(mantissas)
    return size % (1 << (oracle.width(kind) - 1)) | random.getrandbits(1) << (oracle.width(kind) - 1)


@cache
def inputs(kinds):
    """ELEMENTS tuples of bits for sources of these types; the first have zeros of both signs."""
    rng = random.Random(zlib.crc32(" ".join(kinds).encode()))
    crossed = list(itertools.product(*map(edges, kinds)))
    rng.shuffle(crossed)
    zeros = list(itertools.product(*(edges(kind)[:2] for kind in kinds)))
    chosen = zeros + crossed[: ELEMENTS * 5 // 8]
    return chosen + [tuple(draw(kind, rng) for kind in kinds) for _ in range(ELEMENTS - len(chosen))]


def held(case, place):
    """Bits of the register for the result (place 0) or a source (1, ...)."""
    kind = case.to if place == 0 else case.sources[place - 1]
    if kind == "pred":
        return "pred"
    if case.registers:
        return case.registers[place]
    return 32 if kind == "count" else oracle.width(kind)


def operand(text, names):
    """An operand of a case in registers: a, !a, d|d2 or a literal."""
    if "|" in text:
        return "|".join(names[each] for each in text.split("|"))
    return "!" * text.startswith("!") + names.get(text.lstrip("!"), text)


def build():
    """The kernel's text, its memory, and where each case's results begin."""
    arrays, places, text, results = [], {}, [], []

    def place(values):
        arrays.append(np.array(values, np.uint64))
        return (len(arrays) - 1) * ELEMENTS * 8

    for case in CASES:
        names = {}
        for i, name in enumerate("abce"[: len(case.sources)]):
            kind, bits = case.sources[i], held(case, i + 1)
            key = case.sources, i
            if key not in places:
                n = 1 if kind == "pred" else 32 if kind == "count" else oracle.width(kind)
                above = GARBAGE >> n << n
                places[key] = place([values[i] | (0 if kind == "pred" else above) for values in inputs(case.sources)])
            if kind == "pred":
                text.append(f"ld.global.b32 %w9, [%at+{places[key]}]; setp.ne.b32 %p{i}, %w9, 0;")
                names[name] = f"%p{i}"
            else:
                names[name] = f"%{'hwd'[bits // 32]}{i}"
                text.append(f"ld.global.b{bits} {names[name]}, [%at+{places[key]}];")
        bits, results_at = held(case, 0), place([GARBAGE] * ELEMENTS)
        names |= {"d": "%p8" if bits == "pred" else f"%{'hwd'[bits // 32]}8", "d2": "%p7"}
        opcode, operands = case.text.split(" ", 1)
        if bits != "pred":
            text.append(f"mov.b{bits} {names['d']}, {GARBAGE & ((1 << bits) - 1):#x};")
        text.append(f"{opcode} {', '.join(operand(each, names) for each in operands.split(', '))};")
        if bits == "pred":
            second = ["selp.b32 %w7, 2, 0, %p7; or.b32 %w8, %w8, %w7;"] if "d2" in operands else []
            text += ["selp.b32 %w8, 1, 0, %p8;", *second, f"st.global.b32 [%at+{results_at}], %w8;"]
        else:
            text.append(f"st.global.b{bits} [%at+{results_at}], {names['d']};")
        results.append(results_at // 8)
    head = ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 x)\n{\n"
    head += ".reg .pred %p<10>; .reg .b16 %h<10>; .reg .b32 %w<10>; .reg .b64 %d<10>; .reg .b64 %at, %n;\n"
    head += ".reg .b32 %t, %c;\nmov.u32 %t, %ctaid.x; mov.u32 %c, %tid.x; shl.b32 %t, %t, 7; add.u32 %t, %t, %c;\n"
    head += "mul.wide.u32 %n, %t, 8; ld.param.u64 %at, [x]; add.s64 %at, %at, %n;\n"
    return head + "\n".join(text) + "\nret;\n}\n", np.concatenate(arrays), results


@cache
def outcome():
    text, memory, places = build()
    result = Module.from_ptx(text, "sm_90").launch("k", grid=ELEMENTS // 128, block=128, args=[memory])
    assert {report.kind for report in result.reports} <= {"contractible pair"}, result.reports
    return memory, places


def agrees(expected, got, kind, bits):
    """Whether a register has the expected bits; of narrow integers, with their extension to its width."""
    if isinstance(expected, list):
        one = kind.removesuffix("x2")
        return all(agrees(e, got >> at & 0xFFFF, one, 16) for e, at in zip(expected, (0, 16), strict=True))
    if expected == oracle.NAN:
        return oracle.decode(got, kind) is None
    if isinstance(expected, tuple):
        return got == expected[0] | expected[1] << 1
    if kind != "pred" and kind not in oracle.FORMATS:
        expected = oracle.as_integer(expected, kind) & ((1 << bits) - 1)
    return got == expected


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{i}:{c.text}" for i, c in enumerate(CASES)])
def test_instruction(number):
    case = CASES[number]
    memory, places = outcome()
    bits = 32 if held(case, 0) == "pred" else held(case, 0)
    count = FEWER if case.opcode == "lop3.b32" else ELEMENTS
    for values, got in zip(inputs(case.sources)[:count], memory[places[number] :].tolist(), strict=False):
        expected = case.function(*values)
        shown = " ".join(f"{v:#x}" for v in values)
        assert agrees(expected, got & ((1 << bits) - 1), case.to, bits), (
            f"{case.text}: {shown} -> {got:#x}, not {expected}"
        )


def test_every_pattern_has_a_case():
    tried = {case.opcode for case in CASES}
    for pattern, _ in [*arithmetic.TABLE, *conversions.TABLE]:
        assert any(pattern.fullmatch(opcode) for opcode in tried), pattern.pattern
