"""Compare every op with the reference on this machine, bit for bit.

Thousands of random calls: all dtypes and granularities, odd shapes and strides, ties, denormals, infinities and NaN,
on the CPU and on every GPU. The status is 1 where a bit differs.
"""

import json

from quaver import selftest
from quaver.selftest import run_rows


def add_arguments(command):
    """How long, where, and which calls."""
    command.add_argument("--seconds", type=float, default=60, help="how long it may take (default: 60)")
    command.add_argument("--device", help="such as cpu or cuda:1; by default the CPU and every GPU")
    command.add_argument("--seed", type=int, default=0, help="another one draws other calls (default: 0)")


def run(chosen):
    """Prints a row for each form of each op."""
    if not chosen.json:
        return selftest(chosen.seconds, device=chosen.device, seed=chosen.seed)
    rows = run_rows(chosen.seconds, device=chosen.device, seed=chosen.seed)
    print(json.dumps([{**vars(row), "failure": _words(row.failure)} for row in rows], indent=2))
    return int(any(row.failure is not None for row in rows))


def _words(failure):
    return None if failure is None else f"{type(failure).__name__}: {failure}"
