"""PTX from a shell: `list` says what a file holds, `run` runs a kernel of it and says what it did.

    python -m tests.emulator list FILE.ptx
    python -m tests.emulator run FILE.ptx KERNEL --grid 4 --block 256 --arg 'f32[1024]=normal' --arg s32=1024

The exit code is 0, 1 where something was reported, 2 where nothing could be run.
"""

import argparse
import re
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import ptx
from .module import DEVICES, LaunchError, Module, _place_variables

KINDS = {
    **{f"s{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
FILLS = "zeros, ones, range, normal, uniform, or a number"
ARGUMENTS = f"""\
an argument of the kernel, given once for each, in order:
  KIND=NUMBER         a number: s32=1024, f32=0.5
  KIND[SIZES]         an array of zeros: s8[1024], f32[16,64]
  KIND[SIZES]=FILL    an array of {FILLS};
                      uniform is over all of an integer's values, and over [0, 1) for floats
  FILE.npy            an array from a file, which stays as it is
KIND is one of {", ".join(KINDS)}, as PTX names them (16-bit brain floats are u16)."""
LONGEST_LISTS = 8
WIDTH = 110


class UsageError(ValueError):
    """What was asked for cannot be done; the words say what to change."""


def parser():
    top = argparse.ArgumentParser(prog="python -m tests.emulator", description="Runs CUDA kernels with no GPU.")
    commands = top.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what a file of PTX holds")
    running = commands.add_parser(
        "run", help="runs a kernel", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"--arg: {ARGUMENTS}"
    )
    for command in (listing, running):
        command.add_argument("file", type=Path, metavar="FILE.ptx")
    running.add_argument("kernel", metavar="KERNEL", help="its name, or a part of it that only one kernel's name has")
    running.add_argument("--grid", type=extent, required=True, metavar="X[,Y[,Z]]", help="blocks")
    running.add_argument("--block", type=extent, required=True, metavar="X[,Y[,Z]]", help="threads of a block")
    running.add_argument("--arg", action="append", default=[], metavar="ARG", help="an argument: see below")
    running.add_argument("--shared", type=natural, default=0, metavar="BYTES", help="dynamic shared memory")
    running.add_argument("--device", choices=DEVICES, default="sm_80", help="the pretended device")
    running.add_argument("--seed", type=natural, default=0, help="of the order of warps and of random fills")
    running.add_argument("--save", type=Path, metavar="FOLDER", help="keeps the arrays as they are afterwards")
    return top


def extent(text):
    if not re.fullmatch(r"\d+(,\d+){0,2}", text):
        raise argparse.ArgumentTypeError(f"one to three numbers with commas between, got {text!r}")
    return tuple(map(int, text.split(",")))


def natural(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number that is not negative, got {text!r}")
    return int(text)


def main(arguments=None):
    asked = parser().parse_args(arguments)
    try:
        text = read(asked.file)
        return list_kernels(text) if asked.command == "list" else run(text, asked)
    except OSError as error:
        words = f"{error.filename}: {error.strerror}"
    except (UsageError, ptx.PtxError, LaunchError) as error:
        words = f"{asked.file}: {error}"
    print(words, file=sys.stderr)
    return 2


def read(file):
    try:
        return file.read_text()
    except UnicodeDecodeError:
        raise UsageError("not text; PTX comes out of machine code by cuobjdump -ptx, or of nvcc -ptx") from None


# list


def list_kernels(text):
    module = ptx.parse(text)
    print(f"PTX {module.version} for {module.target}: {plural(len(module.kernels), 'kernel')}")
    for kernel in module.kernels.values():
        print(f"\n{kernel.name}")
        for number, parameter in enumerate(kernel.parameters):
            print(f"  parameter {number}: {plural(parameter.size, 'byte')} at {parameter.offset}")
        for limit, values in kernel.limits.items():
            print(f"  .{limit} {', '.join(map(str, values))}")
        print(f"  shared memory: {shared_memory(kernel, module)}")
        counts = Counter(instruction.opcode for instruction in kernel.instructions)
        print_wrapped(f"  {plural(len(kernel.instructions), 'instruction')}: {in_order(counts)}")
    return 0


def shared_memory(kernel, module):
    variables, outside = ([v for v in each if v.space == "shared"] for each in (kernel.variables, module.variables))
    symbols, static, _ = _place_variables(replace(kernel, variables=variables), outside)
    dynamic = any(v.size == 0 and v.name in symbols for v in (*variables, *outside))
    return plural(static, "byte") + (", and what the launch gives" if dynamic else "")


# run


def run(text, asked):
    module = Module.from_ptx(text, asked.device)
    name = the_kernel(module.kernels, asked.kernel)
    kernel = module.kernel(name)
    random = np.random.default_rng(asked.seed)
    given = [argument(each, random) for each in asked.arg]
    check_arguments(kernel.parsed, asked.arg, given)
    before = [each.copy() for each in given]
    args = [each if each.ndim else each.tobytes() for each in given]
    result = module.launch(name, grid=asked.grid, block=asked.block, args=args, shared=asked.shared, seed=asked.seed)
    print(f"{name} on {asked.device}, grid {shown(asked.grid)}, block {shown(asked.block)}, seed {asked.seed}")
    print_reports(result.reports)
    print_counters(result.counters)
    for number, (old, new) in enumerate(zip(before, given, strict=True)):
        if new.ndim:
            print(f"argument {number}: {summary(old, new)}")
            save(asked.save, number, new)
    return 0 if result.ok else 1


def the_kernel(names, asked):
    if asked in names:
        return asked
    found = [name for name in names if asked in name]
    if len(found) != 1:
        some = f"{plural(len(found), 'kernel')} with {asked!r} in the name" if found else f"no kernel {asked!r}"
        raise UsageError(f"{some}; there are {', '.join(found or names)}")
    return found[0]


def argument(text, random):
    """An array, or a number as an array with no dimension."""
    if text.endswith(".npy"):
        try:
            array = np.load(text)
        except ValueError as error:
            raise UsageError(f"--arg {text}: {error}") from None
        if array.dtype not in KINDS.values():
            raise UsageError(f"--arg {text}: an array of {array.dtype}; known are {', '.join(KINDS)}")
        return np.atleast_1d(np.ascontiguousarray(array))
    found = re.fullmatch(r"(\w+)(?:\[([\d,]*)\])?(?:=(.+))?", text)
    if found is None or found[1] not in KINDS or (found[2] is None and found[3] is None):
        raise UsageError(f"--arg {text} is not understood. It is {ARGUMENTS}")
    kind, sizes, fill = KINDS[found[1]], found[2], found[3]
    if sizes is None:
        return number(text, fill, kind)
    if not re.fullmatch(r"\d+(,\d+)*", sizes):
        raise UsageError(f"--arg {text}: sizes are numbers with commas between, got {sizes!r}")
    return filled(text, tuple(map(int, sizes.split(","))), fill or "zeros", kind, random)


def number(text, value, kind):
    try:
        read = np.array(float(value) if kind.kind == "f" else int(value, 0))
        with np.errstate(over="ignore"):  # a float too large for its kind is infinity
            made = read.astype(kind)
    except (ValueError, OverflowError):
        raise UsageError(f"--arg {text}: {value!r} is no number for it") from None
    if kind.kind != "f" and made != read:
        raise UsageError(f"--arg {text}: {value} is beyond {np.iinfo(kind).min} to {np.iinfo(kind).max}")
    return made


def filled(text, sizes, fill, kind, random):
    count = int(np.prod(sizes))
    if fill == "range":
        return np.arange(count).astype(kind).reshape(sizes)
    if fill == "normal":
        if kind.kind != "f":
            raise UsageError(f"--arg {text}: normal is for floats; uniform fills integers")
        return random.standard_normal(sizes).astype(kind)
    if fill == "uniform":
        if kind.kind == "f":
            return random.random(sizes).astype(kind)
        return random.integers(np.iinfo(kind).min, np.iinfo(kind).max, sizes, kind, endpoint=True)
    words = {"zeros": "0", "ones": "1"}
    try:
        return np.full(sizes, number(text, words.get(fill, fill), kind))
    except UsageError:
        raise UsageError(f"--arg {text}: {fill!r} is none of {FILLS} that the kind can hold") from None


def check_arguments(kernel, texts, given):
    if len(given) != len(kernel.parameters):
        sizes = ", ".join(plural(parameter.size, "byte") for parameter in kernel.parameters)
        takes = f"{kernel.name} takes {plural(len(kernel.parameters), 'argument')}"
        raise UsageError(f"{takes}{f' ({sizes})' if sizes else ''}, got {len(given)}")
    for place, (parameter, text, value) in enumerate(zip(kernel.parameters, texts, given, strict=True)):
        size = 8 if value.ndim else value.itemsize
        if size != parameter.size:
            what = "an array's address" if value.ndim else "a number"
            raise UsageError(f"argument {place}, --arg {text}: {what} of {size} bytes; it takes {parameter.size}")


def print_reports(reports):
    print(plural(len(reports), "report") if reports else "no reports")
    for report in reports:
        print(f"  {report}")


def print_counters(counters):
    print_wrapped(f"{plural(counters.instructions, 'warp instruction')}: {in_order(counters.by_opcode)}")
    lines = Counter({f"{Path(file).name}:{line}": n for (file, line), n in counters.by_line.items() if file})
    if lines:
        print_wrapped(f"by source line: {in_order(lines, LONGEST_LISTS)}")
    print(
        f"global memory: {counters.global_bytes_read} bytes read, {counters.global_bytes_written} written; "
        f"{plural(counters.sectors, 'sector')}, {counters.ideal_sectors} at best"
    )
    print(
        f"shared memory: {plural(counters.shared_wavefronts, 'wavefront')}, {counters.ideal_shared_wavefronts} at best"
    )


def summary(old, new):
    """An array's kind and sizes, how much of it changed, and a few of its values."""
    kind = next(name for name, dtype in KINDS.items() if dtype == new.dtype)
    what = f"{kind}[{','.join(map(str, new.shape))}]"
    bits = np.dtype(f"u{new.itemsize}")
    changed = int(np.count_nonzero(old.view(bits) != new.view(bits)))
    if changed == 0:
        return f"{what} unchanged"
    values = new.reshape(-1)
    style = "g" if new.dtype.kind == "f" else "d"
    few = ", ".join(format(value, style) for value in values[:LONGEST_LISTS].tolist())
    rest = ", ..." if values.size > LONGEST_LISTS else ""
    least, most = (format(value.item(), style) for value in (values.min(), values.max()))
    return f"{what} {changed} changed; {least} to {most}, mean {values.mean(dtype=float):g}: {few}{rest}"


def save(folder, number, array):
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"arg{number}.npy", array)


# Words


def plural(count, noun):
    return f"{count} {noun}{'' if count == 1 else 's'}"


def print_wrapped(text):
    """In lines, each broken after a comma."""
    held = re.sub(r"(?<!,) ", "\xa0", text)
    filled_in = textwrap.fill(held, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    print(filled_in.replace("\xa0", " "))


def shown(sizes):
    return ",".join(map(str, sizes))


def in_order(counts, most=None):
    """The most frequent first."""
    parts = [f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    rest = [f"{len(parts) - most} more"] if most and len(parts) > most else []
    return ", ".join(parts[:most] + rest)
