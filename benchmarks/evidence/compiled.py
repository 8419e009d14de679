"""What ptxas made of the shipped kernels: registers, stack, shared memory, occupancy and the main loop's instructions.

cuobjdump reads them out of the library as it is installed; no GPU is needed.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.emulator import build, emulated

from .counted import kernel_name
from .devices import MULTIPROCESSORS
from .machine_code import main_loop

HERE = Path(__file__).parent
# Where the tools' wheels put them; cuobjdump finds nvdisasm on PATH.
TOOLS = Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin")
# Such as " Function NAME:\n  REG:46 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:872 ..."
FUNCTION = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass(frozen=True)
class Resources:
    """ptxas's report, in bytes but for the registers. A spill shows as stack or as local memory."""

    registers: int
    stack: int
    static_shared: int
    local: int


def shipped_library():
    return importlib.util.find_spec("quaver._C_cuda").origin


@cache
def nvcc_release():
    """Of the compiler that the emulator's PTX comes from, such as '13.0.88'."""
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r", V([\d.]+)", text).group(1)


def _cuobjdump(*options):
    path = os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")])
    command = [shutil.which("cuobjdump", path=path) or "cuobjdump", *options, shipped_library()]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"cuobjdump {' '.join(options)}: {done.stderr.strip()}")
    return done.stdout


@cache
def resources():
    """{(kernel, architecture): Resources} of every kernel in the library."""
    found = {}
    for part in _cuobjdump("-res-usage").split("Fatbin elf code:")[1:]:
        architecture = re.search(r"arch = (sm_\w+)", part).group(1)
        for name, *numbers in FUNCTION.findall(part):
            key = kernel_name(name), architecture
            if key in found:
                raise ValueError(f"two kernels are called {key[0]}")
            found[key] = Resources(*map(int, numbers))
    return found


@cache
def main_loops(architecture):
    """{kernel: MainLoop} of every kernel in the library's machine code for an architecture."""
    found = {}
    for part in _cuobjdump("-sass", "-arch", architecture).split("\t\tFunction : ")[1:]:
        name, _, code = part.partition("\n")
        found[kernel_name(name.strip())] = main_loop(code.partition("Fatbin ")[0])
    return found


@cache
def _calculator():
    """occupancy.cpp, compiled with the toolkit's header."""
    source = (HERE / "occupancy.cpp").read_text()
    program = build.CACHE / f"occupancy_{build._digest(source, nvcc_release())}"
    if not program.exists():
        scratch = program.with_suffix(f".{os.getpid()}")
        includes = emulated.cuda_include(shutil.which("nvcc"))
        command = ["g++", "-std=c++20", "-O1", "-w", *includes, str(HERE / "occupancy.cpp"), "-o", str(scratch)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        scratch.replace(program)
    return program


def resident_blocks(launches):
    """Blocks that a multiprocessor holds, for each (architecture, Resources, threads of a block, dynamic shared)."""
    lines = []
    for architecture, used, threads, dynamic_shared in launches:
        sm = MULTIPROCESSORS[architecture]
        lines.append(
            f"{sm.major} {sm.minor} {sm.threads} {sm.registers} {sm.shared} {sm.shared_of_block} "
            f"{sm.reserved_of_block} {used.registers} {used.static_shared} {threads} {dynamic_shared}\n"
        )
    done = subprocess.run([_calculator()], input="".join(lines), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [int(line) for line in done.stdout.split()]
