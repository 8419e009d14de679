"""A case of a benchmark: the same work by several candidates. Here it is checked, timed and made into rows."""

import argparse
import gc
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks import machine, peers, rows, timing

WARM, COLD = "warm", "cold"


@dataclass(frozen=True)
class Case:
    """What is timed, and its name."""

    op: str
    what: str  # shape, dtype, granularity
    make: Callable  # (seed) -> {name: Candidate or None}; for cold calls, each seed with operands of its own
    memory: str = WARM
    nbytes: int = 0  # of a set of operands and results, for cold calls
    moved: int = 0
    operations: int = 0
    near: float = timing.NEAR
    clock: Callable = timing.milliseconds


def measure(group, case, threads, probe):
    """A row for each candidate."""
    count = timing.sets_of_operands(case.nbytes) if case.nbytes and case.memory == COLD else 1
    sets = [{name: each for name, each in case.make(seed).items() if each is not None} for seed in range(count)]
    others = list(sets[0].items())[1:]  # the first is what they are compared with
    spared = [name for name, each in others if not (each.exact or name == rows.ALONE or rows.is_ours(name))]
    wrong = timing.check(sets[0], case.near, spared)
    for name, words in wrong.items():
        peers.failed[name, f"{case.op}, {case.what}"] = words
    calls = [{name: each.call for name, each in candidates.items() if name not in wrong} for candidates in sets]
    before = probe.slowdowns()
    timings = timing.take_turns(calls, case.clock)
    disturbed = machine.disturbed(before, probe.slowdowns())
    same = (group, case.op, case.what, case.memory, threads)
    return [
        rows.Row(*same, name, each.median, each.low, each.high, case.moved, case.operations, disturbed)
        for name, each in timings.items()
    ]


def shares_found(what, candidates):
    """{what and who: words}: how much of the exact result, which is of one sign, each int8 peer finds."""
    exact, *others = ((name, each) for name, each in candidates.items() if each)
    expected = exact[1].result()[0].double().mean()
    peers_of_int8 = [
        (name, each)
        for name, each in others
        if not (each.exact or name == rows.ALONE or rows.is_ours(name) or name in rows.FLOATS)
    ]
    shares = {name: each.result()[0].double().mean() / expected for name, each in peers_of_int8}
    return {f"{what}, {name}": f"{share:.1%} of the exact one" for name, share in shares.items()}


def line(found):
    """A case's rows in words."""
    first = found[0]
    fastest = min(found, key=lambda row: row.milliseconds)
    times = ", ".join(f"{row.candidate} {in_time(row.milliseconds)}" for row in found)
    note = "  DISTURBED" if first.disturbed else ""
    what = f"{first.op}, {first.case}, {first.memory}, {first.threads} thread{'s' * (first.threads > 1)}"
    return f"{what}: {times}; fastest: {fastest.candidate}{note}"


def in_time(milliseconds):
    return f"{milliseconds * 1e3:.3g} us" if milliseconds < 1 else f"{milliseconds:.3g} ms"


def run(group, description, cases, facts=lambda _: {}, options=lambda _: None, objection=lambda _: None):
    """A benchmark's command line. Rows go to a file, lines to the screen.

    Arguments:
        cases: what was chosen on the command line to the cases.
        facts: the same to what is no time of a case, {what: number or words}.
        options: adds options of its own to the command line's parser.
        objection: what was chosen to why it cannot be run here, or None.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.bench_{group}", description=description.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="few cases, and small ones")
    parser.add_argument("--threads", type=int, default=len(machine.cores()), help="default: one for each core")
    parser.add_argument("--rows", metavar="FILE.csv", help="where to write the rows, and notes beside them, as JSON")
    options(parser)
    chosen = parser.parse_args()
    if objection(chosen):
        raise SystemExit(objection(chosen))
    for category in (UserWarning, DeprecationWarning):  # some of torch's own peers are deprecated
        warnings.filterwarnings("ignore", category=category)
    machine.pin(chosen.threads)
    print(f"{group}: {machine.processor()}, {chosen.threads} threads, load {machine.load():.1f}", flush=True)
    probe = machine.Probe()
    found, broken = [], []
    with torch.inference_mode():
        for case in cases(chosen):
            try:
                found += (now := measure(group, case, chosen.threads, probe))
            except Exception as error:  # a candidate that does something else, or nothing: the others go on
                broken.append(f"{case.op}, {case.what}: {peers.reason(error)}")
                print(f"NOT TIMED: {broken[-1]}", flush=True)
                continue
            print(line(now), flush=True)
            gc.collect()
    notes = {
        "absent": peers.absent,
        "failed": {f"{name}, {what}": why for (name, what), why in peers.failed.items()},
        "broken": broken,
        "copied per second": probe.copied_per_second,
    }
    for name, why in (notes["absent"] | notes["failed"]).items():
        print(f"not here: {name}: {why}")
    _write(chosen.rows, found, notes)
    notes["facts"] = facts(chosen)
    for what, number in notes["facts"].items():
        print(f"{what}: {number}")
    _write(chosen.rows, found, notes)
    return 1 if broken else 0


def _write(path, found, notes):
    if path:
        with open(f"{path}.json", "w") as file:
            json.dump(notes, file, indent=1)
        rows.write(path, found)
