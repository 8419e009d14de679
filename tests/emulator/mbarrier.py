"""mbarrier: barriers in shared memory that count arrivals of threads and bytes of copies."""

import re

from .memory_access import declare_address

SPACE = r"(?P<space>\.shared(?:::(?:cta|cluster))?)?"
RELEASES = r"(?:\.(?P<order>release|relaxed))?(?:\.(?:cta|cluster))?"
ACQUIRES = r"(?:\.(?P<order>acquire|relaxed))?(?:\.(?:cta|cluster))?"


def mbarrier_address(b, match, operand, prefix=""):
    """Declares `address`, or one with a prefix, in shared memory; without a space an address is generic."""
    declare_address(b, operand, prefix)
    return f"{prefix}address" if match["space"] else f"({prefix}address - kSharedWindow)"


def lower_init(b, match):
    address, count = b.operands(2)
    where = mbarrier_address(b, match, address)
    b.source("count", count, "u32")
    return b.lanes(f"mbarrier.init{match['space']}", f"init_mbarrier(w, lane, {where}, count);")


def lower_inval(b, match):
    (address,) = b.operands(1)
    where = mbarrier_address(b, match, address)
    return b.lanes(f"mbarrier.inval{match['space']}", f"invalidate_mbarrier(w, lane, {where});")


def lower_transactions(b, match):
    address, count = b.operands(2)
    where = mbarrier_address(b, match, address)
    b.source("count", count, "u32")
    sign = "-" if match["kind"] == "complete_tx" else ""
    body = f"expect_transactions(w, lane, {where}, {sign}static_cast<int64_t>(count));"
    return b.lanes(f"mbarrier.{match['kind']}{match['space']}", body)


def lower_arrive(b, match):
    state, address, *numbers = b.instruction.operands
    expects = bool(match["expects"])
    if len(numbers) > 1 or (len(numbers) == 0 and (expects or match["incomplete"])):
        raise b.error("a state, an address and a count were expected")
    b.destination("state", state, "b64")
    where = mbarrier_address(b, match, address)
    if numbers:
        b.source("number", numbers[0], "u32")
    how = [
        *((".bytes = number",) if expects else (".count = number",) if numbers else ()),
        *((".releases = false",) if match["order"] == "relaxed" else ()),
        *((".drops = true",) if match["drops"] else ()),
        *((".may_complete = false",) if match["incomplete"] else ()),
    ]
    body = f"const uint64_t state = arrive(w, lane, {where}, {{{', '.join(how)}}});"
    return b.lanes(b.instruction.opcode, body)


def lower_wait(b, match):
    complete, address, phase, *hint = b.instruction.operands
    if len(hint) > (match["kind"] == "try_wait"):
        raise b.error("a predicate, an address and a phase were expected")
    parity = bool(match["parity"])
    b.destination("complete", complete, "pred")
    where = mbarrier_address(b, match, address)
    b.source("phase", phase, "u32" if parity else "b64")
    b.before.append("uint64_t barriers[kLanes] = {}, phases[kLanes] = {};")
    flags = ", ".join("true" if each else "false" for each in (parity, match["order"] != "relaxed"))
    # How long a try_wait may sleep says nothing about what it returns.
    return b.together(
        f"mbarrier.wait{match['space']} {flags}",
        f"barriers[lane] = {where}; phases[lane] = phase;",
        f"const uint32_t all_complete = wait_for_phases(w, barriers, phases, {flags});",
        "const bool complete = all_complete >> lane & 1;",
    )


TABLE = [
    (re.compile(rf"mbarrier\.init{SPACE}\.b64"), lower_init),
    (re.compile(rf"mbarrier\.inval{SPACE}\.b64"), lower_inval),
    (
        re.compile(rf"mbarrier\.(?P<kind>expect_tx|complete_tx)(?:\.relaxed)?(?:\.(?:cta|cluster))?{SPACE}\.b64"),
        lower_transactions,
    ),
    (
        re.compile(
            rf"mbarrier\.arrive(?P<drops>_drop)?(?:(?P<expects>\.expect_tx)|(?P<incomplete>\.noComplete))?{RELEASES}{SPACE}\.b64"
        ),
        lower_arrive,
    ),
    (re.compile(rf"mbarrier\.(?P<kind>test_wait|try_wait)(?P<parity>\.parity)?{ACQUIRES}{SPACE}\.b64"), lower_wait),
]
