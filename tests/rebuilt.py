"""The package once more, its CPU library compiled with other flags, in a folder of its own."""

import fcntl
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
MODULES = ROOT / "python" / "quaver"


@cache
def package(name, flags, link_flags="", more_sources=()):
    """The folder in which quaver is such a one, compiled where its sources, flags or torch have changed.

    `name` is the folder's, below build; `more_sources` are files beside csrc's that the flags name.
    """
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:  # who wants it meanwhile waits for it
        fcntl.flock(lock, fcntl.LOCK_EX)
        texts = (*flags, link_flags, torch.__version__, sys.version, *_sources(more_sources))
        made, wanted = folder / "made_of", hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        if not made.exists() or made.read_text() != wanted:
            _compile(folder, flags, link_flags)
            made.write_text(wanted)
        _link_modules(folder / "quaver")
    return folder


def library(folder):
    return folder / "quaver" / "_C.abi3.so"


def import_path(folder):
    """PYTHONPATH of a process that imports this package, and the tests."""
    return os.pathsep.join([str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def run(command, **how):
    """A command that must end well."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **how)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-5000:]}{done.stderr[-5000:]}")


def _sources(more):
    paths = [ROOT / "setup.py", *ROOT.glob("csrc/*.*"), *ROOT.glob("csrc/cpu/**/*.*"), *ROOT.glob("csrc/bindings/*")]
    return [f"{path} {path.read_text()}" for path in (*sorted(paths), *more)]


def build_ext(*options, **environment):
    """setup.py's, from a process whose environment has these as well."""
    run([sys.executable, "setup.py", "build_ext", *options], cwd=ROOT, env={**os.environ, **environment})


def _compile(folder, flags, link_flags):
    options = ("--force", "--build-lib", folder, "--build-temp", folder / "objects")
    build_ext(*options, QUAVER_CUDA="0", QUAVER_CXX_FLAGS=" ".join(flags), LDFLAGS=link_flags)


def _link_modules(folder):
    """The modules are the package's own."""
    for link in folder.glob("*.py"):
        if not link.exists():
            link.unlink()
    for module in (*MODULES.glob("*.py"), *(path.parent for path in MODULES.glob("*/__init__.py"))):
        if not (folder / module.name).is_symlink():
            (folder / module.name).symlink_to(os.path.relpath(module, folder))
