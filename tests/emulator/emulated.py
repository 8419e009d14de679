"""quaver's CUDA ops on CPU tensors: the shipped kernels, launchers and registration, run by the emulator.

    from tests.emulator import emulated
    with emulated.device("sm_80", seed=1) as runs:
        q = emulated.ops().quantize(x, scale)
    runs[0].counters

A report of the emulator (a race, an access out of bounds, ...) is an EmulationError when the block ends.
"""

import contextlib
import ctypes
import re
from functools import cache
from pathlib import Path

import torch

from tests import rebuilt

from . import build, runtime, toolkit
from .devices import LaunchError

ROOT = Path(__file__).parents[2]
NAMESPACE = "quaver_emulated"
OBJECTS = "build/objects"  # as setup.py has it
WRAPPED = (
    "aoti_torch_library_init_impl",
    "aoti_torch_create_device_guard",
    "aoti_torch_delete_device_guard",
    "aoti_torch_get_current_stream",
    "aoti_torch_get_device_index",
    "aoti_torch_delete_stream",
    "torch_stream_native_handle",
    "torch_get_const_data_ptr",
    "torch_get_mutable_data_ptr",
    "_ZN6quaver13choose_matmulERKNS_13MatmulProblemERNS_10MatmulPlanE",
)


class EmulationError(AssertionError):
    """What a kernel did and must not do, report by report."""


class Runs(list):
    """The launches of a block of code, and in `calls` the names of the CUDA runtime's functions that it called."""

    def __init__(self):
        super().__init__()
        self.calls = []


@cache
def library():
    """Builds the emulated library where needed, loads it and defines its ops."""
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cuh", ".cu", ".cpp")]
    texts = [path.read_text() for path in sorted(sources) if ROOT / "csrc" / "cpu" not in path.parents]
    texts += build._texts(*runtime.SOURCES, *runtime.HEADERS, "toolkit.py", "seams.cpp", "../../setup.py")
    path = build.CACHE / f"libquaver_emulated_{build._digest(*texts, torch.__version__, build.core().name)}.so"
    build.once(path, lambda: _build_library(path))
    _define_ops()
    torch.ops.load_library(path)
    return ctypes.CDLL(str(path))


@cache
def stand_in():
    """The emulated library's CUDA runtime."""
    return runtime.Runtime(library())


def _build_library(path):
    """The objects of the shipped library, linked with the stand-in for the CUDA runtime."""
    torch_home = Path(torch.__file__).parent
    target = re.search(r'STABLE_ABI = "(\w+)"', (ROOT / "setup.py").read_text()).group(1)
    seams = ["g++", "-O1", "-std=c++20", "-fPIC", f"-DTORCH_TARGET_VERSION={target}", f"-I{torch_home / 'include'}"]
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    torch_library = [f"-L{torch_home / 'lib'}", "-ltorch_cpu"]
    toolkit.build_library(
        path,
        {build.HERE / "seams.cpp": [*seams, f"-I{ROOT / 'csrc'}", *toolkit.include_flags()], **runtime.sources()},
        [*_shipped_objects(), *wraps, *torch_library, *build.linked_to_core()],
    )


def _shipped_objects():
    """What setup.py has compiled of csrc/cuda, brought up to date."""
    rebuilt.build_ext(QUAVER_CUDA="1", TORCH_CUDA_ARCH_LIST="")
    sources = [path for pattern in ("*.cu", "*.cpp") for path in (ROOT / "csrc" / "cuda").glob(pattern)]
    return [ROOT / OBJECTS / path.relative_to(ROOT).with_suffix(".o") for path in sorted(sources)]


_definitions = []


def _define_ops():
    from quaver.library import OPS

    definitions = torch.library.Library(NAMESPACE, "DEF")
    for packet in (getattr(torch.ops.quaver, name) for name in OPS):
        for form in packet.overloads():
            definitions.define(str(getattr(packet, form)._schema).removeprefix("quaver::"))
    _definitions.append(definitions)


def ops():
    """torch.ops.quaver_emulated."""
    stand_in()
    return getattr(torch.ops, NAMESPACE)


def known_kernels(device):
    """The names of all kernels in the source files of which some kernel has been launched on this device."""
    return stand_in().known_kernels(device)


def _raise_failure():
    """Raises what went wrong while a launch was emulated; a launch that was refused is the op's to report."""
    failure = stand_in().failure
    if failure is not None and not isinstance(failure, LaunchError):
        raise failure from None


def stream_handle(index, number):
    """What the launches of a device's stream have as their `stream`."""
    library().emulator_stream.restype = ctypes.c_uint64
    return library().emulator_stream(index, number)


@contextlib.contextmanager
def device(name="sm_80", seed=0, index=0, stream=0):
    """Runs ops on a pretended device; gives the list of their launches.

    `index` is the device's number, which every tensor then has, and `stream` the number of its current stream.
    """
    state = stand_in()
    before = (state.device.name, state.seed, state.runs, state.failure)
    state.pretend(name)
    state.seed, state.runs, state.failure = seed, Runs(), None
    library().emulator_set_place(index, stream)
    takes = (library().emulator_take_unwritten, library().emulator_take_misplaced, library().cudaGetLastError)
    for take in (*takes, state.take_calls, state.take_refusals):
        take()  # of a block that ended with another error
    try:
        try:
            yield state.runs
        except RuntimeError as error:
            _raise_failure()
            if state.failure is not None:
                raise error from state.failure  # which says in words why a launch was refused
            raise
        _raise_failure()  # the block itself may have caught the op's error
        state.runs.calls = state.take_calls()
        reports = [str(report) for run in state.runs for report in run.reports]
        unwritten = library().emulator_take_unwritten()
        if unwritten:
            reports.append(f"{unwritten} results have bytes that no kernel wrote")
        if library().emulator_take_misplaced():
            reports.append("a stream was asked for while the device of the tensors was not the current one")
        reports += state.take_refusals()
        if reports:
            raise EmulationError("\n".join(reports))
    finally:
        library().emulator_set_place(0, 0)
        state.pretend(before[0])
        state.seed, state.runs, state.failure = before[1:]


@contextlib.contextmanager
def matmul_plan(kernel, splits=1):
    """Matmuls run the kernel of this number (csrc/cuda/plan.h) in so many parts of K; below 0, what their plan says."""
    library().emulator_set_matmul_plan(kernel, splits)
    try:
        yield
    finally:
        library().emulator_set_matmul_plan(-1, 1)


@contextlib.contextmanager
def launched_by(launch):
    """Ops launch their kernels through `launch(module, name, **how)` in the place of Module.launch_packed."""
    state = stand_in()
    before, state.launch = state.launch, launch
    try:
        yield
    finally:
        state.launch = before
