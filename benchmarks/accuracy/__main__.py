"""Measures every recipe on every model, and keeps the tables: `python -m benchmarks.accuracy [MODEL ...]`."""

import argparse
import gc
import sys
import time

from . import page, tasks, ways


def measured(task):
    """A row for each way: (name, its measures, seconds)."""
    for name, make in ways.ways(task).items():
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
    parser.add_argument("--keep", action="store_true", help="write the tables of these models")
    chosen = parser.parse_args()
    unknown = set(chosen.models) - tasks.TASKS.keys()
    if unknown:
        parser.error(f"there is no model {sorted(unknown)}")
    for name in chosen.models or tasks.TASKS:
        task = tasks.TASKS[name]()
        rows = list(measured(task))
        if chosen.keep:
            page.keep(task, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
