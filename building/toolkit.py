"""Finds the CUDA toolkit to build with: the machine's own, or the one that comes as Python packages."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OLDEST = (12, 8)  # the first nvcc that knows sm_100 and sm_120
PACKAGED_MAJOR = 13
# nvcc and what it needs to compile and link quaver's kernels, as Python packages: the extra `quaver[nvcc]`.
PACKAGES = [
    f'{name}==13.0.*; sys_platform == "linux"'
    for name in ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
]


@dataclass(frozen=True)
class Toolkit:
    nvcc: str
    home: str
    release: str  # such as "13.0.88"


def find(torch_cuda, folders=None):
    """(the toolkit to build with or None, what speaks against each nvcc that was passed over).

    `torch_cuda` is torch's CUDA version, such as "13.0", or None where torch has none; `folders` are where packages
    lie, by default where this Python looks for them.
    """
    objections = []
    for nvcc in _candidates(sys.path if folders is None else folders):
        release = _release(nvcc)
        objection = _objection(nvcc, release, torch_cuda)
        if objection is None:
            return Toolkit(nvcc, _home(nvcc), release), objections
        objections.append(objection)
    return None, objections


def choose(torch_cuda):
    """The toolkit to build the CUDA kernels with, or None where they are to be left out; refuses what cannot work."""
    asked = os.environ.get("QUAVER_CUDA")
    if asked == "0":
        return None
    toolkit, objections = find(torch_cuda)
    if toolkit is None and objections:
        raise RuntimeError(
            f"{'; '.join(objections)}. Point CUDA_HOME to another toolkit, or install nvcc as Python packages "
            f"({', '.join(PACKAGES)}), or leave the CUDA kernels out with QUAVER_CUDA=0"
        )
    if toolkit is None and asked == "1":
        raise RuntimeError(
            "QUAVER_CUDA=1 asks for the CUDA library, but no nvcc was found on PATH, in CUDA_HOME or among Python's "
            "packages"
        )
    return toolkit


def _candidates(folders):
    """Every nvcc there is, the one that was asked for first; CUDA_HOME is an order, not a hint."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    on_path = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if on_path is not None:
        yield on_path
    if not home:
        for folder in folders:
            yield from map(str, sorted(Path(folder).glob("nvidia/cu*/bin/nvcc")))


def _objection(nvcc, release, torch_cuda):
    major, minor = map(int, release.split(".")[:2])
    if (major, minor) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return f"quaver's CUDA kernels need nvcc {oldest} or newer, but {nvcc} is {release}"
    if torch_cuda is not None and int(torch_cuda.split(".")[0]) != major:
        return f"this torch uses CUDA {torch_cuda}, but {nvcc} is {release}: the major versions must be equal"
    return None


def _release(nvcc):
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return text.rsplit(", V", 1)[1].split()[0]


def _home(nvcc):
    """The toolkit's folder.

    An nvcc on PATH may be a wrapper script, which says nothing about where the toolkit is: nvcc itself does.
    """
    plan = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True, check=False).stderr
    top = next(line.split("TOP=", 1)[1].strip() for line in plan.splitlines() if "TOP=" in line)
    return str(Path(top).resolve())
