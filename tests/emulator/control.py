"""Branches, barriers and fences, and what the lanes of a warp do together."""

import re

from .lowering import MAX_OPERANDS, TYPES
from .ptx import Immediate, Pair, Register


def lower_branch(b, match):
    (label,) = b.operands(1)
    lowered = b.function("branch", "", "branch")
    lowered.target = label.name
    return lowered


def lower_exit(b, match):
    return b.function("exit", "", "exit")


def lower_barrier(b, match):
    numbers = []
    for operand in b.instruction.operands:
        if not isinstance(operand, Immediate):
            raise b.error("a barrier's number and count must be literals")
        numbers.append(operand.value)
    if not 1 <= len(numbers) <= 2 or not 0 <= numbers[0] < 16:
        raise b.error("a barrier has a number below 16 and perhaps a count")
    if len(numbers) == 2 and (numbers[1] <= 0 or numbers[1] % 32):
        raise b.error("a barrier's count must be a positive multiple of 32")
    arrives = match["kind"] == "arrive"
    if arrives and len(numbers) == 1:
        raise b.error("an arrival needs a count")
    lowered = b.function("barrier", "", "barrier")
    lowered.operands = [numbers[0], numbers[1] if len(numbers) == 2 else 0, int(arrives)]
    return lowered


def lower_warp_sync(b, match):
    (members,) = b.operands(1)
    return with_members(b, b.function("bar.warp.sync", "order_warp(w);", "warp sync"), members)


def with_members(b, lowered, members):
    """The lanes that must meet at the instruction: the last two numbers are a literal mask and a register or -1."""
    register, literal = -1, 0
    if isinstance(members, Immediate):
        literal = members.value & 0xFFFFFFFF
    elif isinstance(members, Register) and b.context.registers[members.name][0] == "r32":
        register = b.context.registers[members.name][1]
    else:
        raise b.error("a mask of lanes must be a literal or a register of 32 bits")
    lowered.flow = "warp sync"
    lowered.operands = [*lowered.operands, *[0] * (MAX_OPERANDS - 2 - len(lowered.operands)), literal, register]
    return lowered


def lower_nothing(b, match):
    """Fences: the machine's memory is always coherent; what they order is not checked yet."""
    return b.function("nothing", "")


# Exchanges between lanes. They order no memory accesses: bar.warp.sync does.


def lower_shuffle(b, match):
    destination, value, by, limits, members = b.operands(5)
    in_range = None
    if isinstance(destination, Pair):
        destination, in_range = destination.first, destination.second
    b.destination("d", destination, "b32")
    if in_range is not None:
        b.destination("p", in_range, "pred")
    for name, operand in (("a", value), ("by", by), ("limit", limits), ("m", members)):
        b.source(name, operand, "b32")
    b.before.append(
        "uint32_t values[kLanes] = {}, steps[kLanes] = {}, limits[kLanes] = {}, members[kLanes] = {}, results[kLanes];"
    )
    lowered = b.together(
        f"shfl.sync.{match['mode']}",
        "values[lane] = a; steps[lane] = by; limits[lane] = limit; members[lane] = m;",
        f"const uint32_t inside = shuffle<Shuffle::k{match['mode'].title()}>"
        "(w, values, steps, limits, members, results);",
        "const uint32_t d = results[lane]; const bool p = inside >> lane & 1;",
    )
    return with_members(b, lowered, members)


VOTES = {
    "any": "votes != 0",
    "all": "votes == voters",
    "uni": "votes == 0 || votes == voters",
    "ballot": "votes",
}


def lower_vote(b, match):
    mode = match["mode"]
    destination, value, members = b.operands(3)
    if (mode == "ballot") != (match["t"] == "b32"):
        raise b.error("vote.sync.ballot gives .b32, the others .pred")
    b.destination("d", destination, match["t"])
    b.source("a", value, "pred")
    b.source("m", members, "b32")
    b.before.append("uint32_t members[kLanes] = {}, all_votes = 0;")
    cpp = "uint32_t" if mode == "ballot" else "bool"
    lowered = b.together(
        f"vote.sync.{mode}",
        "members[lane] = m; all_votes |= static_cast<uint32_t>(a) << lane;",
        "check_members(w, members);",
        "const uint32_t voters = w.mask & members[lane]; const uint32_t votes = all_votes & voters; "
        f"const {cpp} d = {VOTES[mode]};",
    )
    return with_members(b, lowered, members)


REDUCTIONS = {
    "add": "static_cast<uint32_t>(x) + static_cast<uint32_t>(y)",
    "min": "x < y ? x : y",
    "max": "x > y ? x : y",
    "and": "x & y",
    "or": "x | y",
    "xor": "x ^ y",
}


def lower_reduction(b, match):
    operation, kind = match["op"], match["t"]
    if (operation in ("and", "or", "xor")) != (kind == "b32"):
        raise b.error("unknown reduction")
    destination, value, members = b.operands(3)
    b.destination("d", destination, kind)
    b.source("a", value, kind)
    b.source("m", members, "b32")
    cpp = TYPES[kind][0]
    b.before.append(f"{cpp} values[kLanes] = {{}}, results[kLanes]; uint32_t members[kLanes] = {{}};")
    lowered = b.together(
        f"redux.sync.{operation}.{kind}",
        "values[lane] = a; members[lane] = m;",
        f"reduce(w, values, members, results, []({cpp} x, {cpp} y) {{ return {REDUCTIONS[operation]}; }});",
        f"const {cpp} d = results[lane];",
    )
    return with_members(b, lowered, members)


def lower_active_mask(b, match):
    (destination,) = b.operands(1)
    b.destination("d", destination, "b32")
    return b.lanes("activemask", "const uint32_t d = w.mask;")


TABLE = [
    (re.compile(r"bra(\.uni)?"), lower_branch),
    (re.compile(r"(?:ret|exit)(?:\.uni)?"), lower_exit),
    (re.compile(r"(?:bar(?:\.cta)?|barrier(?:\.cta)?)\.(?P<kind>sync|arrive)(?:\.aligned)?"), lower_barrier),
    (re.compile(r"bar\.warp\.sync"), lower_warp_sync),
    (re.compile(r"shfl\.sync\.(?P<mode>up|down|bfly|idx)\.b32"), lower_shuffle),
    (re.compile(r"vote\.sync\.(?P<mode>any|all|uni|ballot)\.(?P<t>pred|b32)"), lower_vote),
    (re.compile(r"redux\.sync\.(?P<op>add|min|max|and|or|xor)\.(?P<t>[sub]32)"), lower_reduction),
    (re.compile(r"activemask\.b32"), lower_active_mask),
    (re.compile(r"membar\.(?:cta|gl|sys)"), lower_nothing),
    (re.compile(r"fence(?:\.(?:sc|acq_rel|acquire|release))?\.(?:cta|cluster|gpu|sys)"), lower_nothing),
]
