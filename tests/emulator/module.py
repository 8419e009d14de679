"""PTX in hand, run: the face of the emulator.

m = Module.from_ptx(text, device="sm_80")
r = m.launch("kernel", grid=(2, 1, 1), block=(256, 1, 1), args=[x, q, 1024], seed=1)
r.ok, r.reports, r.counters
"""

import operator
import re
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from . import build, isa, ptx, toolkit
from .devices import DEVICES, CudaError, LaunchError
from .lowering import SPECIALS, Context
from .tensor_map import TensorMap

FLOWS = {"next": 0, "branch": 1, "exit": 2, "barrier": 3, "warp sync": 4}
GUARD_ZONE = 512  # bytes around every array that a launch gets


@dataclass(frozen=True)
class Report:
    """Something that a kernel did and must not do."""

    kind: str
    kernel: str
    file: str
    line: int
    block: int
    thread: int
    address: int
    words: str
    ptx: str

    def __str__(self):
        place = f"{self.file}:{self.line}" if self.file else "?"
        return (
            f"{self.kind} in {self.kernel} at {place}, block {self.block} thread {self.thread}, "
            f"address {self.address:#x}: {self.words} [{self.ptx}]"
        )


@dataclass(frozen=True)
class Count:
    """What a launch did at one instruction."""

    opcode: str
    source: tuple  # (file, line)
    warps: int  # times that a warp executed it
    units: int  # global: sectors; shared: wavefronts
    ideal: int
    traffic: dict  # global: address of an allocation -> bytes asked of it, a byte once for all lanes of a warp


@dataclass
class Counters:
    """What a launch did: warp instructions by opcode and by source line, and its traffic."""

    instructions: int = 0
    by_opcode: Counter = field(default_factory=Counter)
    by_line: Counter = field(default_factory=Counter)
    global_bytes_read: int = 0
    global_bytes_written: int = 0
    sectors: int = 0
    ideal_sectors: int = 0
    shared_wavefronts: int = 0
    ideal_shared_wavefronts: int = 0
    each: list = field(default_factory=list)  # Count of every instruction


@dataclass
class Result:
    reports: list
    count: Callable  # makes the counters when they are first asked for: most launches are only checked

    @property
    def ok(self):
        return not self.reports

    @cached_property
    def counters(self):
        return self.count()


class Kernel:
    """A parsed kernel, decoded for the machine. What it shares with `like`, decoded before, is taken from there."""

    def __init__(self, parsed, module_variables, target, like=None):
        self.parsed = parsed
        self.static_reports = list(contractible_pairs(parsed))
        registers, self.counts = _number_registers(parsed)
        symbols, self.static_shared, local_bytes = _place_variables(parsed, module_variables)
        self.context = Context(registers, symbols, target)
        known = {}
        if like is not None and like.context == self.context:
            known = dict(zip(map(id, like.parsed.instructions), like.lowered, strict=True))
        self.lowered = [known.get(id(each)) or isa.lower(each, self.context) for each in parsed.instructions]
        build.require({each.signature: each.source for each in self.lowered if each.source})
        decoded = []
        for instruction, lowered in zip(parsed.instructions, self.lowered, strict=True):
            guard = registers[instruction.guard.name][1] if instruction.guard else -1
            target = -1
            if lowered.target is not None:
                if lowered.target not in parsed.labels:
                    raise ptx.PtxError(f"line {instruction.line}: unknown label: {instruction.text!r}")
                target = parsed.labels[lowered.target]
            name = lowered.signature if lowered.source else ""
            operands = [_signed(number) for number in lowered.operands]
            flow = (FLOWS[lowered.flow], guard, instruction.guard_negated, target)
            decoded.append((name, *flow, operands, lowered.registers, lowered.fragment))
        special = [registers[name][1] for name in SPECIALS]
        self.program = build.machine().make_program(
            parsed.name, decoded, self.counts["r32"], self.counts["r64"], self.counts["p"], special,
            self.static_shared, local_bytes,
        )  # fmt: skip

    @property
    def parameter_bytes(self):
        return max((p.offset + p.size for p in self.parsed.parameters), default=0)


def _signed(number):
    """A literal's 64 bits as C++'s int64."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >= 1 << 63 else number


def _number_registers(parsed):
    counts = {"p": 0, "r32": 0, "r64": 0}
    registers = {}
    for name, kind in parsed.registers.items():
        width = ptx.TYPE_SIZES[kind] * 8
        if kind == "pred":
            where, pool = "p", "p"
        elif width <= 32:
            where, pool = ("r16" if width == 16 else "r32"), "r32"
        elif width == 64:
            where, pool = "r64", "r64"
        else:
            raise ptx.PtxError(f"{parsed.name}: registers of type {kind} are not emulated")
        registers[name] = (where, counts[pool])
        counts[pool] += 1
    for name in SPECIALS:
        registers[name] = ("r32", counts["r32"])
        counts["r32"] += 1
    return registers, counts


def _place_variables(parsed, module_variables):
    """Addresses of parameters, shared and local variables; dynamic shared memory comes after the static."""
    symbols = {p.name: p.offset for p in parsed.parameters}
    used = {o.name for i in parsed.instructions for operand in i.operands for o in _symbols_in(operand)}
    ends = {"shared": 0, "local": 0}
    dynamic = []
    for variable in [*parsed.variables, *module_variables]:
        if variable.name not in used:
            continue
        if variable.space not in ends:
            raise ptx.PtxError(f"{parsed.name}: variables in .{variable.space} are not emulated: {variable.name}")
        if variable.size == 0:
            dynamic.append(variable)
            continue
        ends[variable.space] = ptx._round_up(ends[variable.space], variable.align)
        symbols[variable.name] = ends[variable.space]
        ends[variable.space] += variable.size
    start = ends["shared"]
    for variable in dynamic:
        start = ptx._round_up(start, max(variable.align, 16))
    for variable in dynamic:
        symbols[variable.name] = start
    return symbols, start, ends["local"]


def _symbols_in(operand):
    if isinstance(operand, ptx.Symbol):
        yield operand
    elif isinstance(operand, ptx.Address) and isinstance(operand.base, ptx.Symbol):
        yield operand.base
    elif isinstance(operand, ptx.Vector):
        for element in operand.elements:
            yield from _symbols_in(element)


def contractible_pairs(parsed):
    """Un-suffixed float products that only an un-suffixed sum uses: ptxas may fuse the two into one rounding."""
    products = {}
    for number, instruction in enumerate(parsed.instructions):
        if re.fullmatch(r"mul\.f(32|64)", instruction.opcode):
            products[instruction.operands[0]] = number
        elif re.fullmatch(r"(add|sub)\.f(32|64)", instruction.opcode):
            for operand in instruction.operands[1:]:
                if operand in products:
                    yield number, "contractible pair", f"the product of {parsed.instructions[products[operand]].text}"


class Module:
    """A module of PTX for a pretended device."""

    def __init__(self, parsed, device, text=""):
        if device not in DEVICES:
            raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
        self.target = int(re.match(r"sm_(\d+)", parsed.target).group(1))
        if self.target > int(device.removeprefix("sm_")):
            raise LaunchError(f"PTX for {parsed.target} does not run on {device}", CudaError.NO_KERNEL_IMAGE_FOR_DEVICE)
        if parsed.target.endswith("a") and parsed.target != f"{device}a":
            raise LaunchError(
                f"PTX for {parsed.target} runs on sm_{self.target} alone", CudaError.NO_KERNEL_IMAGE_FOR_DEVICE
            )
        self.parsed = parsed
        self.text = text  # for ptxas, which alone knows how many registers a thread takes
        self.device = DEVICES[device]
        self._kernels = {}

    @classmethod
    def from_ptx(cls, text, device="sm_80"):
        return cls(ptx.parse(text), device, text)

    @property
    def kernels(self):
        """The kernels' names."""
        return list(self.parsed.kernels)

    def kernel(self, name):
        if name not in self.parsed.kernels:
            raise KeyError(f"no kernel {name!r}; there are {', '.join(self.kernels)}")
        if name not in self._kernels:
            self._kernels[name] = Kernel(self.parsed.kernels[name], self.parsed.variables, self.target)
        return self._kernels[name]

    def launch(self, name, *, grid, block, args, **how):
        """Runs a kernel. Arrays (numpy, or torch on the CPU) are changed in place, numbers packed as parameters ask.

        Arrays lie between guard zones while the kernel runs, so that an access beyond one is seen.
        `how` is what launch_packed takes: shared, seed, first_block, most_steps.
        """
        kernel = self.kernel(name)
        copies = []
        try:
            parameters = _pack(kernel.parsed, args, copies)
            return self.launch_packed(name, grid=grid, block=block, parameters=parameters, **how)
        finally:
            for copy in copies:
                copy.finish()

    def launch_packed(
        self, name, *, grid, block, parameters, shared=0, most_shared=None, seed=0, first_block=0, most_steps=0
    ):
        """Runs a kernel on parameters as bytes, with pointers to registered allocations.

        `most_shared` is the shared memory that the kernel was opted in to; left out, all that the device has. Blocks
        before `first_block` are left out. With `most_steps`, a launch of more warp instructions is given up and
        reported.
        """
        kernel = self.kernel(name)
        grid, block = _three(grid), _three(block)
        if most_shared is None:
            most_shared = self.device.shared_per_block
        self._check_launch(kernel, grid, block, shared, most_shared)
        raw = build.machine().run(kernel.program, grid, block, shared, parameters, seed, first_block, most_steps)
        return _result(kernel, raw)

    def _check_launch(self, kernel, grid, block, shared, most_shared):
        device = self.device
        name, limits = kernel.parsed.name, kernel.parsed.limits
        threads = _product(block)
        if min(*grid, *block) < 1:
            raise LaunchError(f"grid {grid} and block {block} must be positive", CudaError.INVALID_CONFIGURATION)
        if threads > device.threads_per_block or any(map(operator.gt, block, device.block_limits)):
            raise LaunchError(
                f"block {block}: {name} takes at most {device.threads_per_block} threads on {device.name}, "
                f"{device.block_limits} along each dimension",
                CudaError.INVALID_CONFIGURATION,
            )
        if any(map(operator.gt, grid, device.grid_limits)):
            raise LaunchError(
                f"grid {grid} is beyond {device.name}'s limits {device.grid_limits}", CudaError.INVALID_CONFIGURATION
            )
        if "maxntid" in limits and threads > _product(limits["maxntid"]):
            raise LaunchError(f"block {block}: {name} takes at most {_product(limits['maxntid'])} threads by .maxntid")
        if _product(limits.get("reqnctapercluster", (1,))) != 1:
            raise LaunchError(
                f"{name} asks for clusters of {limits['reqnctapercluster']}: not emulated", CudaError.NOT_SUPPORTED
            )
        if "reqntid" in limits and block != _three(limits["reqntid"]):
            raise LaunchError(f"block {block}: {name} asks for {limits['reqntid']}")
        if kernel.static_shared > device.shared_without_opting_in:
            raise LaunchError(f"{name} has {kernel.static_shared} bytes of static shared memory", CudaError.INVALID_PTX)
        if kernel.static_shared + shared > most_shared:
            raise LaunchError(
                f"{kernel.static_shared + shared} bytes of shared memory: "
                f"{name} may have {most_shared} on {device.name}"
            )
        registers = self._registers_that_matter(kernel, threads)
        if threads > device.threads_that_fit(registers):
            raise LaunchError(
                f"block {block}: {registers} registers for each thread of {name} leave room for "
                f"{device.threads_that_fit(registers)} threads",
                CudaError.LAUNCH_OUT_OF_RESOURCES,
            )

    def _registers_that_matter(self, kernel, threads):
        """Registers of a thread, from ptxas, which is asked only where as many as can be would not fit; else 0."""
        limits = kernel.parsed.limits
        if limits.keys() & {"maxntid", "reqntid"} and "maxnreg" not in limits:  # which goes before
            return 0  # ptxas keeps to what fits
        most = min(self.device.registers_per_thread, *limits.get("maxnreg", (256,)))
        if threads <= self.device.threads_that_fit(most):
            return 0
        resources = self.resources(kernel.parsed.name)
        return resources.registers if resources else 0

    def resources(self, name):
        """What ptxas says of a kernel's code on the device: toolkit.Resources; None where there is no ptxas."""
        if not self.text:
            return None
        own = self.parsed.target  # code for sm_90a and the like runs on no other architecture
        found = toolkit.resources(self.text, own if own[-1].isalpha() else self.device.name)
        return found and found[name]


def _three(extent):
    extent = (extent,) if isinstance(extent, int) else tuple(extent)
    return extent + (1,) * (3 - len(extent))


def _product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result


class _GuardedCopy:
    """An array's copy between guard zones, registered as an allocation; `finish` copies it back."""

    def __init__(self, array):
        self.array = array
        view = array if isinstance(array, np.ndarray) else array.detach().numpy(force=False)
        self.view = view
        data = np.ascontiguousarray(view).view(np.uint8).reshape(-1) if view.size else np.zeros(0, np.uint8)
        self.memory = np.full(data.size + 2 * GUARD_ZONE + 256, 0xA5, np.uint8)
        start = self.memory.ctypes.data + GUARD_ZONE
        self.address = (start + 255) // 256 * 256
        self.offset = self.address - self.memory.ctypes.data
        self.size = data.size
        self.memory[self.offset : self.offset + self.size] = data
        build.machine().add_allocation(self.address, self.size, True)

    def finish(self):
        build.machine().remove_allocation(self.address)
        back = self.memory[self.offset : self.offset + self.size]
        if self.size:
            self.view[...] = back.view(self.view.dtype).reshape(self.view.shape)


def _pack(kernel, args, copies):
    """The parameters as bytes; what was registered for them is added to `copies`."""
    if len(args) != len(kernel.parameters):
        raise LaunchError(f"{kernel.name} takes {len(kernel.parameters)} arguments, got {len(args)}")
    end = max((p.offset + p.size for p in kernel.parameters), default=0)
    data = bytearray(end)

    def address_of(array):
        for copy in copies:
            if copy.array is array:  # by a tensor map and by a pointer, say
                return copy.address
        copies.append(_GuardedCopy(array))
        return copies[-1].address

    for parameter, arg in zip(kernel.parameters, args, strict=True):
        if isinstance(arg, (bytes, bytearray)):
            raw = bytes(arg)
        elif isinstance(arg, (bool, int, np.integer)):
            raw = (int(arg) & ((1 << 8 * parameter.size) - 1)).to_bytes(parameter.size, "little")
        elif isinstance(arg, (float, np.floating)):
            raw = struct.pack({2: "<e", 4: "<f", 8: "<d"}[parameter.size], arg)
        elif isinstance(arg, TensorMap):
            raw = arg.encode(address_of(arg.array))
        else:
            raw = address_of(arg).to_bytes(8, "little")
        if len(raw) != parameter.size:
            raise LaunchError(f"{kernel.name}: {parameter.name} has {parameter.size} bytes, got {len(raw)}")
        data[parameter.offset : parameter.offset + parameter.size] = raw
    return bytes(data)


def _result(kernel, raw):
    instructions = kernel.parsed.instructions
    reports = []
    static = [(kind, number, 0, 0, 0, words) for number, kind, words in kernel.static_reports]
    for kind, number, block, thread, address, words in [*static, *raw["reports"]]:
        at = instructions[number]
        reports.append(Report(kind, kernel.parsed.name, *at.source, block, thread, address, words, at.text))
    return Result(reports, partial(_counters, instructions, raw["counters"]))


def _counters(instructions, counted):
    counters = Counters()
    for instruction, (warps, _, size, units, ideal, traffic) in zip(instructions, counted, strict=True):
        counters.each.append(Count(instruction.opcode, instruction.source, warps, units, ideal, dict(traffic)))
        counters.instructions += warps
        counters.by_opcode[instruction.opcode] += warps
        counters.by_line[instruction.source] += warps
        if ".global" in instruction.opcode:
            counters.sectors += units
            counters.ideal_sectors += ideal
            if instruction.opcode.startswith("st") or ".global.shared" in instruction.opcode:
                counters.global_bytes_written += size
            else:
                counters.global_bytes_read += size
        elif ".shared" in instruction.opcode:
            counters.shared_wavefronts += units
            counters.ideal_shared_wavefronts += ideal
    counters.by_opcode = +counters.by_opcode
    counters.by_line = +counters.by_line
    return counters
