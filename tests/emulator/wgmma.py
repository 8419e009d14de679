"""wgmma: four warps multiply 8-bit matrices that lie in shared memory, beside the threads."""

import re

from .async_copy import literal_groups
from .control import with_members
from .ptx import Immediate, Register, Vector
from .tensor_core import ALL_LANES

COLUMNS = (8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256)


def _numbers(b, operand, count, writes):
    if not isinstance(operand, Vector) or len(operand.elements) != count:
        raise b.error(f"{count} registers expected")
    numbers = []
    for register in operand.elements:
        kind, number = b.context.registers.get(register.name, ("", 0)) if isinstance(register, Register) else ("", 0)
        if kind != "r32":
            raise b.error("a fragment is made of registers of 32 bits")
        numbers.append(2 * number + writes)
    return numbers


def _by_the_warp(b, signature, call):
    text = "\n  ".join([*b.before, call])
    return with_members(b, b.function(signature, text, "warp sync"), ALL_LANES)


def lower_multiply(b, match):
    sums, a, columns, adds = b.operands(4)
    n = int(match["n"])
    if n not in COLUMNS:
        raise b.error(f"unknown shape: n must be one of {COLUMNS}")
    fragment = _numbers(b, sums, n // 2, True)
    if len(set(fragment)) != len(fragment):
        raise b.error("a register is two of the sums")
    in_registers = isinstance(a, Vector)
    if not isinstance(columns, Register) or not isinstance(a, (Register, Vector)):
        raise b.error("a descriptor is a register of 64 bits")
    if in_registers:
        fragment += _numbers(b, a, 4, False)
        b.before.append("const uint64_t* a_ = nullptr;")
    else:
        b.source("a", a, "b64")
    b.source("b", columns, "b64")
    b.before.append(_adds(b, adds))
    flags = (match["a"] == "s8", match["b"] == "s8", bool(match["sat"]), in_registers)
    at = [b.slot("i", int(each)) for each in (n, *flags)]  # numbers, so that one function is all shapes'
    shape = f"static_cast<int>(c.operand[{at[0]}]), " + ", ".join(f"c.operand[{each}] != 0" for each in at[1:])
    signature = f"wgmma.mma_async {'registers' if in_registers else 'descriptor'}"
    lowered = _by_the_warp(b, signature, f"multiply_by_warpgroup(w, c, {{{shape}}}, a_, b_, adds);")
    lowered.fragment = fragment
    return lowered


def _adds(b, operand):
    if isinstance(operand, Immediate):
        return f"const uint32_t adds = c.operand[{b.slot('i', operand.value)}] != 0 ? kAllLanes : 0;"
    where, at = b.register(operand)
    if where != "p":
        raise b.error("a predicate was expected")
    return f"const uint32_t adds = w.predicate[c.operand[{at}]];"


def lower_fence(b, match):
    b.operands(0)
    return _by_the_warp(b, "wgmma.fence", "fence_registers(w);")


def lower_commit(b, match):
    b.operands(0)
    return _by_the_warp(b, "wgmma.commit_group", "commit_multiplications(w);")


def lower_wait(b, match):
    return _by_the_warp(b, "wgmma.wait_group", f"wait_for_multiplications(w, {literal_groups(b)});")


TABLE = [
    (
        re.compile(
            r"wgmma\.mma_async\.sync\.aligned\.m64n(?P<n>\d+)k32(?P<sat>\.satfinite)?\.s32\.(?P<a>[su]8)\.(?P<b>[su]8)"
        ),
        lower_multiply,
    ),
    (re.compile(r"wgmma\.fence\.sync\.aligned"), lower_fence),
    (re.compile(r"wgmma\.commit_group\.sync\.aligned"), lower_commit),
    (re.compile(r"wgmma\.wait_group\.sync\.aligned"), lower_wait),
]
