"""EVIDENCE.md: the table in a form to be read."""

import re

from . import bounds
from .counted import WHOLE_OP
from .peaks import GPUS
from .table import CYCLES_OF_PRODUCT, FOLDER, LOOP_KINDS

PAGE = FOLDER / "EVIDENCE.md"
SHOWN = "sm_80"
ROOFLINE_ELEMENTS = 4096 * 4096
ROOFLINE_CASES = tuple(
    case.format(dtype)
    for dtype in ("float32", "bfloat16")
    for case in (
        "choose_qparams {} 64x1024 per tensor",
        "quantize {} 64x1024 per channel 0",
        "dynamic_quantize {} 8x4096 per token",
        "dequantize {} 64x1024 per channel 0",
    )
)

HEAD = """\
# Evidence, counted with no GPU

`make evidence` writes this page and [evidence.csv](evidence.csv), where every number of every case stands;
`tests/test_evidence.py` counts again and holds every case to the bounds.

**What is counted**: the PTX that nvcc {nvcc} makes of the shipped sources, launched by the shipped launchers, run by
[the emulator](../tests/emulator/README.md): warp instructions, bytes asked of global memory (a byte once for all lanes
of a warp), 32-byte sectors and wavefronts of shared memory against the fewest that could carry the same bytes.
Registers, spills, occupancy (as NVIDIA's `cuda_occupancy.h` has it) and the main loop's machine instructions are of the
installed library.

**What it does not show**: time. Nothing here was measured on a GPU. Caches, latencies and clocks are not modelled, and
ptxas turns PTX instructions into more (a division) or fewer (a move) of its own. Bytes of parameters, which caches
serve after the first read, are counted apart.
"""


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


def number(value):
    return "" if value is None else f"{value:g}"


def cases_section(rows):
    table = [
        (
            row["case"],
            f"`{row['kernel']}`" if row["kernel"] != WHOLE_OP else WHOLE_OP,
            number(row["thread_instructions_per_element"]),
            number(row["bytes_over_compulsory"]),
            number(row["sectors_over_ideal"]) if row["kernel"] != WHOLE_OP else "",
            number(row["wavefronts_over_ideal"]) if row["wavefronts"] and row["kernel"] != WHOLE_OP else "",
            number(row["registers"]),
            number(row["occupancy"]),
        )
        for row in rows
        if row["architecture"] == SHOWN
    ]
    header = (
        "case",
        "kernel",
        "instructions / element",
        "bytes / compulsory",
        "sectors / ideal",
        "wavefronts / ideal",
        "registers",
        "occupancy",
    )
    words = (
        f"On {SHOWN}. Instructions are of threads, for each element, or for each product of a matmul. Cells are empty"
        " where there is nothing to count, or where it is counted for the whole op.\n"
    )
    return f"## Cases\n\n{words}\n{markdown(header, table)}"


def bounds_section():
    first = (
        f"No spills; sectors / ideal at most {bounds.ACCESSES['sectors_over_ideal']}, wavefronts / ideal at most"
        f" {bounds.ACCESSES['wavefronts_over_ideal']}; bytes / compulsory at most {bounds.MOST_BYTES} for"
        f" {', '.join(f'`{op}`' for op in bounds.BOUND_BY_MEMORY)}. Less is asked of these:\n"
    )
    table = [
        (*map(pattern, (each.op, each.case, each.kernel)), each.quantity.replace("_", " "), each.most, each.reason)
        for each in bounds.LOOSER
    ]
    header = ("op", "case", "kernel", "quantity", "at most", "why")
    return f"## Bounds\n\n{first}\n{markdown(header, table)}"


def pattern(text):
    return f"`{text}`".replace("|", "\\|") if text else "any"


def roofline_section(rows):
    table = []
    for gpu in GPUS:
        for row in rows:
            of_op = row["bytes_over_compulsory"] is not None
            if row["architecture"] != gpu.architecture or not of_op or row["case"] not in ROOFLINE_CASES:
                continue
            times = ROOFLINE_ELEMENTS / row["elements"]
            by_bytes = gpu.microseconds_of_bytes(times * (row["bytes_read"] + row["bytes_written"]))
            by_issue = gpu.microseconds_of_issue(times * row["instructions"])
            bound = "bytes" if by_bytes >= by_issue else "issue"
            table.append((gpu.name, row["case"], f"{by_bytes:.1f}", f"{by_issue:.1f}", bound))
    words = (
        "**Bound, counted, not measured**: microseconds that 4096 x 4096 elements need at the least, with a case's"
        " bytes and instructions for each element. By bytes: at the memory's published bandwidth. By issue: one slot"
        " for each PTX instruction of a warp, four slots a clock in every multiprocessor at the published boost clock;"
        " an estimate, since machine instructions are not PTX's.\n"
    )
    peaks = [
        (gpu.name, gpu.architecture, f"{gpu.bytes_per_second / 1e9:g}", gpu.multiprocessors, f"{gpu.clock / 1e9:g}")
        for gpu in GPUS
    ]
    peak_table = markdown(("GPU", "architecture", "GB/s", "multiprocessors", "GHz"), peaks)
    header = ("GPU", "case", "by bytes, us", "by issue, us", "bound by")
    return f"## Rooflines\n\n{words}\n{peak_table}\n{markdown(header, table)}"


def kernels_section(rows):
    known = {}
    for row in rows:
        if row["kernel"] != WHOLE_OP:
            known.setdefault(row["kernel"], {}).setdefault(row["architecture"], row)
    table = []
    for kernel, by_architecture in sorted(known.items()):
        for architecture, row in by_architecture.items():
            loop = ", ".join(f"{row[f'loop {kind}']} {kind}" for kind in LOOP_KINDS if row[f"loop {kind}"])
            loop = loop if row["loops"] else f"no loop; in all {loop}"
            if row[CYCLES_OF_PRODUCT] is not None:
                loop += f"; {row[CYCLES_OF_PRODUCT]:g} cycles to issue for each mma"
            table.append((f"`{kernel}`", architecture, row["registers"], row["static_shared"], row["threads"],
                          row["resident_blocks"], loop))  # fmt: skip
    header = ("kernel", "architecture", "registers", "shared", "threads", "blocks / multiprocessor", "main loop")
    words = (
        "The main loop is the innermost one that multiplies or, in kernels that do not, loads from global memory. Its"
        " instructions are counted as they stand in the machine code, rare paths included; dynamic counts are above.\n"
    )
    return f"## Kernels\n\n{words}\n{markdown(header, table)}"


def text_of(rows, nvcc):
    sections = [bounds_section(), cases_section(rows), roofline_section(rows), kernels_section(rows)]
    return "\n".join([HEAD.format(nvcc=nvcc), *sections])


def recorded_nvcc():
    """The release of nvcc that made what the kept table counts."""
    return re.search(r"the PTX that nvcc ([\d.]+) makes", PAGE.read_text()).group(1)
