"""quaver's CUDA ops on CPU tensors: the shipped kernels, launchers and registration, run by the emulator.

    from tests.emulator import emulated
    with emulated.device("sm_80", seed=1) as runs:
        q = emulated.ops().quantize(x, scale)
    runs[0].counters

A report of the emulator (a race, an access out of bounds, ...) is an EmulationError when the block ends.
"""

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from . import build
from .module import LaunchError, Module

ROOT = Path(__file__).parents[2]
NAMESPACE = "quaver_emulated"
# PTX for each architecture of the shipped library that has it.
PTX_ARCHITECTURES = (75, 80, 90, 100, 120)
WRAPPED = (
    "aoti_torch_library_init_impl",
    "aoti_torch_create_device_guard",
    "aoti_torch_delete_device_guard",
    "aoti_torch_get_current_stream",
    "aoti_torch_delete_stream",
    "torch_stream_native_handle",
    "torch_get_const_data_ptr",
    "torch_get_mutable_data_ptr",
)
INVALID_VALUE = 1  # cudaErrorInvalidValue


class EmulationError(AssertionError):
    """What a kernel did and must not do, report by report."""


class Run:
    """One launch: the kernel's name, its grid and what the emulator saw."""

    def __init__(self, kernel, grid, block, result):
        self.kernel, self.grid, self.block = kernel, grid, block
        self.reports, self.counters = result.reports, result.counters


class _State:
    device = "sm_80"
    seed = 0
    runs = None  # a list while somebody listens
    failure = None
    launch = staticmethod(lambda module, name, **how: module.launch_packed(name, **how))
    modules = {}  # noqa: RUF012 - of this process: (PTX, device) -> Module


def _on_launch(ptx, size, kernel, grid, block, shared, arguments):
    try:
        key = (ctypes.string_at(ptx, size), _State.device)
        if key not in _State.modules:
            _State.modules[key] = Module.from_ptx(key[0].decode(), _State.device)
        module = _State.modules[key]
        name = kernel.decode()
        parameters = _parameters(module.kernel(name), arguments)
        grid, block = tuple(grid[:3]), tuple(block[:3])
        result = _State.launch(
            module, name, grid=grid, block=block, parameters=parameters, shared=shared, seed=_State.seed
        )
        if _State.runs is not None:
            _State.runs.append(Run(name, grid, block, result))
    except LaunchError as error:
        _State.failure = error
        return INVALID_VALUE
    except Exception as error:  # an exception cannot cross C: `device` raises it
        _State.failure = error
        return INVALID_VALUE
    return 0


def _parameters(kernel, arguments):
    data = bytearray(kernel.parameter_bytes)
    for i, parameter in enumerate(kernel.parsed.parameters):
        data[parameter.offset : parameter.offset + parameter.size] = ctypes.string_at(arguments[i], parameter.size)
    return bytes(data)


_UINTS = ctypes.POINTER(ctypes.c_uint32)
_ON_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, _UINTS, _UINTS, ctypes.c_uint32,
    ctypes.POINTER(ctypes.c_void_p),
)  # fmt: skip
_callback = _ON_LAUNCH(_on_launch)


def _build_flags():
    """The shipped library's own flags, from setup.py."""
    text = (ROOT / "setup.py").read_text()
    scope = {}
    for name in ("CXX_FLAGS", "NVCC_FLAGS"):
        exec(re.search(rf"^{name} = (?:\[.*?\])", text, re.MULTILINE | re.DOTALL).group(), scope)
    return scope["CXX_FLAGS"], scope["NVCC_FLAGS"]


@cache
def library():
    """Builds the emulated library where needed, loads it and defines its ops."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise FileNotFoundError("nvcc, which makes the kernels' PTX, is not on PATH")
    cxx_flags, nvcc_flags = _build_flags()
    texts = [
        path.read_text() for path in sorted((ROOT / "csrc").rglob("*")) if path.suffix in (".h", ".cuh", ".cu", ".cpp")
    ]
    texts += build._texts("runtime.cpp", "seams.cpp")
    digest = build._digest(*texts, *cxx_flags, *nvcc_flags, torch.__version__, build.core().name)
    path = build.CACHE / f"libquaver_emulated_{digest}.so"
    if not path.exists():
        _build_library(path, nvcc, cxx_flags, nvcc_flags)
    _define_ops()
    torch.ops.load_library(path)
    loaded = ctypes.CDLL(str(path))
    loaded.emulator_set_on_launch(_callback)
    return loaded


def _build_library(path, nvcc, cxx_flags, nvcc_flags):
    """The shipped sources with the shipped flags, but for packaging: PTX instead of machine code, uncompressed."""
    scratch = build.CACHE / f"{path.stem}.{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    torch_home = Path(torch.__file__).parent
    csrc = f"-I{ROOT / 'csrc'}"
    codes = [f"-gencode=arch=compute_{n},code=compute_{n}" for n in PTX_ARCHITECTURES]
    device = [nvcc, *nvcc_flags, csrc, *codes, "--no-compress", "-Xcompiler=-fPIC"]
    includes = [csrc, f"-I{build.HERE}", f"-I{torch_home / 'include'}", f"-I{sysconfig.get_path('include')}"]
    host = ["g++", *cxx_flags, "-fPIC", "-DTORCH_TARGET_VERSION=0x020d000000000000", *includes, *_cuda_include(nvcc)]
    seams = [build.HERE / "seams.cpp", build.HERE / "runtime.cpp"]
    compile_with = {
        **dict.fromkeys(sorted((ROOT / "csrc" / "cuda").glob("*.cu")), device),
        **dict.fromkeys([ROOT / "csrc" / "cuda" / "register.cpp", *seams], host),
    }
    objects = {source: scratch / f"{source.stem}.o" for source in compile_with}
    with ThreadPoolExecutor(2) as pool:
        commands = [[*command, "-c", source, "-o", objects[source]] for source, command in compile_with.items()]
        list(pool.map(_run, commands))
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    torch_library = [f"-L{torch_home / 'lib'}", "-ltorch_cpu"]
    linked = scratch / path.name
    _run(["g++", "-shared", *objects.values(), "-o", linked, *wraps, *torch_library, *build.linked_to_core()])
    linked.replace(path)
    shutil.rmtree(scratch)


def _cuda_include(nvcc):
    plan = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True, check=False).stderr
    return re.search(r'INCLUDES="([^"]*)"', plan).group(1).split()


def _run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")


_definitions = []


def _define_ops():
    from quaver.library import OPS

    definitions = torch.library.Library(NAMESPACE, "DEF")
    for name in OPS:
        schema = str(getattr(torch.ops.quaver, name).default._schema)
        definitions.define(schema.removeprefix("quaver::"))
    _definitions.append(definitions)


def ops():
    """torch.ops.quaver_emulated."""
    library()
    return getattr(torch.ops, NAMESPACE)


def _raise_failure():
    """Raises what went wrong while a launch was emulated; a launch that was refused is the op's to report."""
    if _State.failure is not None and not isinstance(_State.failure, LaunchError):
        raise _State.failure from None


@contextlib.contextmanager
def device(name="sm_80", seed=0):
    """Runs ops on a pretended device; gives the list of their launches."""
    library().emulator_set_architecture(int(name.removeprefix("sm_")))
    before = (_State.device, _State.seed, _State.runs, _State.failure)
    _State.device, _State.seed, _State.runs, _State.failure = name, seed, [], None
    library().emulator_take_unwritten()  # of a block that ended with another error
    try:
        try:
            yield _State.runs
        except RuntimeError:
            _raise_failure()
            raise
        _raise_failure()  # the block itself may have caught the op's error
        reports = [str(report) for run in _State.runs for report in run.reports]
        unwritten = library().emulator_take_unwritten()
        if unwritten:
            reports.append(f"{unwritten} results have bytes that no kernel wrote")
        if reports:
            raise EmulationError("\n".join(reports))
    finally:
        _State.device, _State.seed, _State.runs, _State.failure = before


@contextlib.contextmanager
def launched_by(launch):
    """Ops launch their kernels through `launch(module, name, **how)` in the place of Module.launch_packed."""
    before, _State.launch = _State.launch, launch
    try:
        yield
    finally:
        _State.launch = before
