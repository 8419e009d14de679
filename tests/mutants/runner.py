"""Runs mutants and judges them: seen by a check or by wrong bits, or a survivor."""

import multiprocessing
import os
from dataclasses import dataclass

import torch

from tests.emulator import LaunchError

from .operators import ORDERING
from .subjects import Trial, run_case

# Orders of warps and blocks, 0 the plain one. Only a mutant of what orders threads depends on them.
SEEDS = (1, 2, 0)
_PIECE = 8  # mutants that a worker takes at once


@dataclass
class Outcome:
    subject: str
    family: str
    operator: str
    at: int
    ptx: str
    source: tuple
    change: str
    seen: str = ""  # what showed it; empty for a survivor
    reached: bool = True  # whether any case runs the place

    @property
    def survived(self):
        return not self.seen


def try_mutant(subject, mutant):
    outcome = Outcome(
        subject.name, subject.family, mutant.operator, mutant.at, mutant.ptx, mutant.source, mutant.change
    )
    cases = subject.cases_for(mutant)
    outcome.reached = bool(cases)
    if not cases:
        return outcome
    try:
        trial = Trial(subject, mutant)
    except LaunchError as error:
        outcome.seen = f"refused: {error}"
        return outcome
    for seed in SEEDS if mutant.operator in ORDERING else SEEDS[:1]:
        for case in cases:
            outcome.seen = what_shows(subject, case, trial, seed)
            if outcome.seen:
                subject.latest = case
                return outcome
    return outcome


def what_shows(subject, case, trial, seed):
    """The kind of the first report, "wrong bits", or what the emulator or the op refused; empty where nothing shows."""
    try:
        run_case(subject, case, trial, seed)
    except AssertionError as error:
        return kind_of(str(error))
    except (RuntimeError, LaunchError) as error:  # a launch that is refused, a kernel that runs past its end
        return f"refused: {error}"
    return ""


def kind_of(text):
    """A report begins with its kind, "shared race in ..."; other texts are of a comparison.

    Only the first line counts: behind it pytest may have written how the compared values differ.
    """
    first = text.splitlines()[0]
    if "have bytes that no kernel wrote" in first:
        return "results not written"
    return first.split(" in ")[0] if " in " in first else "wrong bits"


# Forked workers inherit the subjects and what they reach.
_work = []


def _try(number):
    return try_mutant(*_work[number])


def run(subjects, operators=None, every=1, workers=None):
    """The outcomes of all mutants, or of every so-manieth one."""
    mutants = []
    for subject in subjects:
        chosen = [each for each in subject.mutants() if operators is None or each.operator in operators]
        mutants += [(subject, mutant) for mutant in chosen]
    mutants = mutants[::every]
    for subject in subjects:
        subject.prepare([mutant for owner, mutant in mutants if owner is subject])
    workers = workers or min(2, os.cpu_count() or 1)
    _work[:] = mutants
    if workers == 1:
        return [_try(number) for number in range(len(mutants))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    try:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            return pool.map(_try, range(len(mutants)), chunksize=_PIECE)
    finally:
        torch.set_num_threads(threads)
