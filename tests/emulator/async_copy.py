"""cp.async: copies from global to shared memory that land later, in groups that are waited for."""

import re

from .memory_access import declare_address
from .ptx import Immediate, Negated, Register

COPY = re.compile(
    r"cp\.async\.(?P<cache>ca|cg)\.shared(?:::cta)?\.global(?P<hint>\.L2::cache_hint)?(?:\.L2::(?:64B|128B|256B))?"
)
SIZES = {"ca": (4, 8, 16), "cg": (16,)}


def lower_copy(b, match):
    """cp.async [to], [from], size{, bytes to read | predicate: read none}{, cache policy}."""
    operands = list(b.instruction.operands)
    if match["hint"] and len(operands) > 3:
        operands.pop()  # a policy says how long to cache: time, not values
    if not 3 <= len(operands) <= 4 or not isinstance(operands[2], Immediate):
        raise b.error("addresses, a literal size and perhaps what is read of it were expected")
    to, start, size, *reads = operands
    if size.value not in SIZES[match["cache"]]:
        raise b.error(f"{match['cache']} copies {' or '.join(map(str, SIZES[match['cache']]))} bytes")
    declare_address(b, to, "to_")
    declare_address(b, start)
    reading = f"constexpr uint32_t reading = {size.value};"
    if reads and _is_predicate(b, reads[0]):
        b.source("ignored", reads[0], "pred")
        reading = f"const uint32_t reading = ignored ? 0 : {size.value};"
    elif reads:
        b.source("reading", reads[0], "b32")
        reading = ""
    b.before.append("uint32_t sizes[kLanes] = {};")
    body = f"{reading} sizes[lane] = start_copy(w, lane, to_address, address, {size.value}, reading);"
    b.after.append("count_copies(w, addresses, sizes);")
    return b.lanes(f"cp.async.{match['cache']} {size.value}", body)


def _is_predicate(b, operand):
    if isinstance(operand, Negated):
        return True
    return isinstance(operand, Register) and b.context.registers.get(operand.name, ("",))[0] == "p"


def lower_commit(b, match):
    b.operands(0)
    return b.function("cp.async.commit_group", "commit_copies(w);")


def literal_groups(b):
    (pending,) = b.operands(1)
    if not isinstance(pending, Immediate) or pending.value < 0:
        raise b.error("a literal number of groups was expected")
    return f"static_cast<size_t>(c.operand[{b.slot('i', pending.value)}])"


def lower_wait_group(b, match):
    return b.function("cp.async.wait_group", f"wait_for_copies(w, {literal_groups(b)});")


def lower_wait_all(b, match):
    """As commit_group and wait_group 0: PTX ISA, "cp.async.wait_all"."""
    b.operands(0)
    return b.function("cp.async.wait_all", "commit_copies(w); wait_for_copies(w, 0);")


TABLE = [
    (COPY, lower_copy),
    (re.compile(r"cp\.async\.commit_group"), lower_commit),
    (re.compile(r"cp\.async\.wait_group"), lower_wait_group),
    (re.compile(r"cp\.async\.wait_all"), lower_wait_all),
]
