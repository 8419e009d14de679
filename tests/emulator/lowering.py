"""From a PTX instruction to C++: the pieces that every kind of instruction is built of."""

from dataclasses import dataclass, field

from .ptx import Immediate, Negated, PtxError, Register, Special, Symbol

# PTX type -> (C++ type of its values, bits)
TYPES = {
    **{f"{kind}{bits}": (f"uint{bits}_t", bits) for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": (f"int{bits}_t", bits) for bits in (8, 16, 32, 64)},
    "f32": ("float", 32),
    "f64": ("double", 64),
    "f16": ("uint16_t", 16),
    "bf16": ("uint16_t", 16),
    "f16x2": ("uint32_t", 32),
    "bf16x2": ("uint32_t", 32),
}
# In the order of machine.h's Special.
SPECIALS = (
    *(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"),
    *("%laneid", "%warpid"),
    *(f"%lanemask_{relation}" for relation in ("eq", "lt", "le", "gt", "ge")),
    "%nwarpid",
    *(f"%{name}.{axis}" for name in ("clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid") for axis in "xyz"),
    *("%cluster_ctarank", "%cluster_nctarank"),
)
MAX_OPERANDS = 24  # as in machine.h


@dataclass
class Lowered:
    """One instruction, ready for the machine."""

    signature: str  # names the function
    source: str  # the function's body in C++
    operands: list  # numbers for Code.operand
    flow: str = "next"
    target: str | None = None  # a branch's label
    registers: list = field(default_factory=list)  # of 32 bits that it names: number * 2, + 1 where it writes
    fragment: list = field(default_factory=list)  # those that wgmma uses beside its operands


@dataclass
class Context:
    """Where names lead: the numbers of registers and the addresses of variables and parameters."""

    registers: dict  # name -> (class, number): class is "p", "r16", "r32" or "r64"
    symbols: dict = field(default_factory=dict)  # name -> address
    target: int = 0  # the module's architecture: 75 for .target sm_75


class Builder:
    """Collects a function's operands and its C++ text."""

    def __init__(self, instruction, context):
        self.instruction = instruction
        self.context = context
        self.kinds = []
        self.numbers = []
        self.registers = []
        self.before = []  # statements before the loop over lanes
        self.inside = []  # statements for each lane
        self.stores = []  # the lane's results
        self.after = []

    def operands(self, count):
        operands = self.instruction.operands
        if len(operands) != count:
            raise self.error(f"{count} operands expected, got {len(operands)}")
        return operands

    def error(self, what):
        i = self.instruction
        return PtxError(f"line {i.line}: {what}: {i.text!r}")

    def slot(self, kind, number):
        self.kinds.append(kind)
        self.numbers.append(number)
        if len(self.numbers) > MAX_OPERANDS - 2:
            raise self.error("too many operands")
        return len(self.numbers) - 1

    def register(self, operand, writes=False):
        """(class, slot) of a register operand; special registers are 32-bit registers."""
        name = operand.name
        if name not in self.context.registers:
            raise self.error(f"unknown register {name!r}")
        kind, number = self.context.registers[name]
        if kind in ("r16", "r32"):
            self.registers.append(2 * number + writes)
        return kind, self.slot(kind, number)

    def source(self, name, operand, kind):
        """Declares `name`, the value of a source operand read as PTX type `kind`, for each lane."""
        if kind == "pred":
            return self.predicate_source(name, operand)
        cpp, width = TYPES[kind]
        if isinstance(operand, (Register, Special)):
            where, at = self.register(operand)
            if where == "p":
                raise self.error("a predicate where a number was expected")
            if where == "r64":
                self.before.append(f"const uint64_t* {name}_ = w.at64(c.operand[{at}]);")
                raw, have = f"{name}_[lane]", 64
            else:
                self.before.append(f"const uint32_t* {name}_ = w.at32(c.operand[{at}]);")
                raw, have = f"{name}_[lane]", 32
            if width > (16 if where == "r16" else have):
                raise self.error(f"a register of {where[1:]} bits is read as {kind}")
            self.inside.append(f"const {cpp} {name} = {from_bits(raw, cpp, width, have)};")
            return None
        if isinstance(operand, Symbol):
            if operand.name not in self.context.symbols:
                raise self.error(f"unknown symbol {operand.name!r}")
            operand = Immediate(self.context.symbols[operand.name])
        if isinstance(operand, Immediate):
            if operand.float_bits not in (0, width):
                raise self.error(f"a float literal of {operand.float_bits} bits is read as {kind}")
            if operand.float_bits and kind[0] in "us":
                raise self.error("a float literal where an integer was expected")
            at = self.slot("f" if operand.float_bits else "i", operand.value)
            literal = f"static_cast<uint64_t>(c.operand[{at}])"
            if cpp in ("float", "double") and not operand.float_bits:
                raise self.error("an integer literal where a float was expected")
            self.before.append(f"const {cpp} {name} = {from_bits(literal, cpp, width, 64)};")
            return None
        raise self.error("unexpected operand")

    def predicate_source(self, name, operand):
        if isinstance(operand, Immediate):
            at = self.slot("i", operand.value)
            self.before.append(f"const bool {name} = c.operand[{at}] != 0;")
            return
        negated = isinstance(operand, Negated)
        where, at = self.register(operand.register if negated else operand)
        if where != "p":
            raise self.error("a number where a predicate was expected")
        self.kinds[-1] = "!p" if negated else "p"
        self.before.append(f"const uint32_t {name}_ = {'~' if negated else ''}w.predicate[c.operand[{at}]];")
        self.inside.append(f"const bool {name} = {name}_ >> lane & 1;")

    def destination(self, name, operand, kind):
        """Stores the lane's `name`, of PTX type `kind`, to a register, extended to its width."""
        if operand == Register("_"):
            self.kinds.append("_")
            self.numbers.append(0)
            self.inside.insert(0, "")
            return
        where, at = self.register(operand, writes=True)
        if kind == "pred":
            if where != "p":
                raise self.error("the destination must be a predicate")
            self.before.append(f"uint32_t {name}_set = 0;")
            self.stores.append(f"{name}_set |= static_cast<uint32_t>({name}) << lane;")
            self.after.append(
                f"uint32_t& {name}_to = w.predicate[c.operand[{at}]]; {name}_to = ({name}_to & ~w.mask) | {name}_set;"
            )
            return
        cpp, width = TYPES[kind]
        have = {"r16": 16, "r32": 32, "r64": 64}.get(where, 0)
        if have < width:
            raise self.error(f"a {kind} does not fit the destination's {have} bits")
        unsigned, pointer = ("uint64_t", "at64") if where == "r64" else ("uint32_t", "at32")
        self.before.append(f"{unsigned}* {name}_to = w.{pointer}(c.operand[{at}]);")
        self.stores.append(f"{name}_to[lane] = {to_bits(name, cpp, width, have, unsigned)};")

    def lanes(self, signature, body, declarations=""):
        """A function that runs `body` for each active lane."""
        text = "\n  ".join(
            [
                *self.before,
                "for (int lane = 0; lane < kLanes; ++lane) {",
                "  if (!(w.mask >> lane & 1)) continue;",
                *("  " + each for each in [*self.inside, declarations, body, *self.stores] if each),
                "}",
                *self.after,
            ]
        )
        return self.function(signature, text)

    def together(self, signature, gather, between, body):
        """A function that runs `gather` for each active lane, then `between` once, then `body` for each active lane."""
        lanes = "for (int lane = 0; lane < kLanes; ++lane) if (w.mask >> lane & 1) {"
        text = "\n  ".join(
            [
                *self.before,
                *[lanes, *("  " + each for each in [*self.inside, gather] if each), "}"],
                between,
                *[lanes, *("  " + each for each in [body, *self.stores] if each), "}"],
                *self.after,
            ]
        )
        return self.function(signature, text)

    def function(self, signature, text, flow="next"):
        name = " ".join([signature, *self.kinds])
        return Lowered(name, text, self.numbers, flow, registers=self.registers)


def from_bits(raw, cpp, width, have):
    if cpp in ("float", "double"):
        return f"bits<{cpp}>(static_cast<uint{width}_t>({raw}))"
    return f"static_cast<{cpp}>({raw})"


def to_bits(value, cpp, width, have, unsigned):
    if cpp in ("float", "double"):
        return f"bits<uint{width}_t>({value})"
    if have == 16:
        return f"static_cast<uint16_t>({value})"
    if cpp.startswith("int"):
        return f"static_cast<{unsigned}>(static_cast<int{have}_t>({value}))"
    return f"static_cast<{unsigned}>({value})"
