"""The first thing to run on a new machine: every op beside its definition, on whatever devices are there."""

import random
import time
from dataclasses import dataclass

import torch

from quaver.draw import CALLS, Draw
from quaver.library import NAMESPACE, as_tuple, written_arguments
from quaver.verify import VerificationError, verify

# How many elements a call has at most; every so often more than a block of threads, or than a block keeps to itself.
USUAL, LARGER = 2**12, {10: 2**15, 100: 2**19}


@dataclass
class Row:
    """What became of one form of one op on one device."""

    op: str
    form: str
    device: str
    cases: int = 0
    elements: int = 0
    failure: Exception | None = None

    @property
    def verdict(self):
        return "same bits" if self.failure is None else "FAILED"


def forms(op):
    """The names of an op's overloads: "default", and "out" where there is one."""
    return getattr(getattr(torch.ops, NAMESPACE), op).overloads()


def case(op, number, *, seed=0, device="cpu"):
    """The arguments, by name, of one of selftest's calls of an op: so a case that failed can be made again."""
    most = max([USUAL, *(most for every, most in LARGER.items() if number % every == every - 1)])
    return Draw(random.Random(f"{seed} {op} {number}"), device=device, most=most).call(op)


def compare(op, form, arguments):
    """Runs a form of an op beside the reference; gives how many elements were compared."""
    packet = getattr(getattr(torch.ops, NAMESPACE), op)
    overload = getattr(packet, form)
    written = written_arguments(overload)
    if written:
        places = dict(zip(written, map(torch.empty_like, as_tuple(packet(**arguments))), strict=True))
        taken = {argument.name for argument in overload._schema.arguments}
        arguments = {**{name: value for name, value in arguments.items() if name in taken}, **places}
    with verify():
        results = as_tuple(overload(**arguments))
    return sum(result.numel() for result in results)


def devices():
    """The CPU and every CUDA device."""
    return ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]


def selftest(seconds=60, *, device=None, seed=0):
    """Compares every op with the reference, bit for bit, and prints what came of it.

    Calls are drawn at random, the same ones for the same seed: all dtypes, granularities and modes; odd shapes, strides
    and alignments; ties, denormals, infinities and NaN. Each op is called in turn on each device until the time is
    over, and at least once. It needs nothing but quaver and torch; `quaver selftest` is this from a shell.

    Arguments:
        seconds: how long it may take; a minute compares thousands of calls.
        device: a torch.device or its name; by default the CPU and every CUDA device.
        seed: an int; another one draws other calls.

    Returns:
        None, after the table is printed, if every bit is right.

    Raises:
        VerificationError, after the table is printed, if a form of an op differed from the reference or failed; it
        says which case: `from quaver.selftest import case` and `case(op, number, seed=seed, device=device)` makes its
        arguments again.
        ValueError for seconds that are not a positive number.

    >>> import quaver
    >>> quaver.selftest(0.1, device="cpu")  # doctest: +ELLIPSIS
    op                      form     device  cases  elements  verdict
    choose_qparams          default  cpu ...  same bits
    ...
    """
    rows = run_rows(seconds, device=device, seed=seed)
    print(_table(rows))
    failed = [row for row in rows if row.failure is not None]
    if failed:
        raise VerificationError(_words(failed, seed)) from failed[0].failure


def run_rows(seconds, *, device=None, seed=0):
    """The table's rows, of what selftest does, which it then prints. Of an op that fails, too, there is a row."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"quaver.selftest: seconds must be a positive number, got {seconds!r}")
    places = devices() if device is None else [str(torch.device(device))]
    rows = [Row(op, form, place) for place in places for op in CALLS for form in forms(op)]
    _run(rows, time.monotonic() + seconds, seed)
    return rows


def _run(rows, end, seed):
    """A case of every row in turn, until the time is over. A row that failed is not gone on with."""
    number = 0
    while True:
        going = [row for row in rows if row.failure is None]
        for row in going:
            if number > 0 and time.monotonic() > end:
                return
            try:
                row.elements += compare(row.op, row.form, case(row.op, number, seed=seed, device=row.device))
                row.cases += 1
            except Exception as error:  # whatever a new machine comes up with is a row of the table
                row.failure = error
        number += 1
        if not going:
            return


def _table(rows):
    head = ("op", "form", "device", "cases", "elements", "verdict")
    lines = [head, *((r.op, r.form, r.device, str(r.cases), f"{r.elements:,}", r.verdict) for r in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = (head.index("cases"), head.index("elements"))

    def in_columns(line):
        cells = (
            f"{c:>{w}}" if i in numbers else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(in_columns, lines))


def _words(failed, seed):
    first = failed[0]
    return (
        f"{len(failed)} of the forms above failed, {first.op}.{first.form} on {first.device} "
        f"at case {first.cases} of seed {seed}: {type(first.failure).__name__}: {first.failure}"
    )
