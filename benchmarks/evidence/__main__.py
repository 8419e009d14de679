"""Counts every case on every architecture and writes the table; or shows one kernel line by line."""

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

from tests.emulator import DEVICES

from . import bounds, compiled, page, table
from .cases import all_cases
from .counted import count_lines

LINE_COLUMNS = ("instructions", "bytes read", "bytes written", "sectors", "ideal sectors", "wavefronts")
LINE_COLUMNS += ("ideal wavefronts",)


def write():
    cases = all_cases()
    rows = []
    for architecture in DEVICES:
        print(f"{architecture}: {len(cases)} cases", file=sys.stderr, flush=True)
        rows += table.with_loops(table.with_resources(table.counted_rows(cases, architecture)))
    order = {case.name: number for number, case in enumerate(cases)}
    rows.sort(key=lambda row: order[row["case"]])  # stable: architectures and kernels keep their order
    table.CSV.write_text(table.text_of(rows))
    page.PAGE.write_text(page.text_of(rows, compiled.nvcc_release()))
    problems = bounds.broken(rows)
    problems += [f"no case needs this looser bound any more: {looser}" for looser in bounds.unneeded(rows)]
    print(f"{len(rows)} rows in {table.CSV.name}, {len(problems)} problems")
    return problems


def print_lines(kernel, pattern, architecture):
    """What the cases whose names contain `pattern` count at each line of kernels whose names contain `kernel`."""
    lines = defaultdict(Counter)
    for case in all_cases():
        if pattern not in case.name:
            continue
        found = count_lines(case, architecture, kernel)
        if found:
            print(case.name)
        for place, counts in found.items():
            lines[place].update(counts)
    if not lines:
        return [f"no case runs a kernel like {kernel!r}"]
    print(f"{'line':<32}" + "".join(f"{name:>18}" for name in LINE_COLUMNS) + "  opcodes")
    for (file, line), counts in sorted(lines.items()):
        if not counts["instructions"]:
            continue
        opcodes = [(name.removeprefix("opcode "), n) for name, n in counts.most_common() if name.startswith("opcode ")]
        place = f"{Path(file).name}:{line}" if file else "?"
        numbers = "".join(f"{counts[name]:>18}" for name in LINE_COLUMNS)
        print(f"{place:<32}{numbers}  {' '.join(f'{name}:{n}' for name, n in opcodes if n)}")
    return []


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--lines", metavar="KERNEL", help="print what is counted at each source line of a kernel")
    parser.add_argument("--case", default="", help="with --lines: only the cases whose names contain this")
    parser.add_argument("--architecture", default="sm_80", choices=DEVICES, help="with --lines")
    arguments = parser.parse_args()
    problems = print_lines(arguments.lines, arguments.case, arguments.architecture) if arguments.lines else write()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
