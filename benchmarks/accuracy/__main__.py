"""Measures every recipe on every model, and keeps the tables: `python -m benchmarks.accuracy [MODEL ...]`."""

import argparse
import gc
import sys
import time
from fnmatch import fnmatch

from . import page, tasks, ways


def measured(task, pattern):
    """A row for each way that the pattern fits: (name, its measures, seconds)."""
    for name, make in ways.ways(task).items():
        if not fnmatch(name, pattern):
            continue
        began = time.monotonic()
        model = make()
        measures = task.measure(model)
        del model
        gc.collect()
        row = (name, measures, time.monotonic() - began)
        print(f"{task.name:<14} {name:<40} {page.in_words(task, measures)}  ({row[2]:.0f} s)", flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(tasks.TASKS)} (default: all)")
    parser.add_argument("--ways", default="*", metavar="PATTERN", help='such as "static*"; default: all')
    parser.add_argument("--keep", action="store_true", help="write each into the tables as soon as it is measured")
    chosen = parser.parse_args()
    unknown = set(chosen.models) - tasks.TASKS.keys()
    if unknown:
        parser.error(f"there is no model {sorted(unknown)}")
    for name in chosen.models or tasks.TASKS:
        task = tasks.TASKS[name]()
        for row in measured(task, chosen.ways):
            if chosen.keep:
                page.keep(task, [row], list(ways.ways(task)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
