"""Measured plans in the CUDA library: a matmul runs the one that was set, and the fastest candidate is set.

The library is the emulated one, built from the shipped sources.
"""

import ctypes
import shutil
from dataclasses import replace

import pytest

import quaver
from quaver import _C, tuning
from quaver.explain import KERNELS
from tests.cases import assert_bits, codes
from tests.test_tuning import HERE, PLAN, PROBLEM

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import emulated


@pytest.fixture
def library(monkeypatch):
    make = ctypes.PyDLL(emulated.library()._name).PyInit__C_cuda
    make.restype = ctypes.py_object
    module = make()
    monkeypatch.setattr(tuning, "_library", lambda: module)
    yield module
    module.clear_matmul_plans()


def multiplied_by(a, b):
    """The product, and the kernels that were launched for it."""
    with emulated.device("sm_80") as runs:
        product = emulated.ops().int8_matmul(a, b)
    return product, [run.kernel for run in runs]


def test_a_matmul_runs_the_plan_that_was_set(library):
    a, b = codes(2, 20, 512), codes(384, 512, seed=1).t()  # a batch that folds into 40 rows
    expected, before = multiplied_by(a, b)
    problem = library.last_matmul()
    assert problem == (80, 108, 40, 384, 512, 1, 0, 0)
    for kernel, splits, *_ in _C.matmul_plans(problem):
        library.set_matmul_plan(problem, kernel, splits)
        product, launched = multiplied_by(a, b)
        assert_bits(product, expected)
        assert f"MatmulKernelE{kernel}E" in launched[0]
        assert len(launched) == (1 if splits == 1 else 2)
    library.clear_matmul_plans()
    assert multiplied_by(a, b)[1] == before


def test_a_plan_is_of_its_own_problem_alone(library):
    a, b = codes(40, 512), codes(384, 512, seed=1).t()
    _, before = multiplied_by(a, b)
    kernel, splits, *_ = next(
        plan for plan in _C.matmul_plans(library.last_matmul()) if f"E{plan[0]}E" not in before[0]
    )
    library.set_matmul_plan((80, 108, 40, 384, 528, 1, 0, 0), kernel, splits)
    library.set_matmul_plan((80, 107, 40, 384, 512, 1, 0, 0), kernel, splits)
    assert multiplied_by(a, b)[1] == before


def test_plans_that_cannot_be_are_refused(library):
    for kernel, splits in (
        (-1, 1),
        (7, 1),
        (KERNELS.index("gemv"), 1),
        (KERNELS.index("any small"), 1),
        (2, 0),
        (2, 99),
    ):
        with pytest.raises(ValueError, match=rf"^no kernel {kernel} in {splits} parts can compute this matmul$"):
            library.set_matmul_plan(PROBLEM, kernel, splits)
    with pytest.raises(TypeError, match=r"^a matmul must be a tuple, got \[\]$"):
        library.set_matmul_plan([], 2, 1)
    with pytest.raises(ValueError, match=r" is no matmul$"):
        library.set_matmul_plan((80, 0, *PROBLEM[2:]), 2, 1)


def test_the_fastest_candidate_is_chosen_and_stays(library, monkeypatch):
    a, b = codes(40, 4096), codes(384, 4096, seed=1).t()
    measured = []

    def multiply():
        with emulated.device("sm_80") as runs:
            emulated.ops().int8_matmul(a, b)
        return sum(run.counters.instructions for run in runs)

    def measure(run):
        """A clock that is the same on every machine."""
        measured.append(run())
        return measured[-1]

    monkeypatch.setattr(tuning, "TURNS", 1)
    monkeypatch.setattr(tuning, "MOST_CANDIDATES", 3)
    plan = tuning.choose(multiply, measure)
    assert plan.problem == (80, 108, 40, 384, 4096, 1, 0, 0)
    assert len(measured) == 3
    assert plan.microseconds == min(measured)
    assert sorted([plan.microseconds, *plan.others.values()]) == sorted(measured)
    _, launched = multiplied_by(a, b)
    assert f"MatmulKernelE{KERNELS.index(plan.kernel)}E" in launched[0]


def test_loading_sets_the_plans(library, tmp_path, monkeypatch):
    path = tmp_path / "plans.json"
    tuning.keep(path, HERE, replace(PLAN, problem=(80, 108, 40, 384, 512, 1, 0, 0)))
    monkeypatch.setattr(tuning, "_this_machine", lambda: HERE)
    assert quaver.load_tuning(path) == 1
    _, launched = multiplied_by(codes(40, 512), codes(384, 512, seed=1).t())
    assert f"MatmulKernelE{KERNELS.index('skinny')}E" in launched[0]
    assert len(launched) == 2
    monkeypatch.setattr(tuning, "_this_machine", lambda: replace(HERE, driver=0))
    with pytest.warns(UserWarning, match="is ignored"):
        assert quaver.load_tuning(path) == 0


def test_the_driver_is_asked_for_its_version(library):
    assert library.cuda_driver() >= 12080
