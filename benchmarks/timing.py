"""The only clock: first the results are compared, then the candidates take turns, A B C A B C, in one process.

A time is the median of the turns, with its quartiles. Inputs are random, never zeros, and a result that is one value
everywhere is refused. A call is timed as a user makes it, its Python part and the allocation of its result included.

Warm, all calls have the same operands, which stay in the caches that they fit into; a call that is not timed comes
right before each turn, but before those of a long one, and a short call is repeated within it. Cold, each call has
other operands than the one before it, of as many as three times the last cache holds. Between turns the threads of
whoever came before come to rest. On a GPU a call's kernels are timed, between two events of its stream, with nothing of
the operands in the L2 cache and with the host so far ahead that no kernel of a short call waits for its launch.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks import machine
from quaver.library import as_tuple

LEAST_TURNS = 5
MOST_TURNS = 200
SECONDS = 0.5  # a comparison goes on for at least as long, within the turns above
SECONDS_PER_TURN = 2e-3  # a short call is repeated for as long
SLOW = 20  # who takes so many times the fastest's time has few turns
SLOW_TURNS = 3
LONG = 50.0  # milliseconds of a call that needs no warming up
REST = 5e-3  # seconds in which threads that look for more work stop doing so
COLD = 3  # times the last cache, what cold calls rotate through
# How far another computation of the same thing may be, as a share of the result's norm: one in floats or other codes.
# Without VNNI, onnxruntime's products come to 0.02 where sums of pairs saturate.
NEAR = 0.04

INTEGER_VIEWS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Timing:
    """A candidate's times in milliseconds."""

    low: float  # the first quartile
    median: float
    high: float  # the third


@dataclass(frozen=True)
class Candidate:
    """A call without arguments, and how its result is looked at."""

    call: Callable
    exact: bool = False  # its result has the bits of the other exact ones; else it is near to them
    read: Callable = lambda result: result  # the result as the tensor, or tensors, that the others give

    def result(self):
        return as_tuple(self.read(self.call()))


# Inputs.


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# Results.


def same_bits(a, b):
    view = INTEGER_VIEWS[a.element_size()]
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(
        a.contiguous().view(view), b.contiguous().view(view)
    )


def check(candidates, near=NEAR, spared=()):
    """Compares the results of {name: Candidate}; the first is what the others are compared with.

    Returns {name: what is wrong with its result} of those in `spared`; another one's is raised.
    """
    first = next(iter(candidates.values()))
    expected = [tensor.clone() for tensor in first.result()]
    if expected[0].numel() > 1 and expected[0].unique().numel() < 2:
        raise AssertionError("the result is one value everywhere: the input is too simple to be timed")
    wrong = {}
    for name, candidate in candidates.items():
        try:
            check_one(name, candidate, expected, near)
        except AssertionError as error:
            if name not in spared:
                raise
            wrong[name] = str(error)
    return wrong


def check_one(name, candidate, expected, near):
    if candidate.exact:
        check_exact(name, candidate.result(), expected)
    else:
        for result, wanted in zip(candidate.result(), expected, strict=False):  # as many as both give
            check_near(name, result, wanted, near)


def check_exact(name, result, expected):
    for actual, wanted in zip(result, expected, strict=True):
        if not same_bits(actual, wanted):
            raise AssertionError(f"{name} gives other bits than the rest: it is not worth timing")


def check_near(name, result, expected, near=NEAR):
    if result.shape != expected.shape:
        raise AssertionError(f"{name} gives the shape {list(result.shape)}, the rest {list(expected.shape)}")
    distance = torch.dist(result.double(), expected.double()) / expected.double().norm()
    if not distance <= near:
        raise AssertionError(f"{name} is {distance:.3f} of the result's norm away from it, more than {near}")


# Time.


def milliseconds(function, times=1):
    """Of one call, on average."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    return 1e3 * (time.perf_counter() - start) / times


class HostClock:
    """Milliseconds of a call as a loop of eager code makes it: until the device has done all of them, over them."""

    def __init__(self, device):
        self.wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None

    def __call__(self, function, times=1):
        def all_of_them():
            for _ in range(times):
                function()
            self.wait()

        self.wait()
        return milliseconds(all_of_them) / times


class GpuClock:
    """Milliseconds of a call's kernels."""

    L2_BYTES = 2**28  # more than any GPU's L2 cache holds
    AHEAD = 10**6  # cycles, a fraction of a millisecond, in which the host launches what is timed

    def __init__(self, device):
        self.flush = torch.empty(self.L2_BYTES, dtype=torch.int8, device=device)

    def __call__(self, function, times=1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        torch.cuda._sleep(self.AHEAD)
        begin.record()
        function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)


def summary(times):
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(low, median, high)


def warm_up(calls, clock):
    """Milliseconds of the first of a candidate's calls. Every first call is slower: it takes memory from the system."""
    once = clock(calls[0])
    if once >= LONG:
        return once
    for call in calls[1:]:
        call()
    return min(once, clock(calls[0]))


def take_turns(sets, clock=milliseconds):
    """{name: Timing} of calls whose results have been looked at.

    Arguments:
        sets: [{name: call}], as many as there are sets of operands: one for warm calls, more for cold ones.
        clock: what gives a call's milliseconds.
    """
    names = list(sets[0])
    once = {name: warm_up([calls[name] for calls in sets], clock) for name in names}
    warm = len(sets) == 1
    repeats = {name: max(1, min(200, round(1e3 * SECONDS_PER_TURN / max(took, 1e-4)))) for name, took in once.items()}
    slow = {name for name in names if once[name] > SLOW * min(once.values())}
    times = {name: [] for name in names}
    start, used = time.perf_counter(), 0
    for turn in range(MOST_TURNS):
        if turn >= LEAST_TURNS and time.perf_counter() - start > SECONDS:
            break
        first = turn % len(names)  # so that nobody always comes after the same one
        for name in names[first:] + names[:first]:
            if name in slow and turn >= SLOW_TURNS:
                continue
            used += 1  # whoever is next has operands that nobody has used for long
            call = sets[used % len(sets)][name]
            if torch.get_num_threads() > 1:
                time.sleep(REST)
            if warm and once[name] < LONG:
                call()
            times[name].append(clock(call, repeats[name] if warm else 1))
    return {name: summary(values) for name, values in times.items()}


def sets_of_operands(nbytes):
    """How many sets of as many bytes are more than the caches hold, for cold calls."""
    return max(2, -(-COLD * machine.last_cache() // max(1, nbytes)) + 1)
