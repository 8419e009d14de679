"""The table: a row for each case, architecture and kernel, with what was counted and what was compiled."""

import csv
import io
from pathlib import Path

from tests.emulator import DEVICES

from . import compiled
from .counted import WHOLE_OP, count

FOLDER = Path(__file__).parents[1]
CSV = FOLDER / "evidence.csv"

KEY = ("case", "architecture", "kernel")
COUNTS = (
    "elements", "blocks", "threads", "dynamic_shared", "instructions", "thread_instructions_per_element", "mma", "dp4a",
    "bytes_read", "bytes_written", "parameter_bytes", "compulsory_bytes", "bytes_over_compulsory", "sectors",
    "ideal_sectors", "sectors_over_ideal", "wavefronts", "ideal_wavefronts", "wavefronts_over_ideal",
)  # fmt: skip
RESOURCES = ("registers", "stack_bytes", "local_bytes", "static_shared", "resident_blocks", "occupancy")
LOOP_KINDS = (
    "global load", "global store", "shared", "local", "mma", "dp4a", "float", "conversion", "integer", "move", "control"
)  # fmt: skip
CYCLES_OF_PRODUCT = "loop_cycles_of_mma"  # to issue the main loop's instructions, for each of its products
LOOP = ("loops", *(f"loop {kind}" for kind in LOOP_KINDS), CYCLES_OF_PRODUCT)
COLUMNS = ("op", *KEY, *COUNTS, *RESOURCES, *LOOP, "opcodes")
TEXTS = ("op", *KEY, "opcodes")


def rounded(row):
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def counted_rows(cases, architecture):
    rows = []
    for case in cases:
        for row in count(case, architecture):
            named = {"op": case.op, "case": case.name, "architecture": architecture}
            rows.append(rounded({**dict.fromkeys(COLUMNS), **named, **row}))
    return rows


def with_resources(rows):
    """Adds what ptxas reports, and how many blocks fit a multiprocessor."""
    resources = compiled.resources()
    for row in rows:
        if row["kernel"] == WHOLE_OP:
            continue
        if (row["kernel"], row["architecture"]) not in resources:
            raise LookupError(f"the shipped library has no {row['kernel']} for {row['architecture']}: build it anew")
        used = resources[row["kernel"], row["architecture"]]
        blocks = compiled.blocks_that_fit(row["architecture"], used, row["threads"], row["dynamic_shared"])
        row |= {"registers": used.registers, "stack_bytes": used.stack, "local_bytes": used.local}
        row |= {"static_shared": used.static_shared, "resident_blocks": blocks}
        row["occupancy"] = round(blocks * row["threads"] / DEVICES[row["architecture"]].threads_per_multiprocessor, 3)
    return rows


def with_loops(rows):
    """Adds the main loop's instructions."""
    for row in rows:
        if row["kernel"] == WHOLE_OP:
            continue
        loop = compiled.main_loops(row["architecture"])[row["kernel"]]
        row |= {"loops": int(loop.loops), **{f"loop {kind}": loop.kinds[kind] for kind in LOOP_KINDS}}
        row[CYCLES_OF_PRODUCT] = round(loop.cycles / loop.kinds["mma"], 3) if loop.kinds["mma"] else None
    return rows


def text_of(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read():
    """The kept table's rows."""

    def value_of(name, text):
        if name in TEXTS:
            return text
        return None if text == "" else float(text) if "." in text else int(text)

    with CSV.open(newline="") as file:
        return [{name: value_of(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
