"""The package once more, its CPU library compiled under the address and the undefined behaviour sanitizer.

Whatever the kernels read or write beyond a tensor, an array or a vector, and whatever C++ leaves undefined, ends the
process with a report. Tensors are watched as well: torch asks for their memory where every other library does.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests import rebuilt

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
    rebuilt.run([*compiler, "-std=c++20", *FLAGS, FEWER_CHECKS, *arguments])


def package(every_check=False):
    """The folder in which quaver is such a one."""
    if every_check:
        return rebuilt.package("sanitizers/every_check", FLAGS, SANITIZERS)
    return rebuilt.package("sanitizers/fewer_checks", (*FLAGS, FEWER_CHECKS), SANITIZERS)


def linked(library):
    """{name: path} of what the dynamic linker finds for a library."""
    listed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    return {name.split(".so")[0]: path for name, path in re.findall(r"(\S+) => (/\S+)", listed)}
