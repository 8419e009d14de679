"""python -m benchmarks.beside_triton: our matmul beside Triton's of the same tile, both run by the emulator on sm_80.

Counted, not timed: what each does for a product, and what ptxas gives it. Triton's PTX is tests/emulator/triton's. A
machine with nvcc is needed, and no GPU. Writes benchmarks/beside_triton.csv.
"""

import csv
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evidence import compiled
from benchmarks.evidence.counted import base, kernel_name
from tests import triton_kernels
from tests.cases import codes
from tests.emulator import DEVICES, emulated, toolkit
from tests.emulator.devices import Use, resident_blocks

FILE = Path(__file__).with_suffix(".csv")
DEVICE = "sm_80"
SIZE = 256
K = (1024, 2048)  # the difference between the two is the main loop's alone
# (tile, Triton's kernel, our kernel's number in csrc/cuda/plan.h, whether b lies in memory as [N, K])
PAIRS = (
    ("128 x 256, 8 warps, 3 stages", "matmul_128x256x64_3", 0, True),
    ("128 x 128, 4 warps, 3 stages", "matmul_128x128x64_3", 1, True),
    ("64 x 64, 4 warps, 4 stages", "matmul_64x64x64_4", 2, True),
    ("32 x 128, 4 warps, 4 stages", "matmul_32x128x64_4", 3, True),
    ("64 x 64, 4 warps, b [K, N]", "matmul_rows_64x64x32_2", 5, False),
)


@dataclass
class Side:
    """What one kernel does for a product [SIZE, K] x [K, SIZE]."""

    mma: int
    instructions: int
    sectors: int
    ideal_sectors: int
    wavefronts: int
    ideal_wavefronts: int
    registers: int
    resident_warps: int


HEAD = (
    "kernel",
    "warp instructions / mma",
    "in the main loop",
    "sectors",
    "/ ideal",
    "wavefronts / mma",
    "/ ideal",
    "registers",
    "warps",
)


def row(name, short, long):
    """A line of the table, of the product with the shorter K and of the one with the longer."""
    in_loop = (long.instructions - short.instructions) / (long.mma - short.mma)
    return (
        name,
        f"{short.instructions / short.mma:.2f}",
        f"{in_loop:.2f}",
        f"{short.sectors:,}",
        f"{short.sectors / short.ideal_sectors:.2f}",
        f"{short.wavefronts / short.mma:.2f}",
        f"{short.wavefronts / short.ideal_wavefronts:.2f}",
        str(short.registers),
        str(short.resident_warps),
    )


def side(counters, threads, shared, registers):
    return Side(
        mma=sum(each.warps for each in counters.each if base(each.opcode) == "mma"),
        instructions=counters.instructions,
        sectors=counters.sectors,
        ideal_sectors=counters.ideal_sectors,
        wavefronts=counters.shared_wavefronts,
        ideal_wavefronts=counters.ideal_shared_wavefronts,
        registers=registers,
        resident_warps=resident_blocks(DEVICES[DEVICE], Use(threads, registers, shared), shared) * threads // 32,
    )


def registers_of(ptx):
    """What ptxas gives a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [
            toolkit.nvcc(),
            "-Xptxas=-v",
            f"-arch={DEVICE}",
            "-cubin",
            str(source),
            "-o",
            f"{folder}/kernel.cubin",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"Used (\d+) registers", done.stderr).group(1))


def tritons(name, a, b):
    _, _, warps, shared = (triton_kernels.MATMULS | triton_kernels.OF_OUR_TILES)[name]
    result, _ = triton_kernels.matmul(triton_kernels.module(name), name, a.numpy(), b.numpy(), seed=1)
    return side(result.counters, 32 * warps, shared, registers_of(triton_kernels.text(name)))


def ours(number, a, b):
    with emulated.matmul_plan(number), emulated.device(DEVICE, seed=1) as runs:
        emulated.ops().int8_matmul(a, b)
    (run,) = runs
    registers = compiled.resources()[kernel_name(run.kernel), DEVICE].registers
    return side(run.counters, run.block[0], run.shared, registers)


def rows():
    products = [(codes(SIZE, k), codes(SIZE, k, seed=1).t()) for k in K]
    for tile, name, number, b_is_weight in PAIRS:
        yield row(f"Triton's, {tile}", *(tritons(name, a, b.t()) for a, b in products))
        yield row(f"ours, {tile}", *(ours(number, a, b if b_is_weight else b.contiguous()) for a, b in products))


def counted():
    """The table's lines."""
    return [list(line) for line in rows()]


def read():
    """(the heads, the lines) that are kept."""
    with FILE.open(newline="") as file:
        heads, *lines = csv.reader(file)
    return heads, lines


def main():
    lines = [list(HEAD), *counted()]
    with FILE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
