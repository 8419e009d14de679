"""The package once more, its CPU library compiled under the address and the undefined behaviour sanitizer.

Whatever the kernels read or write beyond a tensor, an array or a vector, and whatever C++ leaves undefined, ends the
process with a report. Tensors are watched as well: torch asks for their memory where every other library does.
"""

import fcntl
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "sanitizers"
MODULES = ROOT / "python" / "quaver"

SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"
FLAGS = (
    *("-Og", "-g1", SANITIZERS, "-fno-sanitize-recover=all"),
    "-fno-wrapv",  # Python's own flags would let signed sums wrap
    "--param=asan-instrumentation-with-call-threshold=0",  # calls instead of code: half as long to compile
)
# What each access is asked besides doubles what is compiled; of an address that is wrong the other sanitizer tells.
FEWER_CHECKS = "-fno-sanitize=null,alignment,pointer-overflow,object-size,vptr"


@cache
def objection():
    """What keeps this machine's compiler from it, or None."""
    if sys.platform != "linux":
        return "the sanitizers are loaded into Python in Linux's way"
    with tempfile.TemporaryDirectory() as folder:
        nothing = Path(folder, "nothing.so")
        try:
            compile_source("-x", "c++", os.devnull, "-shared", "-fPIC", "-o", nothing)
        except (OSError, RuntimeError) as error:
            return f"the compiler has no sanitizers: {error}"
        return None if "libasan" in linked(nothing) else "the compiler's sanitizers are not libraries, as gcc's are"


def compile_source(*arguments):
    """A source of its own, with fewer checks."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    _run([*compiler, "-std=c++20", *FLAGS, FEWER_CHECKS, *arguments])


@cache
def package(every_check=False):
    """The folder in which quaver is such a one, compiled where its sources, flags or torch have changed."""
    flags = FLAGS if every_check else (*FLAGS, FEWER_CHECKS)
    folder = FOLDER / ("every_check" if every_check else "fewer_checks")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:  # who wants it meanwhile waits for it
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, wanted = folder / "made_of", _digest(*flags, torch.__version__, sys.version, *_sources())
        if not made.exists() or made.read_text() != wanted:
            _compile(folder, flags)
            made.write_text(wanted)
        _link_modules(folder / "quaver")
    return folder


def library(folder):
    return folder / "quaver" / "_C.abi3.so"


def linked(library):
    """{name: path} of what the dynamic linker finds for a library."""
    listed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    return {name.split(".so")[0]: path for name, path in re.findall(r"(\S+) => (/\S+)", listed)}


def _digest(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _sources():
    paths = [ROOT / "setup.py", *ROOT.glob("csrc/*.*"), *ROOT.glob("csrc/cpu/**/*.*"), *ROOT.glob("csrc/bindings/*")]
    return [f"{path} {path.read_text()}" for path in sorted(paths)]


def _compile(folder, flags):
    """By setup.py; ninja, which compiles side by side and knows what has changed, may be nowhere but beside Python."""
    options = ("--force", "--build-lib", folder, "--build-temp", folder / "objects")
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "QUAVER_CUDA": "0",
        "QUAVER_CXX_FLAGS": " ".join(flags),
        "LDFLAGS": SANITIZERS,
    }
    _run([sys.executable, "setup.py", "build_ext", *options], cwd=ROOT, env={**os.environ, **environment})


def _run(command, **how):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **how)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-5000:]}{done.stderr[-5000:]}")


def _link_modules(folder):
    """The modules are the package's own."""
    for link in folder.glob("*.py"):
        if not link.exists():
            link.unlink()
    for module in (*MODULES.glob("*.py"), *(path.parent for path in MODULES.glob("*/__init__.py"))):
        if not (folder / module.name).is_symlink():
            (folder / module.name).symlink_to(os.path.relpath(module, folder))
