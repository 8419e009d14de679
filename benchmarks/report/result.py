"""A run's rows and what it ran on: a CSV and a JSON file."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks import rows

KEPT = Path(__file__).parents[1] / "results"  # a pair of files for each kind of machine


@dataclass(frozen=True)
class Result:
    """A run."""

    about: dict
    rows: tuple

    @cached_property
    def cells(self):
        return rows.cells(self.rows)

    @cached_property
    def ceilings(self):
        """{threads: (bytes a second, operations a second)} that this machine reached: of a copy, and of the fastest
        int8 product of any library."""
        found = {}
        for threads in sorted({row.threads for row in self.rows}):
            notes = [note for name, note in self.about["notes"].items() if name.endswith(f", {threads} threads")]
            copied = max((note.get("copied per second", 0) for note in notes), default=0)
            products = [row for row in self.rows if row.group == "matmul" and row.threads == threads]
            int8 = [row for row in products if row.candidate not in ("reference", *rows.FLOATS)]
            rate = max((row.operations / row.milliseconds * 1e3 for row in int8), default=0)
            found[threads] = copied, rate
        return found

    def share(self, row):
        """What bounds the row, and how much of the machine's ceiling it reached; None where neither is counted."""
        copied, rate = self.ceilings[row.threads]
        if row.operations and rate:
            return "product", row.operations / row.milliseconds * 1e3 / rate
        if row.moved and row.memory == "cold" and copied:
            return "copy", row.moved / row.milliseconds * 1e3 / copied
        return None

    def with_later(self, later):
        """This run, with what a later one timed again in its place."""
        if self.about["versions"] != later.about["versions"]:
            raise ValueError("the kept result is of other versions: run all benchmarks")
        again = {row.group for row in later.rows}
        groups = dict.fromkeys(row.group for row in (*self.rows, *later.rows))
        found = [row for group in groups for row in (later if group in again else self).rows if row.group == group]
        return Result(self.about | {"notes": self.about["notes"] | later.about["notes"]}, tuple(found))

    def write(self, folder, name="result"):
        """name.csv and name.json."""
        folder.mkdir(parents=True, exist_ok=True)
        rows.write(folder / f"{name}.csv", self.rows)
        (folder / f"{name}.json").write_text(json.dumps(self.about, indent=1) + "\n")

    @classmethod
    def read(cls, folder, name="result"):
        return cls(json.loads((folder / f"{name}.json").read_text()), tuple(rows.read(folder / f"{name}.csv")))


def kept():
    """The results that are kept, by the kind of machine."""
    return [Result.read(KEPT, path.stem) for path in sorted(KEPT.glob("*.csv"))]
