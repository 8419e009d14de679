"""Loads, stores and atomic operations."""

import re

from .lowering import TYPES
from .ptx import Address, Register, Symbol, Vector

LOAD = re.compile(
    r"ld(?:\.(?:volatile|relaxed|acquire|weak|cta|gpu|sys))*(?:\.(?P<space>global|shared(?:::cta)?|local|param|const))?"
    r"(?P<cache>(?:\.(?:nc|ca|cg|cs|lu|cv|L1::\w+|L2::\w+))*)(?:\.v(?P<n>2|4))?\.(?P<t>[busf](?:8|16|32|64))"
)
STORE = re.compile(
    r"st(?:\.(?:volatile|relaxed|release|weak|cta|gpu|sys))*(?:\.(?P<space>global|shared(?:::cta)?|local))?"
    r"(?P<cache>(?:\.(?:wb|cg|cs|wt|L1::\w+|L2::\w+))*)(?:\.v(?P<n>2|4))?\.(?P<t>[busf](?:8|16|32|64))"
)
SPACES = {"global": "kGlobal", "shared": "kShared", "shared::cta": "kShared", "local": "kLocal", "param": "kParam"}


def declare_address(b, operand, prefix=""):
    """Declares `address` for each lane, and `addresses` of all, with a prefix where an instruction has two."""
    if not isinstance(operand, Address):
        raise b.error("an address was expected")
    offset = operand.offset
    if isinstance(operand.base, Symbol):
        if operand.base.name not in b.context.symbols:
            raise b.error(f"unknown symbol {operand.base.name!r}")
        offset += b.context.symbols[operand.base.name]
    if isinstance(operand.base, Register):
        where, at = b.register(operand.base)
        width = {"r32": 32, "r64": 64}.get(where)
        if width is None:
            raise b.error("an address must be in a register of 32 or 64 bits")
        b.before.append(f"const uint{width}_t* {prefix}base_ = w.at{width}(c.operand[{at}]);")
        base = f"{prefix}base_[lane] + "
        wrap = "static_cast<uint32_t>" if width == 32 else ""  # as the address itself would in its register
    else:
        base = wrap = ""
    at = b.slot("i", offset)
    b.before.append(f"const uint64_t {prefix}offset = static_cast<uint64_t>(c.operand[{at}]);")
    b.before.append(f"uint64_t {prefix}addresses[kLanes] = {{}};")
    b.inside.append(f"const uint64_t {prefix}address = {wrap}({base}{prefix}offset);")
    b.inside.append(f"{prefix}addresses[lane] = {prefix}address;")


def _space(b, match):
    space = match["space"]
    if space == "const":
        raise b.error("constant memory is not emulated")
    return f"Space::{SPACES[space] if space else 'kGeneric'}"


def lower_load(b, match):
    destination, address = b.operands(2)
    count = int(match["n"] or 1)
    elements = destination.elements if isinstance(destination, Vector) else (destination,)
    if len(elements) != count:
        raise b.error(f"{count} destinations expected")
    space = _space(b, match)
    for i, element in enumerate(elements):
        b.destination(f"d{i}", element, match["t"])
    declare_address(b, address)
    cpp, width = TYPES[match["t"]]
    size = width // 8 * count
    body = f"{cpp} value[{count}]; load_bytes<{space}>(w, lane, address, {size}, value); "
    body += " ".join(f"const {cpp} d{i} = value[{i}];" for i in range(count))
    b.after.append(f"count_access<{space}>(w, addresses, {size});")
    return b.lanes(f"ld.{match['space']}.v{count}.{match['t']}", body)


def lower_store(b, match):
    address, source = b.operands(2)
    count = int(match["n"] or 1)
    elements = source.elements if isinstance(source, Vector) else (source,)
    if len(elements) != count:
        raise b.error(f"{count} sources expected")
    space = _space(b, match)
    declare_address(b, address)
    for i, element in enumerate(elements):
        b.source(f"a{i}", element, match["t"])
    cpp, width = TYPES[match["t"]]
    size = width // 8 * count
    values = ", ".join(f"a{i}" for i in range(count))
    body = f"const {cpp} value[{count}] = {{{values}}}; store_bytes<{space}>(w, lane, address, {size}, value);"
    b.after.append(f"count_access<{space}>(w, addresses, {size});")
    return b.lanes(f"st.{match['space']}.v{count}.{match['t']}", body)


# What an operation makes of the value in memory, `old`, and its operands a and b, for which types.
CHANGES = {
    "add": (("u32", "s32", "u64", "f32", "f64"), "old + a"),
    "min": (("u32", "s32", "u64", "s64"), "old < a ? old : a"),
    "max": (("u32", "s32", "u64", "s64"), "old > a ? old : a"),
    "and": (("b32", "b64"), "old & a"),
    "or": (("b32", "b64"), "old | a"),
    "xor": (("b32", "b64"), "old ^ a"),
    "exch": (("b32", "b64"), "a"),
    "cas": (("b32", "b64"), "old == a ? b : old"),
    "inc": (("u32",), "old >= a ? 0 : old + 1"),
    "dec": (("u32",), "old == 0 || old > a ? a : old - 1"),
}


def lower_atomic(b, match):
    operation, kind, space = match["op"], match["t"], _space(b, match)
    types, change = CHANGES[operation]
    returns = match["kind"] == "atom"
    if kind not in types or (not returns and operation in ("exch", "cas")):
        raise b.error("unknown atomic operation")
    two = operation == "cas"
    operands = list(b.operands(2 + returns + two))
    if returns:
        b.destination("d", operands.pop(0), kind)
    declare_address(b, operands[0])
    b.source("a", operands[1], kind)
    if two:
        b.source("b", operands[2], kind)
    cpp, width = TYPES[kind]
    if operation == "add":  # integers wrap
        unsigned = f"uint{width}_t"
        change = (
            "add_in_memory(old, a, global)"
            if kind[0] == "f"
            else f"static_cast<{cpp}>(static_cast<{unsigned}>(old) + static_cast<{unsigned}>(a))"
        )
    body = (
        f"const {cpp} d = update<{space}, {cpp}>(w, lane, address, "
        f"[&]({cpp} old, bool global) {{ return static_cast<{cpp}>({change}); }});"
    )
    b.after.append(f"count_access<{space}>(w, addresses, {width // 8});")
    return b.lanes(f"{match['kind']}.{match['space']}.{operation}.{kind}", body)


ATOMIC = re.compile(
    r"(?P<kind>atom|red)(?:\.(?:relaxed|acquire|release|acq_rel))?(?:\.(?:cta|cluster|gpu|sys))?"
    rf"(?:\.(?P<space>global|shared(?:::cta)?))?\.(?P<op>{'|'.join(CHANGES)})\.(?P<t>[busf](?:32|64))"
)
TABLE = [(LOAD, lower_load), (STORE, lower_store), (ATOMIC, lower_atomic)]
