"""What each PTX instruction does, as C++: one function for each signature, an opcode with the kinds of its operands.

An opcode, modifier or operand that no table describes is an error that quotes the line: never a guess.
"""

from . import (
    arithmetic,
    async_copy,
    bulk_copy,
    control,
    conversions,
    hopper,
    mbarrier,
    memory_access,
    refusals,
    tensor_core,
    wgmma,
)
from .lowering import Builder

MODULES = (
    *(refusals, arithmetic, conversions, memory_access, async_copy, bulk_copy, mbarrier, tensor_core, wgmma),
    *(hopper, control),
)
TABLES = [module.TABLE for module in MODULES]


def lower(instruction, context):
    """A parsed Instruction as Lowered: its signature, the C++ that carries it out, and this instruction's numbers."""
    builder = Builder(instruction, context)
    for table in TABLES:
        for pattern, make in table:
            match = pattern.fullmatch(instruction.opcode)
            if match:
                return make(builder, match)
    raise builder.error(f"unknown instruction {instruction.opcode!r}")
