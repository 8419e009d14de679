"""Matmul plans that were measured on the GPU that is there, and kept in a file.

Without them matmuls run what csrc/cuda/plan.h takes by its model. Plans change no bit of a result.
"""

import importlib
import json
import statistics
import warnings
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch

from quaver import _C
from quaver.explain import KERNELS
from quaver.library import cuda_unavailable_reason

FORMAT = "quaver's matmul plans, 1"
MOST_CANDIDATES = 12  # the cheapest ones by the model
MOST_COST = 3.0  # of a candidate, times the cheapest one's
TURNS = 15
L2_BYTES = 2**28  # more than any GPU's L2 cache holds


@dataclass(frozen=True)
class Machine:
    """What a measurement holds for."""

    device: str
    driver: int  # the CUDA version that it was made for, times 1000
    version: str  # quaver's


@dataclass(frozen=True)
class TunedPlan:
    """What tune_matmul found."""

    problem: tuple  # (architecture, multiprocessors, M, N, K, batches, layouts of a and of b), numbers of plan.h
    kernel: str
    splits: int  # parts of K
    microseconds: float  # the median of its times
    others: dict  # {(kernel, splits): median} of the other candidates


def tune_matmul(a, b, *, path=None):
    """Measures which kernel multiplies a by b fastest on their GPU; products of that shape take it from now on.

    The candidates are the cheapest ones by the plan's model. They take turns, with nothing in the L2 cache, and the
    least median wins. Every kernel gives the same bits: only the time depends on it.

    Arguments:
        a, b: codes on a CUDA device, as int8_matmul takes them.
        path: a file to keep the plan in, for load_tuning. Plans of this machine are added to it; anything else that is
            there is replaced, with a warning.

    Returns:
        A TunedPlan.

    Raises:
        TypeError for what is not a tensor, ValueError for one that is not on a CUDA device, RuntimeError as
        int8_matmul.

    >>> import torch, quaver
    >>> a, b = (torch.ones(32, 32, dtype=torch.int8) for _ in "ab")
    >>> quaver.tune_matmul(a, b, path="plans.json")
    Traceback (most recent call last):
    ValueError: quaver.tune_matmul: a must be on a CUDA device, got cpu
    """
    for name, tensor in (("a", a), ("b", b)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"quaver.tune_matmul: {name} must be a tensor, got {type(tensor).__name__}")
        if tensor.device.type != "cuda":
            raise ValueError(f"quaver.tune_matmul: {name} must be on a CUDA device, got {tensor.device}")
    with torch.cuda.device(a.device):
        flush = torch.empty(L2_BYTES, dtype=torch.int8, device=a.device)
        plan = choose(lambda: torch.ops.quaver.int8_matmul.default(a, b), lambda run: _gpu_time(run, flush))
        if path is not None:
            keep(Path(path), _this_machine(), plan)
    return plan


def load_tuning(path):
    """Takes over the plans that tune_matmul has kept in a file, if they were measured on the current CUDA device.

    Arguments:
        path: the file.

    Returns:
        How many plans were taken over. None are, and a warning says why, where the file cannot be read, is not
        tune_matmul's, or was made on another device, with another driver or by another version of quaver, and where
        there is no GPU.

    >>> import warnings, quaver
    >>> with warnings.catch_warnings(action="ignore"):
    ...     quaver.load_tuning("no such file")
    0
    """
    plans = read(Path(path), _this_machine, "load_tuning")
    for plan in plans:
        _library().set_matmul_plan(plan.problem, KERNELS.index(plan.kernel), plan.splits)
    return len(plans)


def clear_tuning():
    """Forgets every measured plan: matmuls run what the model takes.

    >>> import quaver
    >>> quaver.clear_tuning()
    """
    if cuda_unavailable_reason is None:
        _library().clear_matmul_plans()


def choose(multiply, measure):
    """Times the candidates for what multiply() computes, `measure(multiply)` each, and sets the fastest one."""
    multiply()
    library = _library()
    problem = library.last_matmul()
    candidates = sorted(_C.matmul_plans(problem), key=lambda candidate: candidate[2])[:MOST_CANDIDATES]
    most = MOST_COST * candidates[0][2]
    times = {(kernel, splits): [] for kernel, splits, cost, _ in candidates if cost <= most}
    for _ in range(TURNS):
        for candidate, measured in times.items():
            library.set_matmul_plan(problem, *candidate)
            measured.append(measure(multiply))
    medians = {candidate: statistics.median(measured) for candidate, measured in times.items()}
    best = min(medians, key=medians.get)
    library.set_matmul_plan(problem, *best)
    named = {(KERNELS[kernel], splits): median for (kernel, splits), median in medians.items()}
    kernel, splits = KERNELS[best[0]], best[1]
    return TunedPlan(problem, kernel, splits, named.pop((kernel, splits)), named)


def _gpu_time(run, flush):
    """Microseconds between two events around it, with nothing of the operands in the L2 cache."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush.zero_()
    begin.record()
    run()
    end.record()
    end.synchronize()
    return 1e3 * begin.elapsed_time(end)


# The file.


def keep(path, machine, plan):
    """Adds a plan to those of the same machine, in the place of one for the same problem."""
    plans = read(path, lambda: machine, "tune_matmul") if path.exists() else []
    plans = [*(kept for kept in plans if kept.problem != plan.problem), plan]
    rows = [[*kept.problem, kept.kernel, kept.splits, kept.microseconds] for kept in plans]
    path.write_text(json.dumps({"format": FORMAT, **asdict(machine), "plans": rows}, indent=1))


def read(path, machine, caller):
    """The plans in a file that were measured on `machine()`; none, in words, of any other file."""
    try:
        return _plans(json.loads(path.read_text()), machine)
    except (OSError, ValueError, RuntimeError) as error:  # JSON's and Unicode's errors are ValueErrors
        warnings.warn(f"quaver.{caller}: {path} is ignored: {error}", stacklevel=3)
        return []


def _plans(content, machine):
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not of the format {FORMAT!r}")
    here = asdict(machine())
    differences = [
        f"{name} {content.get(name)!r}, not {value!r}" for name, value in here.items() if content.get(name) != value
    ]
    if differences:
        raise ValueError(f"it was measured with {', '.join(differences)}")
    return [_plan(row) for row in content.get("plans", ())]


def _plan(row):
    if not isinstance(row, list) or len(row) != 11:
        raise ValueError(f"a plan has 11 entries, not {row!r}")
    *problem, kernel, splits, microseconds = row
    try:
        offered = _C.matmul_plans(tuple(problem))
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{problem!r} is no matmul: {error}") from error
    if not any((KERNELS[number], parts) == (kernel, splits) for number, parts, *_ in offered):
        raise ValueError(f"no kernel computes {row!r}")
    return TunedPlan(tuple(problem), kernel, splits, microseconds, {})


def _library():
    if cuda_unavailable_reason is not None:
        raise RuntimeError(f"no CUDA implementation: {cuda_unavailable_reason}")
    return importlib.import_module("quaver._C_cuda")


def _this_machine():
    """The current CUDA device's; RuntimeError where there is none."""
    return Machine(torch.cuda.get_device_name(), _library().cuda_driver(), metadata.version("quaver"))
