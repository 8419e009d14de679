"""Instructions that the CPU kernels execute, counted by valgrind's callgrind: the same whatever else the machine does.

python -m tests.callgrind [--keep]

`counts.csv` holds what was counted last, of gcc's code for plain C++ and for AVX2. Another compiler makes other code:
its counts are not compared.
"""

import ast
import csv
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import quaver

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
COUNTS = FOLDER / "counts.csv"
CAPABILITIES = ("portable", "avx2")
WITHIN = 0.02  # of the count that is kept
COLUMNS = ("job", "capability", "instructions", "compiler")


def objection():
    """What keeps this machine from it, or None."""
    if shutil.which("valgrind") is None:
        return "no valgrind on this machine"
    if "x86_64" not in _asked("-dumpmachine"):
        return "counted on x86-64 alone"
    if quaver.build_info()["cpu_capability"] == "portable":
        return "no AVX2 on this machine"
    return None


def compiler():
    """Such as "gcc 12.2.0"."""
    first = _asked("--version").splitlines()[0]
    return f"{'clang' if 'clang' in first else 'gcc'} {_asked('-dumpfullversion').strip()}"


def _cxx():
    return shlex.split(os.environ.get("CXX", "c++"))


@cache
def _asked(question):
    return subprocess.run([*_cxx(), question], capture_output=True, text=True, check=True).stdout


def flags():
    """Those that the library is compiled with."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "CXX_FLAGS":
            return ast.literal_eval(statement.value)
    raise LookupError("setup.py has no CXX_FLAGS")


def build(folder, sources=ROOT / "csrc"):
    """The driver over the kernels of a folder of sources."""
    program = Path(folder, "driver")
    files = [FOLDER / "driver.cpp", Path(sources, "cpu", "capability.cpp")]
    subprocess.run([*_cxx(), *flags(), f"-I{sources}", *files, "-o", program], check=True)
    return program


def jobs(program):
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()


def count(program, job, capability):
    """The instructions of a job."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=counted"]
    environment = {**os.environ, "QUAVER_CPU_CAPABILITY": capability}
    done = subprocess.run([*command, program, job], capture_output=True, text=True, check=True, env=environment)
    if done.stdout.strip() != capability:
        raise RuntimeError(f"{job}: this machine ran {done.stdout.strip()} where {capability} was asked for")
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1))


def count_all():
    """{(job, capability): instructions}"""
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        names = [(job, capability) for job in jobs(program) for capability in CAPABILITIES]
        return {(job, capability): count(program, job, capability) for job, capability in names}


def kept():
    """({(job, capability): instructions}, the compiler that they are of)."""
    with COUNTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["job"], row["capability"]): int(row["instructions"]) for row in rows}, rows[0]["compiler"]


def keep(counts):
    with COUNTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([*key, number, compiler()] for key, number in counts.items())
