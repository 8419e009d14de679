"""The only clock: first the results are compared, then the candidates take turns, A B C A B C, in one process.

A time is the median of the turns, with its quartiles. Inputs are random, never zeros, and a result that is one value
everywhere is refused. A call is timed as a user makes it, its Python part and the allocation of its result included, on
warm data. Other work on the machine spoils the times, however many turns are taken: the load is printed before and
after, and a second run tells. On a GPU a call's kernels are timed, between two events of its stream, with nothing of
the operands in the L2 cache and with the host far enough ahead that no kernel waits for its launch.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

import quaver
from quaver.library import as_tuple

LEAST_TURNS = 7
MOST_TURNS = 200
SECONDS = 1.0  # a comparison goes on for at least as long, within the turns above
IDLE_LOAD = 0.5  # more than this before the start is other work, which takes a share of every time
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

    def __str__(self):
        return f"{self.median:.3f} ({self.low:.3f}..{self.high:.3f})"


# Inputs.


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# Results.


def same_bits(a, b):
    view = INTEGER_VIEWS[a.element_size()]
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(
        a.contiguous().view(view), b.contiguous().view(view)
    )


def check_exact(name, result, expected):
    for actual, wanted in zip(as_tuple(result), as_tuple(expected), strict=True):
        if not same_bits(actual, wanted):
            raise AssertionError(f"{name} gives other bits than the rest: it is not worth timing")
    if as_tuple(result)[0].unique().numel() < 2:
        raise AssertionError(f"{name} gives one value everywhere: the input is too simple to be timed")


def check_near(name, result, expected):
    distance = torch.dist(result.double(), expected.double()) / expected.double().norm()
    if not distance <= NEAR:
        raise AssertionError(f"{name} is {distance:.3f} of the result's norm away from it, more than {NEAR}")


# Time.


def milliseconds(function):
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


class GpuClock:
    """Milliseconds of a call's kernels."""

    L2_BYTES = 2**28  # more than any GPU's L2 cache holds
    AHEAD = 10**6  # cycles, a fraction of a millisecond, in which the host launches what is timed

    def __init__(self, device):
        self.flush = torch.empty(self.L2_BYTES, dtype=torch.int8, device=device)

    def __call__(self, function):
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


def compare(exact, near=None, clock=milliseconds):
    """{name: Timing} of functions without arguments.

    Arguments:
        exact: {name: function}; all must give the same bits.
        near: {name: function} whose results are only near to those: a float computation of the same thing.
        clock: what gives a call's milliseconds.
    """
    near = near or {}
    expected = next(iter(exact.values()))()
    for name, function in exact.items():
        check_exact(name, function(), expected)
    for name, function in near.items():
        check_near(name, function(), as_tuple(expected)[0])

    return take_turns({**exact, **near}, clock)


def take_turns(candidates, clock=milliseconds):
    """{name: Timing} of functions whose results have been looked at."""
    times = {name: [] for name in candidates}
    start = time.perf_counter()
    for turn in range(MOST_TURNS):
        if turn >= LEAST_TURNS and time.perf_counter() - start > SECONDS:
            break
        for name, function in candidates.items():
            times[name].append(clock(function))
    return {name: summary(values) for name, values in times.items()}


# Words.


def processor():
    """The CPU's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def announce(title, device="cpu"):
    """What is measured, on what, when, and by which command."""
    info = quaver.build_info()
    print(f"\n{title}")
    if torch.device(device).type == "cuda":
        print(f"device: {torch.cuda.get_device_name(device)}, torch's CUDA {torch.version.cuda}")
    print(f"machine: {processor()}, kernels: {info['cpu_capability']}, threads: {torch.get_num_threads()}")
    print(f"quaver {info['version']}, torch {info['torch']}, Python {platform.python_version()}")
    print(f"date: {datetime.now(timezone.utc):%Y-%m-%d}, command: python -m {module_name()} {' '.join(sys.argv[1:])}")
    verdict = "idle" if is_idle() else "NOT IDLE: these times are not to be quoted"
    print(f"load of the last minute before the start: {load():.1f}, {verdict}")
    print("milliseconds: median (quartiles)\n")


def conclude():
    print(f"\nload of the last minute, this program's included: {load():.1f}")


def load():
    """How many processes wanted to run in the last minute, on average; NaN where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def is_idle():
    return load() <= IDLE_LOAD


def module_name():
    return sys.modules["__main__"].__spec__.name if sys.modules["__main__"].__spec__ else Path(sys.argv[0]).name


def print_header(label, names):
    first, *others = names
    ratios = "".join(f"{f'{name}/{first}':>20}" for name in others)
    print(f"{label:<54}" + "".join(f"{name:>30}" for name in names) + ratios)


def print_row(label, timings):
    """One comparison; the ratios say how many times the first candidate's time the others take."""
    first, *others = timings.values()
    ratios = "".join(f"{other.median / first.median:>19.1f}x" for other in others)
    print(f"{label:<54}" + "".join(f"{timing!s:>30}" for timing in timings.values()) + ratios, flush=True)


def wants_small_sizes(description):
    """The benchmarks' command line: whether --quick was given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes only, to see that everything runs")
    return parser.parse_args().quick
