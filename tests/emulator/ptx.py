"""Reads PTX text: a module of kernels, each a list of instructions with their operands and source lines.

The reader knows PTX's grammar, not its instructions: which opcodes exist and what they do is isa.py's. A directive that
it does not know is an error that quotes the line.
"""

import re
from dataclasses import dataclass, field, replace


class PtxError(ValueError):
    """PTX that is not understood: the line is quoted, nothing is guessed."""


@dataclass(frozen=True)
class Register:
    name: str


@dataclass(frozen=True)
class Special:
    """A special register, such as %tid.x."""

    name: str


@dataclass(frozen=True)
class Immediate:
    """A literal's bits as an integer; `float_bits` is 32 for a 0f literal and 64 for 0d, whose bits are the float's."""

    value: int
    float_bits: int = 0


@dataclass(frozen=True)
class Symbol:
    """The address of a variable or parameter, or a label."""

    name: str


@dataclass(frozen=True)
class Address:
    """[base + offset]: base is a Register, a Symbol or None. Of a tensor map, coordinates are after it."""

    base: Register | Symbol | None
    offset: int = 0
    coordinates: tuple = ()


@dataclass(frozen=True)
class Vector:
    """{a, b, ...}"""

    elements: tuple


@dataclass(frozen=True)
class Negated:
    """!%p"""

    register: Register


@dataclass(frozen=True)
class Pair:
    """%p|%q: two destinations."""

    first: Register
    second: Register


@dataclass
class Instruction:
    opcode: str  # with its modifiers: "ld.global.v2.u32"
    operands: tuple
    guard: Register | None = None
    guard_negated: bool = False
    source: tuple = ("", 0)  # file and line, from .loc
    line: int = 0  # of the PTX text
    text: str = ""


@dataclass
class Variable:
    """A variable of a state space; its contents where it has an initializer."""

    name: str
    space: str
    align: int
    size: int  # in bytes; 0 for an extern array, whose size a launch gives
    initial: bytes | None = None


@dataclass
class Parameter:
    name: str
    offset: int
    size: int


@dataclass
class Kernel:
    name: str
    parameters: list = field(default_factory=list)
    registers: dict = field(default_factory=dict)  # name -> type, such as "b32" or "pred"
    variables: list = field(default_factory=list)
    instructions: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)  # name -> index of the next instruction
    limits: dict = field(default_factory=dict)  # "maxntid" -> (256, 1, 1)
    tables: dict = field(default_factory=dict)  # of .branchtargets: name -> labels


@dataclass
class Module:
    version: str = ""
    target: str = ""
    files: dict = field(default_factory=dict)
    variables: list = field(default_factory=list)
    kernels: dict = field(default_factory=dict)


TYPE_SIZES = {
    **{f"{kind}{bits}": bits // 8 for kind in "bsuf" for bits in (8, 16, 32, 64)},
    "b128": 16,
    "f16x2": 4,
    "bf16": 2,
    "bf16x2": 4,
    "pred": 1,
}

TOKEN = re.compile(
    r"""
    (?P<newline>\n) | (?P<space>[ \t\r]+) | (?P<comment>//[^\n]*|/\*.*?\*/) | (?P<string>"[^"]*")
    | (?P<number>0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+U?|\d+\.\d+|\d+U?)
    | (?P<word>[%.$A-Za-z_][\w$.:]*)
    | (?P<mark>[{}()\[\],;@!|+\-=<>*])
    """,
    re.VERBOSE | re.DOTALL,
)

# Directives that say something about performance or debugging alone, ended by a line's end.
LINE_DIRECTIVES = (".loc", ".file", ".version", ".target", ".address_size")
KERNEL_LIMITS = (".maxntid", ".reqntid", ".minnctapersm", ".maxnreg", ".reqnctapercluster", ".maxclusterrank")


class Reader:
    """A cursor over PTX's tokens."""

    def __init__(self, text):
        self.lines = text.splitlines()
        self.tokens = []
        line = 1
        position = 0
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                raise PtxError(f"line {line}: cannot read {self.lines[line - 1].strip()!r}")
            kind = match.lastgroup
            if kind == "newline":
                self.tokens.append(("newline", "\n", line))
            elif kind not in ("space", "comment"):
                self.tokens.append((kind, match.group(), line))
            line += match.group().count("\n")
            position = match.end()
        self.at = 0

    def error(self, what):
        line = self.tokens[min(self.at, len(self.tokens) - 1)][2]
        return PtxError(f"line {line}: {what}: {self.lines[line - 1].strip()!r}")

    def skip_newlines(self):
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "newline":
            self.at += 1

    def done(self):
        self.skip_newlines()
        return self.at >= len(self.tokens)

    def peek(self):
        self.skip_newlines()
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def line(self):
        self.skip_newlines()
        return self.tokens[self.at][2]

    def take(self, expected=None):
        self.skip_newlines()
        if self.at >= len(self.tokens):
            raise PtxError(f"the text ends where {expected or 'more'} was expected")
        token = self.tokens[self.at][1]
        if expected is not None and token != expected:
            raise self.error(f"expected {expected!r}, got {token!r}")
        self.at += 1
        return token

    def accept(self, token):
        if self.peek() == token:
            self.take()
            return True
        return False

    def rest_of_line(self):
        words = []
        while self.at < len(self.tokens) and self.tokens[self.at][0] != "newline":
            words.append(self.tokens[self.at][1])
            self.at += 1
        return words

    def integer(self):
        sign = -1 if self.accept("-") else 1
        return sign * int(self.take().rstrip("U"), 0)


def parse(text):
    """PTX text to a Module."""
    reader = Reader(text)
    module = Module()
    while not reader.done():
        word = reader.peek()
        if word in LINE_DIRECTIVES:
            _read_line_directive(module, reader)
        elif word == ".section":
            _skip_section(reader)
        elif word in (".visible", ".weak", ".extern", ".common"):
            reader.take()
        elif word == ".entry":
            kernel = _read_kernel(reader)
            module.kernels[kernel.name] = kernel
        elif word in (".global", ".const", ".shared"):
            module.variables.append(_read_variable(reader))
        elif word == ".pragma":
            reader.take()
            reader.take()
            reader.take(";")
        else:
            raise reader.error("unknown directive")
    for kernel in module.kernels.values():  # files are named at the text's end
        for instruction in kernel.instructions:
            file, line = instruction.source
            instruction.source = (module.files.get(file, ""), line)
    return module


def _read_line_directive(module, reader):
    word, *rest = reader.rest_of_line()
    if word == ".version":
        module.version = "".join(rest)
    elif word == ".target":
        module.target = rest[0]
    elif word == ".file":
        module.files[int(rest[0])] = rest[1].strip('"')


def _skip_section(reader):
    while reader.peek() != "{":
        reader.take()
    depth = 0
    while True:
        token = reader.take()
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth == 0:
            return


def _round_up(value, multiple):
    return (value + multiple - 1) // multiple * multiple


def _read_type(reader):
    """.align 8 .b8 and the like: (alignment or None, type)."""
    align = None
    while True:
        word = reader.take()
        if word == ".align":
            align = reader.integer()
        elif word[1:] in TYPE_SIZES:
            return align, word[1:]
        elif word not in (".v2", ".v4"):
            raise reader.error(f"unknown type {word!r}")


def _skip_pointee(reader):
    """.ptr .global .align 16 and the like: what a parameter points to."""
    if reader.accept(".ptr"):
        while reader.peek() in (".global", ".shared", ".const", ".local", ".align"):
            if reader.take() == ".align":
                reader.integer()


def _read_extent(reader):
    """The [n] after a name: None without brackets, 0 for []."""
    extent = None
    while reader.accept("["):
        size = 0 if reader.peek() == "]" else reader.integer()
        reader.take("]")
        extent = size if extent is None else extent * size
    return extent


def _read_variable(reader):
    space = reader.take()[1:]
    align, kind = _read_type(reader)
    name = reader.take()
    extent = _read_extent(reader)
    size = TYPE_SIZES[kind] * (1 if extent is None else extent)
    initial = None
    if reader.accept("="):
        initial = _read_initializer(reader, TYPE_SIZES[kind]).ljust(size, b"\0")
    reader.take(";")
    return Variable(name, space, align or TYPE_SIZES[kind], size, initial)


def _read_initializer(reader, width):
    if not reader.accept("{"):
        return _literal(reader).value.to_bytes(8, "little", signed=False)[:width]
    data = b""
    while not reader.accept("}"):
        data += (_literal(reader).value % (1 << 64)).to_bytes(8, "little")[:width]
        reader.accept(",")
    return data


def _read_kernel(reader):
    reader.take(".entry")
    kernel = Kernel(reader.take())
    if reader.accept("("):
        offset = 0
        while not reader.accept(")"):
            reader.take(".param")
            align, kind = _read_type(reader)
            _skip_pointee(reader)
            name = reader.take()
            extent = _read_extent(reader)
            size = TYPE_SIZES[kind] * (1 if extent is None else extent)
            offset = _round_up(offset, align or TYPE_SIZES[kind])
            kernel.parameters.append(Parameter(name, offset, size))
            offset += size
            reader.accept(",")
    while reader.peek() != "{":
        word = reader.take()
        if word not in KERNEL_LIMITS:
            raise reader.error(f"unknown directive {word!r}")
        values = [reader.integer()]
        while reader.accept(","):
            values.append(reader.integer())
        kernel.limits[word[1:]] = tuple(values)
    reader.take("{")
    _read_body(kernel, reader)
    return kernel


def _read_body(kernel, reader):
    scopes = [{}]  # names declared in inner braces, made unique
    source = (0, 0)

    def scoped(name):
        for scope in reversed(scopes):
            if name in scope:
                return scope[name]
        return name

    while True:
        word = reader.peek()
        if word == "{":
            reader.take()
            scopes.append(_labels_in_scope(reader))
        elif word == "}":
            reader.take()
            scopes.pop()
            if not scopes:
                return
        elif word == ".reg":
            _read_registers(kernel, scopes[-1] if len(scopes) > 1 else None, reader)
        elif word in (".shared", ".local"):
            kernel.variables.append(_read_variable(reader))
        elif word == ".loc":
            source = _read_location(reader)
        elif word == ".pragma":
            reader.take()
            reader.take()
            reader.take(";")
        elif word.endswith(":"):
            reader.take()
            if reader.accept(".branchtargets"):
                kernel.tables[word[:-1]] = _read_targets(reader, scoped)
            else:
                kernel.labels[scoped(word[:-1])] = len(kernel.instructions)
        else:
            instruction = _read_instruction(kernel, reader, source, scoped)
            is_table = instruction.opcode in ("brx.idx", "brx.idx.uni")
            kernel.instructions += _branches(kernel, reader, instruction) if is_table else [instruction]


def _labels_in_scope(reader):
    """The labels of an inner brace's own, which may come after the branches to them, made unique."""
    labels = {}
    depth = 0
    for kind, token, _ in reader.tokens[reader.at :]:
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            break
        if kind == "word" and depth == 0 and token.endswith(":"):
            labels[token[:-1]] = f"{token[:-1]}@{reader.at}"
    return labels


def _read_targets(reader, scoped):
    targets = [scoped(reader.take())]
    while reader.accept(","):
        targets.append(scoped(reader.take()))
    reader.take(";")
    return targets


def _branches(kernel, reader, instruction):
    """brx.idx as a comparison and a branch for each place in its table."""
    index, table = instruction.operands
    if instruction.guard or table.name not in kernel.tables:
        raise reader.error("a branch by a table that comes before it, without a predicate, was expected")
    here = Register("%brx")
    kernel.registers[here.name] = "pred"
    for place, target in enumerate(kernel.tables[table.name]):
        yield replace(instruction, opcode="setp.eq.u32", operands=(here, index, Immediate(place)))
        yield replace(instruction, opcode="bra", operands=(Symbol(target),), guard=here)


def _read_registers(kernel, scope, reader):
    reader.take(".reg")
    _, kind = _read_type(reader)
    while True:
        name = reader.take()
        if reader.accept("<"):
            count = reader.integer()
            reader.take(">")
            names = [f"{name}{i}" for i in range(count)]
        else:
            names = [name]
        for each in names:
            unique = each
            if scope is not None:
                unique = f"{each}@{len(kernel.registers)}"
                scope[each] = unique
            kernel.registers[unique] = kind
        if not reader.accept(","):
            break
    reader.take(";")


def _read_location(reader):
    """.loc file line column [, function_name label, inlined_at file line column]: the line of the code itself."""
    words = reader.rest_of_line()
    return int(words[1]), int(words[2])


def _read_instruction(kernel, reader, source, scoped):
    line = reader.line()
    guard, negated = None, False
    if reader.accept("@"):
        negated = reader.accept("!")
        guard = Register(scoped(reader.take()))
    opcode = reader.take()
    if not re.match(r"[a-z]", opcode):
        raise reader.error(f"unknown directive {opcode!r}")
    operands = []
    while not reader.accept(";"):
        operands.append(_read_operand(kernel, reader, scoped))
        if reader.peek() not in (",", ";"):
            raise reader.error(f"unexpected {reader.peek()!r}")
        reader.accept(",")
    text = reader.lines[line - 1].strip()
    return Instruction(opcode, tuple(operands), guard, negated, source, line, text)


def _literal(reader):
    sign = -1 if reader.accept("-") else 1
    token = reader.take()
    if token[:2] in ("0f", "0F", "0d", "0D"):
        value = int(token[2:], 16)
        width = 4 * len(token[2:])
        return Immediate(value ^ (1 << (width - 1)) if sign < 0 else value, width)
    if not token[0].isdigit() or "." in token:
        raise reader.error(f"unknown literal {token!r}")
    return Immediate(sign * int(token.rstrip("U"), 0))


def _read_operand(kernel, reader, scoped):
    token = reader.peek()
    if token == "[":
        reader.take()
        address = _read_address(kernel, reader, scoped)
        reader.take("]")
        return address
    if token == "{":
        reader.take()
        elements = []
        while not reader.accept("}"):
            elements.append(_read_operand(kernel, reader, scoped))
            reader.accept(",")
        return Vector(tuple(elements))
    if token == "!":
        reader.take()
        return Negated(Register(scoped(reader.take())))
    if token == "-" or token[0].isdigit():
        return _literal(reader)
    name = reader.take()
    first = _named(kernel, name, scoped)
    if reader.accept("|"):
        return Pair(first, _named(kernel, reader.take(), scoped))
    return first


def _named(kernel, name, scoped):
    unique = scoped(name)
    if unique in kernel.registers or name == "_":
        return Register(unique)
    if name.startswith("%"):
        return Special(name)
    return Symbol(unique)


def _read_address(kernel, reader, scoped):
    if reader.peek() == "-" or reader.peek()[0].isdigit():
        return Address(None, reader.integer())
    base = _named(kernel, reader.take(), scoped)
    offset = 0
    if reader.accept("+") or reader.peek() == "-":
        offset = reader.integer()
    if reader.accept(","):
        return Address(base, offset, _read_operand(kernel, reader, scoped).elements)
    return Address(base, offset)
