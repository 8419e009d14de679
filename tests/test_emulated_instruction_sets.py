"""The CPU kernels of AVX-512, VNNI and AMX on machines that have none of them: the shipped sources, compiled for AVX2
with those instructions written out in C++ (tests/instruction_sets/emulated.h), give the reference's bits.

What the compiler makes of plain loops for AVX-512 is not run here; only a machine that has it runs that.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import rebuilt
from tests.test_cpu_capability import CAPABILITIES, machine_flags, run_with

pytestmark = pytest.mark.deep  # compiling takes minutes

HEADER = Path(__file__).parent / "instruction_sets" / "emulated.h"
FLAGS = ("-O1", "-mavx2", "-mfma", "-mf16c", "-Wno-psabi", "-Wno-ignored-attributes", "-include", str(HEADER))
EMULATED = ("avx_vnni", "avx512", "avx512_vnni", "amx")
TESTS_OF_OPS = ("matmul", "prepack", "linear", "conv2d", "quantize", "dequantize", "dynamic_quantize")
NOT_HERE = "not compile and not emulated and not opcheck"  # what calls a compiler, or has kernels of its own


@pytest.fixture(scope="module")
def environment():
    if not {"avx2", "fma", "f16c"} <= machine_flags():
        pytest.skip("the emulated instructions are made of AVX2's, and this machine has none")
    folder = rebuilt.package("instruction_sets", FLAGS, more_sources=(HEADER,))
    found = {"PYTHONPATH": rebuilt.import_path(folder)}
    told = [sys.executable, "-c", "from quaver import _C; print(_C.__file__)"]
    done = subprocess.run(
        told, cwd=rebuilt.ROOT, env={**os.environ, **found}, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == rebuilt.library(folder)
    return found


@pytest.mark.parametrize("capability", EMULATED)
def test_the_same_bits(environment, capability):
    emulated = run_with(capability, **environment)
    assert emulated["capability"] == capability
    pairs = zip(emulated["digests"], run_with("portable")["digests"], strict=True)
    different = [what for (what, got), (_, wanted) in pairs if got != wanted]
    assert not different, f"{len(different)} results differ, first {different[:5]}"


@pytest.mark.parametrize("capability", EMULATED)
def test_every_case_of_the_ops(environment, capability):
    files = [f"tests/test_{name}.py" for name in TESTS_OF_OPS]
    start = (
        "import sys, pytest, quaver; print(quaver.build_info()['cpu_capability']); sys.exit(pytest.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, "-q", "-p", "no:cacheprovider", "-k", NOT_HERE, *files],
        cwd=rebuilt.ROOT,
        env={**os.environ, **environment, "QUAVER_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.startswith(capability)


def test_all_are_emulated():
    assert set(CAPABILITIES) == {"portable", "avx2", *EMULATED}
