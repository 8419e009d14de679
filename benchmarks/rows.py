"""The rows of results: a line of CSV for each candidate of each case, and what ratios are made of them."""

import csv
from dataclasses import asdict, dataclass, fields
from itertools import groupby

REFERENCE, OURS = "reference", "quaver"
ALONE = "product alone"  # a part of quaver's work, and no rival of anybody's
LOSS = 0.97  # a peer's time over ours; nearer to 1 is what repeated runs differ by


def is_ours(candidate):
    """Whether it is quaver, in one of its ways."""
    return candidate.split(",")[0] == OURS


FLOATS = ("eager", "float32", "bfloat16")  # candidates whose product is one of floats


@dataclass(frozen=True)
class Row:
    """One candidate's time for one case."""

    group: str  # the benchmark: elementwise, matmul, ...
    op: str
    case: str  # shape, dtype, granularity
    memory: str  # "cold": the operands come from memory; "warm": from the caches that they fit into
    threads: int
    candidate: str
    milliseconds: float  # the median
    low: float  # the quartiles
    high: float
    moved: int  # bytes of input and output, 0 where they are not what bounds it
    operations: int  # of a product, 0 elsewhere
    disturbed: bool  # the machine was slower than it can be, before or after

    @property
    def key(self):
        """What the candidates of a case have in common."""
        return self.group, self.op, self.case, self.memory, self.threads

    @property
    def ours(self):
        """Whether the candidate is quaver, in one of its ways."""
        return is_ours(self.candidate)


COLUMNS = tuple(field.name for field in fields(Row))


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "disturbed": int(row.disturbed)} for row in rows)


def read(path):
    read_as = {"threads": int, "moved": int, "operations": int, "disturbed": lambda text: bool(int(text))}
    read_as |= dict.fromkeys(("milliseconds", "low", "high"), float)
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file))
    return [Row(**{name: read_as.get(name, str)(text) for name, text in line.items()}) for line in lines]


@dataclass(frozen=True)
class Cell:
    """A case as the tables show it: one way of quaver's against the reference and the best of the others."""

    ours: Row
    reference: Row | None
    peers: tuple[Row, ...]  # all the others, the fastest first

    @property
    def over_reference(self):
        """The reference's time over ours; None without one."""
        return self.reference and self.reference.milliseconds / self.ours.milliseconds

    @property
    def over_best(self):
        """The fastest peer's time over ours; None without peers."""
        return self.peers[0].milliseconds / self.ours.milliseconds if self.peers else None

    @property
    def loses(self):
        """A peer is faster."""
        return bool(self.peers) and self.over_best < LOSS


def cells(rows):
    """A cell for each case and way of quaver's, in the rows' order."""
    found = []
    for _, grouped in groupby(rows, key=lambda row: row.key):
        candidates = list(grouped)
        reference = next((row for row in candidates if row.candidate == REFERENCE), None)
        others = [row for row in candidates if not row.ours and row is not reference and row.candidate != ALONE]
        peers = tuple(sorted(others, key=lambda row: row.milliseconds))
        found += [Cell(row, reference, peers) for row in candidates if row.ours]
    return found
