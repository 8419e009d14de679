"""The CUDA toolkit, where there is one: nvcc, its headers, and ptxas, which knows how many registers a kernel takes."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import build
from .devices import CudaError, LaunchError


@cache
def nvcc():
    """The nvcc on PATH. It may be a script that calls another: nvcc itself says where its toolkit is."""
    found = shutil.which("nvcc")
    if found is None:
        raise FileNotFoundError("nvcc, which makes the kernels' PTX, is not on PATH")
    return found


@cache
def _plan():
    return subprocess.run([nvcc(), "--dryrun", "x.cu"], capture_output=True, text=True, check=False).stderr


def home():
    return Path(re.search(r"TOP=(.*)", _plan()).group(1).strip()).resolve()


def include_flags():
    return re.search(r'INCLUDES="([^"]*)"', _plan()).group(1).split()


@cache
def ptxas():
    """ptxas, or None where there is no toolkit."""
    beside_nvcc = home() / "bin" / "ptxas" if shutil.which("nvcc") else None
    return str(beside_nvcc) if beside_nvcc and beside_nvcc.exists() else shutil.which("ptxas")


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout + done.stderr


def build_library(path, commands, link_flags):
    """Compiles {source: command that compiles it} and links the objects to one shared library.

    What it defines it uses: the stand-in runtime, even where the true one is loaded as well.
    """
    scratch = path.parent / f"{path.stem}.{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    objects = {source: scratch / f"{source.stem}.o" for source in commands}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ([*command, "-c", source, "-o", objects[source]] for source, command in commands.items())))
    linked = scratch / path.name
    run(["g++", "-shared", "-Wl,-Bsymbolic", *objects.values(), "-o", linked, *link_flags])
    linked.replace(path)
    shutil.rmtree(scratch)


@dataclass(frozen=True)
class Resources:
    """What ptxas says of a kernel's machine code."""

    registers: int
    barriers: int
    stack: int  # bytes of local memory of a thread


def resources(text, architecture):
    """{kernel: Resources} of PTX for an architecture such as "sm_80"; None where there is no ptxas.

    What ptxas said is kept in the emulator's cache.
    """
    if ptxas() is None:
        return None
    kept = build.CACHE / f"ptxas_{build._digest(text, architecture, _version())}.txt"
    if not kept.exists():
        build.CACHE.mkdir(parents=True, exist_ok=True)
        scratch = kept.with_suffix(f".{os.getpid()}")
        scratch.write_text(_ask(text, architecture))
        scratch.replace(kept)
    return _read(kept.read_text())


@cache
def _version():
    return run([ptxas(), "--version"])


def _ask(text, architecture):
    command = [ptxas(), "-v", f"-arch={architecture}", "-", "-o", "/dev/null"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LaunchError(f"ptxas refuses the PTX: {done.stderr.strip()}", CudaError.INVALID_PTX)
    return done.stderr


def _read(said):
    found = {}
    for part in said.split("Compiling entry function '")[1:]:
        numbers = [
            int(match.group(1)) if (match := re.search(pattern, part)) else 0
            for pattern in (r"Used (\d+) registers", r"used (\d+) barriers", r"(\d+) bytes stack frame")
        ]
        found[part[: part.index("'")]] = Resources(*numbers)
    return found
