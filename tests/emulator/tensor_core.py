"""mma, ldmatrix and stmatrix: what a warp does as one on matrices of codes."""

import re

from .control import with_members
from .memory_access import declare_address
from .ptx import Immediate, Register, Vector

MMA = re.compile(
    r"mma\.sync\.aligned\.m(?P<m>8|16)n8k(?P<k>16|32)\.row\.col(?P<sat>\.satfinite)?"
    r"\.s32\.(?P<a>[su]8)\.(?P<b>[su]8)\.s32"
)
SHAPES = ((8, 16), (16, 16), (16, 32))
LDMATRIX = re.compile(r"ldmatrix\.sync\.aligned\.m8n8\.x(?P<n>[124])(?P<trans>\.trans)?\.shared(?:::cta)?\.b16")
STMATRIX = re.compile(r"stmatrix\.sync\.aligned\.m8n8\.x(?P<n>[124])(?P<trans>\.trans)?\.shared(?:::cta)?\.b16")
ALL_LANES = Immediate(0xFFFFFFFF)
BYTES = {"s8": "int8_t", "u8": "uint8_t"}


def _fragment(b, name, operand, count, element="const uint32_t"):
    """Declares `name`, pointers to a fragment's registers."""
    elements = operand.elements if isinstance(operand, Vector) else (operand,)
    if len(elements) != count:
        raise b.error(f"a fragment of {count} registers expected, got {len(elements)}")
    pointers = []
    for register in elements:
        if not isinstance(register, Register) or register.name == "_":
            raise b.error("a fragment is made of registers")
        where, at = b.register(register, writes=element == "uint32_t")
        if where != "r32":
            raise b.error("a fragment's registers have 32 bits")
        pointers.append(f"w.at32(c.operand[{at}])")
    b.before.append(f"{element}* const {name}[] = {{{', '.join(pointers)}}};")


def _by_the_warp(b, signature, call):
    """Lanes wait for each other, as .sync asks; unlike bar.warp.sync it orders no memory."""
    text = "\n  ".join([*b.before, call])
    return with_members(b, b.function(signature, text, "warp sync"), ALL_LANES)


def lower_mma(b, match):
    m, k = int(match["m"]), int(match["k"])
    if (m, k) not in SHAPES:
        raise b.error("unknown shape")
    d, a, columns, start = b.operands(4)
    _fragment(b, "to", d, m // 4, "uint32_t")
    _fragment(b, "rows", a, m * k // 128)
    _fragment(b, "columns", columns, k // 16)
    _fragment(b, "start", start, m // 4)
    types = f"{BYTES[match['a']]}, {BYTES[match['b']]}, {m}, {k}, {'true' if match['sat'] else 'false'}"
    return _by_the_warp(b, b.instruction.opcode, f"multiply_matrices<{types}>(w, to, rows, columns, start);")


def lower_ldmatrix(b, match):
    d, address = b.operands(2)
    _fragment(b, "to", d, int(match["n"]), "uint32_t")
    declare_address(b, address)
    every_lane = " ".join(["for (int lane = 0; lane < kLanes; ++lane) {", *b.inside, "}"])
    every_address = b.context.target <= 75
    types = ", ".join([match["n"], *("true" if each else "false" for each in (match["trans"], every_address))])
    signature = b.instruction.opcode + (" every address" if every_address else "")
    return _by_the_warp(b, signature, f"{every_lane}\n  load_matrices<{types}>(w, to, addresses);")


def lower_stmatrix(b, match):
    address, a = b.operands(2)
    declare_address(b, address)
    _fragment(b, "from", a, int(match["n"]))
    every_lane = " ".join(["for (int lane = 0; lane < kLanes; ++lane) {", *b.inside, "}"])
    types = f"{match['n']}, {'true' if match['trans'] else 'false'}"
    return _by_the_warp(b, b.instruction.opcode, f"{every_lane}\n  store_matrices<{types}>(w, from, addresses);")


TABLE = [(MMA, lower_mma), (LDMATRIX, lower_ldmatrix), (STMATRIX, lower_stmatrix)]
