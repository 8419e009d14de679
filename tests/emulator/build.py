"""Compiles the machine and functions for the instructions that kernels use, each once, kept by the hash of its text."""

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("QUAVER_EMULATOR_CACHE", HERE.parents[1] / "build" / "emulator"))
CORE = ("machine.cpp", "memory.cpp", "async_copy.cpp", "mbarrier.cpp", "bulk_copy.cpp", "wgmma.cpp")
# What generated functions include.
HEADERS = ("instructions.h", "tensor_core.h")
# IEEE arithmetic as it is written, without contraction; nearbyint is to round to even, C's default.
FLAGS = ["-std=c++20", "-O2", "-march=native", "-fPIC", "-shared", "-ffp-contract=off", "-fno-trapping-math", "-w"]


def _digest(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def once(path, make):
    """`path` of the cache, which `make` makes where it is not there; processes that want it meanwhile wait for it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make()
    return path


def _compile(output, sources, *flags):
    """Through a temporary name, so that whoever finds the library finds all of it."""
    scratch = output.with_suffix(f".{os.getpid()}.so")
    command = [os.environ.get("CXX", "g++"), *FLAGS, "-I", str(HERE), *map(str, sources), "-o", str(scratch), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    scratch.replace(output)


def _texts(*names):
    return [(HERE / name).read_text() for name in names]


@cache
def core():
    """The library of the machine itself; generated functions and the runtime link to it."""
    library = CACHE / f"libmachine_{_digest(*_texts('machine.h', 'hopper.h', *CORE), *FLAGS)}.so"
    sources = [HERE / source for source in CORE]
    once(library, lambda: _compile(library, sources, f"-Wl,-soname,{library.name}"))
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return library


def linked_to_core():
    return [f"-L{CACHE}", f"-l:{core().name}", "-Wl,-rpath,$ORIGIN"]


@cache
def machine():
    """The Python module."""
    import pybind11

    name = f"machine_{_digest(core().name, *_texts('binding.cpp'), sys.version)}"
    library = CACHE / name / f"machine{sysconfig.get_config_var('EXT_SUFFIX')}"
    flags = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    flags += [*linked_to_core(), f"-Wl,-rpath,{CACHE}"]
    once(library, lambda: _compile(library, [HERE / "binding.cpp"], *flags))
    spec = importlib.util.spec_from_file_location("machine", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_loaded = {}  # signature -> its source


def require(functions):
    """Makes functions {signature: source} known to the machine, compiling those that no library in the cache has."""
    wanted = {signature: source for signature, source in functions.items() if _loaded.get(signature) != source}
    if not wanted:
        return
    header = _digest(core().name, *_texts(*HEADERS))
    for listing in sorted(CACHE.glob(f"functions_{header}_*.txt")):
        names = dict(line.split("\t") for line in listing.read_text().splitlines())
        if any(names.get(signature) == _digest(source) for signature, source in wanted.items()):
            machine().load_functions(str(listing.with_suffix(".so")))
            for signature in list(wanted):
                if names.get(signature) == _digest(wanted[signature]):
                    _loaded[signature] = wanted.pop(signature)
    if wanted:
        _compile_functions(header, wanted)


def _compile_functions(header, functions):
    parts = [*(f'#include "{name}"' for name in HEADERS), "using namespace emulator;", "namespace {"]
    entries = []
    for number, (signature, source) in enumerate(sorted(functions.items())):
        parts.append(f"void f{number}(Warp& w, const Code& c) {{  // {signature}\n  {source}\n}}")
        entries.append(f'  {{"{signature}", f{number}}},')
    parts += [
        "struct Entry { const char* signature; Function run; };",
        "}  // namespace",
        'extern "C" const Entry entries[] = {',
        *entries,
        "};",
        f'extern "C" const int entry_count = {len(entries)};',
    ]
    text = "\n".join(parts) + "\n"
    stem = CACHE / f"functions_{header}_{_digest(text)}"

    def make():
        source_file = stem.with_suffix(".cpp")
        source_file.write_text(text)
        _compile(stem.with_suffix(".so"), [source_file], *linked_to_core())
        scratch = stem.with_suffix(".listing")
        scratch.write_text("".join(f"{signature}\t{_digest(source)}\n" for signature, source in functions.items()))
        scratch.replace(stem.with_suffix(".txt"))

    once(stem.with_suffix(".txt"), make)
    machine().load_functions(str(stem.with_suffix(".so")))
    _loaded.update(functions)
