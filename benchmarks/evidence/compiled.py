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

from tests.emulator import DEVICES, toolkit
from tests.emulator.devices import KIB, Use, resident_blocks

from .counted import kernel_name
from .machine_code import main_loop

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
    return re.search(r", V([\d.]+)", toolkit.run([toolkit.nvcc(), "--version"])).group(1)


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
            registers, stack, shared, local = map(int, numbers)
            # From sm_90 on, a kernel with shared memory is said to have the kilobyte, too, that the system takes.
            if shared and int(architecture.removeprefix("sm_")) >= 90:
                shared -= KIB
            found[key] = Resources(registers, stack, shared, local)
    return found


@cache
def main_loops(architecture):
    """{kernel: MainLoop} of every kernel in the library's machine code for an architecture."""
    found = {}
    for part in _cuobjdump("-sass", "-arch", architecture).split("\t\tFunction : ")[1:]:
        name, _, code = part.partition("\n")
        found[kernel_name(name.strip())] = main_loop(code.partition("Fatbin ")[0])
    return found


def blocks_that_fit(architecture, used, threads, dynamic_shared):
    """How many blocks a multiprocessor holds at once; the emulator's devices are compared with cuda_occupancy.h."""
    shared = used.static_shared + dynamic_shared
    return resident_blocks(DEVICES[architecture], Use(threads, used.registers, shared), shared)
