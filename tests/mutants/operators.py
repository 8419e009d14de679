"""What makes mutants: each operator looks at every instruction of a kernel and says what it would make of it.

They work on parsed PTX, so that one kernel is read once and not once for each of a thousand mutants.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.emulator.ptx import TYPE_SIZES, Address, Immediate, Instruction, Pair, Register, Symbol, Vector

SHARED_STEP = 16  # bytes by which dynamic shared memory shrinks


@dataclass(frozen=True)
class Mutant:
    operator: str
    at: int  # the instruction's number, -1 where it is not of one instruction
    ptx: str  # the line of PTX that changes
    source: tuple  # its file and line
    change: str
    apply: Callable  # parsed kernel -> parsed kernel
    new: Instruction | None = None  # what stands in the instruction's place
    less_shared: int = 0  # bytes that its launches get less of dynamic shared memory


def mutants_of(kernel, dynamic_shared=False):
    """Every mutant of a parsed kernel."""
    addresses = registers_of_addresses(kernel)
    for at, instruction in enumerate(kernel.instructions):
        for operator, make in OPERATORS.items():
            for change, new in make(instruction, addresses):
                apply = _deleting(at) if new is None else _replacing(at, new)
                yield Mutant(operator, at, instruction.text, instruction.source, change, apply, new)
    yield from _shrunk_arrays(kernel)
    if dynamic_shared:
        change = f"{SHARED_STEP} bytes less of dynamic shared memory"
        yield Mutant("shrink shared", -1, "", ("", 0), change, lambda kernel: kernel, less_shared=SHARED_STEP)


def _replacing(at, new):
    def apply(kernel):
        return replace(kernel, instructions=[*kernel.instructions[:at], new, *kernel.instructions[at + 1 :]])

    return apply


def _deleting(at):
    def apply(kernel):
        instructions = [*kernel.instructions[:at], *kernel.instructions[at + 1 :]]
        labels = {name: place - (place > at) for name, place in kernel.labels.items()}
        return replace(kernel, instructions=instructions, labels=labels)

    return apply


def _shrunk_arrays(kernel):
    for number, variable in enumerate(kernel.variables):
        if variable.space != "shared" or variable.size == 0:
            continue
        for size in sorted({variable.size - variable.align, variable.size // 2} - {variable.size}):

            def apply(kernel, number=number, smaller=replace(variable, size=size)):
                variables = [*kernel.variables[:number], smaller, *kernel.variables[number + 1 :]]
                return replace(kernel, variables=variables)

            change = f"{size} of {variable.size} bytes"
            yield Mutant("shrink shared", -1, f".shared {last_name(variable.name)}", ("", 0), change, apply)


def last_name(symbol):
    """smem_a of _ZZN6quaver...E6smem_a."""
    match = re.match(r"_Z.*E\d+([a-z_]\w*)$", symbol)
    return match.group(1) if match else symbol


# Which registers addresses are computed from.

ACCESS = re.compile(r"(ld|st|atom|red|cp\.async\.c[ag]|ldmatrix|stmatrix)\b.*")
INTEGER = re.compile(
    r"(add|sub|mul|mad|shl|shr|shf|and|or|xor|not|neg|lop3|bfe|bfi|prmt|cvt|cvta|mov|selp|min|max|div|rem|abs)\b"
    r"(?!.*\.(f16|bf16|f32|f64|pred)\b).*"
)


def registers_of_addresses(kernel):
    """Registers whose values end in an address, through integer arithmetic; not those of a parameter's own place."""
    makers = {}
    for instruction in kernel.instructions:
        if INTEGER.fullmatch(instruction.opcode):
            for name in names_in(instruction.operands[0]):
                makers.setdefault(name, []).append(instruction)
    wanted = []
    for instruction in kernel.instructions:
        if ACCESS.fullmatch(instruction.opcode):
            bases = [operand.base for operand in instruction.operands if isinstance(operand, Address)]
            wanted += [base.name for base in bases if isinstance(base, Register)]
            if instruction.opcode.startswith("ld.param"):
                wanted = [name for name in wanted if not _is_constant(name, makers)]
    found = set()
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        for instruction in makers.get(name, ()):
            for operand in instruction.operands[1:]:
                wanted += names_in(operand)
    return found


def _is_constant(name, makers):
    """Whether a register has one value: a symbol's address or a literal, or a sum of such."""
    if len(makers.get(name, ())) != 1:
        return False
    (maker,) = makers[name]
    if not re.match(r"(mov|add|cvta)\b", maker.opcode):
        return False
    return all(
        isinstance(operand, (Immediate, Symbol))
        or (isinstance(operand, Register) and _is_constant(operand.name, makers))
        for operand in maker.operands[1:]
    )


def names_in(operand):
    if isinstance(operand, Register):
        return [operand.name]
    if isinstance(operand, Vector):
        return [name for element in operand.elements for name in names_in(element)]
    if isinstance(operand, Pair):
        return [operand.first.name, operand.second.name]
    return []


def _feeds_address(instruction, addresses):
    return bool(
        instruction.operands
        and INTEGER.fullmatch(instruction.opcode)
        and set(names_in(instruction.operands[0])) & addresses
    )


def _with_operand(instruction, number, operand):
    operands = list(instruction.operands)
    operands[number] = operand
    return replace(instruction, operands=tuple(operands))


def _literals(instruction, first=1):
    """(place, value) of the integer literals among the operands from `first` on."""
    for number, operand in enumerate(instruction.operands[first:], first):
        if isinstance(operand, Immediate) and operand.float_bits == 0:
            yield number, operand.value


# The operators: (instruction, registers of addresses) -> (what changes, the new instruction or None for none at all).


def deleting(pattern):
    pattern = re.compile(pattern)

    def make(instruction, addresses):
        if pattern.fullmatch(instruction.opcode):
            yield "deleted", None

    return make


def weaken_wait(instruction, addresses):
    """One more group may still be on its way."""
    if re.fullmatch(r"[\w.]+\.wait_group(\.\w+)*", instruction.opcode):
        for number, pending in _literals(instruction, 0):
            change = f"{pending} pending groups -> {pending + 1}"
            yield change, _with_operand(instruction, number, Immediate(pending + 1))


def drop_guard(instruction, addresses):
    if instruction.guard is not None:
        yield "for every thread", replace(instruction, guard=None, guard_negated=False)
        yield "for no thread", None
    if re.fullmatch(r"cp\.async\.c[ag]\..*", instruction.opcode) and len(instruction.operands) > 3:
        yield "copies all bytes", replace(instruction, operands=instruction.operands[:3])


def drop_condition(instruction, addresses):
    """One of two predicates that are joined, one of two values that a predicate chooses from."""
    if instruction.opcode in ("and.pred", "or.pred"):
        to, *sources = instruction.operands
        for source in sources:
            yield f"{source.name} alone", replace(instruction, opcode="mov.pred", operands=(to, source))
    joined = re.fullmatch(r"(setp\.\w+)\.(?:and|or|xor)(\.\w+)", instruction.opcode)
    if joined:
        yield (
            "the comparison alone",
            replace(instruction, opcode="".join(joined.groups()), operands=instruction.operands[:-1]),
        )
    if instruction.opcode.startswith("selp."):
        to, yes, no, _ = instruction.operands
        move = f"mov.{instruction.opcode.split('.')[1]}"
        for word, value in (("always", yes), ("never", no)):
            yield word, replace(instruction, opcode=move, operands=(to, value))


WIDER = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "lo": "ls", "ls": "lo", "hi": "hs", "hs": "hi"}


def widen_compare(instruction, addresses):
    compared = re.fullmatch(r"(setp)\.(lt|le|gt|ge|lo|ls|hi|hs)((?:u?\.\w+)*)", instruction.opcode)
    if compared:
        start, relation, rest = compared.groups()
        yield f"{relation} -> {WIDER[relation]}", replace(instruction, opcode=f"{start}.{WIDER[relation]}{rest}")


def access_size(instruction):
    """The bytes of one element that a load, store, copy or matrix load moves."""
    opcode = instruction.opcode
    if opcode.startswith("cp.async"):
        return instruction.operands[2].value
    if "matrix" in opcode:
        return 16  # a row of a matrix
    *_, kind = opcode.split(".")
    vector = re.search(r"\.v(\d)\.", opcode)
    return TYPE_SIZES[kind] * int(vector.group(1) if vector else 1)


def widen_index(instruction, addresses):
    """One element further: at the access, or where a literal is added to what becomes an address."""
    if ACCESS.fullmatch(instruction.opcode):
        size = access_size(instruction)
        for number, operand in enumerate(instruction.operands):
            if isinstance(operand, Address) and set(names_in(operand.base)) & addresses:
                moved = replace(operand, offset=operand.offset + size)
                yield f"{size} bytes further", _with_operand(instruction, number, moved)
    elif re.match(r"(add|sub)\b", instruction.opcode) and _feeds_address(instruction, addresses):
        for number, value in _literals(instruction):
            yield f"{value} -> {value + 1}", _with_operand(instruction, number, Immediate(value + 1))


def widen_scale(instruction, addresses):
    """Twice as far for each index."""
    if not _feeds_address(instruction, addresses):
        return
    if instruction.opcode.startswith("shl."):
        for number, value in _literals(instruction, 2):
            yield f"shifted by {value + 1}", _with_operand(instruction, number, Immediate(value + 1))
    elif re.match(r"(mul|mad)\b", instruction.opcode):
        for number, value in _literals(replace(instruction, operands=instruction.operands[:3])):
            yield f"times {2 * value}", _with_operand(instruction, number, Immediate(2 * value))


def drop_swizzle(instruction, addresses):
    if instruction.opcode.startswith("xor.b") and _feeds_address(instruction, addresses):
        to, value, _ = instruction.operands
        move = instruction.opcode.replace("xor", "mov")
        yield "without the xor", replace(instruction, opcode=move, operands=(to, value))


def swap_constant(instruction, addresses):
    """Another distance between the lanes of a shuffle."""
    if instruction.opcode.startswith("shfl.sync") and isinstance(instruction.operands[2], Immediate):
        distance = instruction.operands[2].value
        other = distance // 2 if distance > 1 else 2
        yield f"distance {distance} -> {other}", _with_operand(instruction, 2, Immediate(other))


OPERATORS = {
    "delete barrier": deleting(r"(?:bar|barrier)(?:\.cta)?\.(?:warp\.)?(?:sync|arrive|red).*"),
    "delete fence": deleting(r"(?:membar|fence)\b.*"),
    "delete wait": deleting(r"[\w.]+\.wait_(?:group|all)\b.*"),
    "weaken wait": weaken_wait,
    "delete commit": deleting(r"[\w.]+\.commit_group\b.*"),
    "drop guard": drop_guard,
    "drop condition": drop_condition,
    "widen compare": widen_compare,
    "widen index": widen_index,
    "widen scale": widen_scale,
    "drop swizzle": drop_swizzle,
    "swap constant": swap_constant,
}
NAMES = (*OPERATORS, "shrink shared")
# What orders threads and holds their data: these are made of every instance of a template.
ORDERING = ("delete barrier", "delete fence", "delete wait", "weaken wait", "delete commit", "shrink shared")
