"""What the emulator counts while it runs a case: one row for each kernel, and one for the op where it has several."""

import ctypes
import re
from collections import Counter, defaultdict
from functools import cache

import torch

from tests.emulator import emulated

WHOLE_OP = "whole op"
WITHOUT_COPIES = "sm_75"  # where kernels that need cp.async are none


@cache
def _demangler():
    demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    demangle.restype = ctypes.c_void_p
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    return demangle, free


@cache
def kernel_name(mangled):
    """Such as 'quantize_kernel<0, float, 4>(RunsPlan)', without namespaces and what changes with the build.

    Of the parameters the first is kept: kernels of one name differ in it.
    """
    demangle, free = _demangler()
    status = ctypes.c_int()
    text = demangle(mangled.encode(), None, None, ctypes.byref(status))
    if status.value != 0:
        raise ValueError(f"not the name of a kernel: {mangled}")
    name = ctypes.string_at(text).decode()
    free(text)
    name = re.sub(r"quaver::|\(anonymous namespace\)::|^void ", "", name)
    name = re.sub(r"\(\w+\)(\d)", r"\1", name).replace(" >", ">")  # casts of enumerators
    return re.sub(r"\(([\w<>: ]*).*\)$", r"(\1)", name)


def base(opcode):
    return opcode.split(".")[0]


def is_write(opcode):
    return base(opcode) in ("st", "red")


def tensors_in(values):
    return [value for value in values if isinstance(value, torch.Tensor)]


class Traffic:
    """Which allocations are the parameters of a call: all of its tensors but its data. What is left is scratch."""

    def __init__(self, call, results):
        data = [*call.data, *(results[i] for i in call.data_results)]
        every = tensors_in([*call.args, *call.kwargs.values(), *results])
        self.compulsory = sum(tensor.numel() * tensor.element_size() for tensor in data)
        known = {tensor.data_ptr() for tensor in data}
        self.parameters = {tensor.data_ptr() for tensor in every} - known

    def of(self, counts):
        """(read, written, bytes of parameters read or written)"""
        read = written = parameters = 0
        for count in counts:
            for address, size in count.traffic.items():
                if address in self.parameters:
                    parameters += size
                elif is_write(count.opcode):
                    written += size
                else:
                    read += size
        return read, written, parameters


def run(case, device):
    """(call, results, launches) of a case on a pretended device."""
    call = case.make()
    kernel = -1 if call.kernel is None or device == WITHOUT_COPIES else call.kernel
    with emulated.matmul_plan(kernel), emulated.device(device, seed=1) as runs:
        results = getattr(emulated.ops(), call.op)(*call.args, **call.kwargs)
    return call, results if isinstance(results, tuple) else (results,), runs


def ratio(value, ideal):
    return value / ideal if ideal else 1.0


def row_of(counts, traffic, elements):
    sums = defaultdict(int)
    opcodes = Counter()
    for count in counts:
        opcodes[base(count.opcode)] += count.warps
        space = "global" if ".global" in count.opcode else "shared" if ".shared" in count.opcode else None
        sums[space, "units"] += count.units
        sums[space, "ideal"] += count.ideal
    read, written, parameters = traffic.of(counts)
    instructions = sum(opcodes.values())
    return {
        "elements": elements,
        "instructions": instructions,
        "thread_instructions_per_element": 32 * instructions / elements,
        "mma": opcodes["mma"] + opcodes["wgmma"],
        "dp4a": opcodes["dp4a"],
        "bytes_read": read,
        "bytes_written": written,
        "parameter_bytes": parameters,
        "sectors": sums["global", "units"],
        "ideal_sectors": sums["global", "ideal"],
        "sectors_over_ideal": ratio(sums["global", "units"], sums["global", "ideal"]),
        "wavefronts": sums["shared", "units"],
        "ideal_wavefronts": sums["shared", "ideal"],
        "wavefronts_over_ideal": ratio(sums["shared", "units"], sums["shared", "ideal"]),
        "opcodes": " ".join(f"{name}:{number}" for name, number in sorted(opcodes.items()) if number),
    }


def with_bytes(row, traffic):
    """What an op's kernels move together, against what its tensors hold."""
    moved = row["bytes_read"] + row["bytes_written"]
    return {**row, "compulsory_bytes": traffic.compulsory, "bytes_over_compulsory": ratio(moved, traffic.compulsory)}


def count(case, device):
    """The rows of a case: {"kernel": ..., ...} with what is counted."""
    call, results, runs = run(case, device)
    traffic = Traffic(call, results)
    launches = defaultdict(list)
    for launch in runs:
        shape = {"kernel": kernel_name(launch.kernel), "threads": launch.block[0], "dynamic_shared": launch.shared}
        launches[tuple(shape.items())].append(launch)
    rows = []
    for shape, same in launches.items():
        counts = [each for launch in same for each in launch.counters.each]
        rows.append({**dict(shape), "blocks": sum(launch.grid[0] for launch in same)})
        rows[-1] |= row_of(counts, traffic, call.elements)
    if len(rows) == 1:
        return [with_bytes(rows[0], traffic)]
    counts = [each for launch in runs for each in launch.counters.each]
    return [*rows, {"kernel": WHOLE_OP, **with_bytes(row_of(counts, traffic, call.elements), traffic)}]


def count_lines(case, device, kernel):
    """{(file, line): Counter} of the launches whose kernel has `kernel` in its name."""
    lines = defaultdict(Counter)
    for launch in run(case, device)[2]:
        if kernel not in kernel_name(launch.kernel):
            continue
        for each in launch.counters.each:
            line = lines[each.source]
            line["instructions"] += each.warps
            line[f"opcode {base(each.opcode)}"] += each.warps
            if each.traffic:
                line["bytes written" if is_write(each.opcode) else "bytes read"] += sum(each.traffic.values())
            unit = "sectors" if ".global" in each.opcode else "wavefronts"
            line[unit] += each.units
            line[f"ideal {unit}"] += each.ideal
    return lines
