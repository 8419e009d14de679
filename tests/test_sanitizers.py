"""The CPU kernels under the address and the undefined behaviour sanitizer: nothing beyond a tensor is read or written,
and nothing is done that C++ leaves undefined, with whatever instruction sets the machine has.

A case of each test of the ops in every run; `make test-deep` takes all of them, and asks more of every access.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from quaver import _C
from tests import rebuilt
from tests.sanitizers import build, process
from tests.test_cpu_capability import CAPABILITIES

TESTS_OF_OPS = (
    *("qparams", "quantize", "dynamic_quantize", "rms_norm_quantize", "silu_mul_quantize", "matmul", "prepack"),
    *("rescale", "requantize", "dequantize", "fake_quantize", "linear", "conv2d"),
)
OTHER_TESTS = ("cpu_elementwise", "errors", "nn", "out", "properties", "stochastic")
# What calls a compiler, or has kernels of its own.
NOT_HERE = ("compile", "emulated", "opcheck")
# Single cases of seconds, whose loops others reach.
TOO_SLOW = ("tile_edges", "last_stage", "unit_in_the_last_place")

SUMS = Path(build.__file__).parent / "sums.cpp"


@pytest.fixture(autouse=True, scope="module")
def compiler():
    if build.objection():
        pytest.skip(build.objection())


def passes(*arguments, every_check=False, **environment):
    """What a process printed that imported the sanitized package and ended well."""
    done = process.run(*arguments, folder=build.package(every_check), **environment)
    assert done.returncode == 0, process.report(done)
    return done.stdout


# The kernels


def run_with(capability, every_check=False):
    best = _C.cpu_capability()
    if CAPABILITIES.index(capability) > CAPABILITIES.index(best):
        pytest.skip(f"this machine has no {capability}, only {best}")
    told = passes("-m", "tests.sanitizers", every_check=every_check, QUAVER_CPU_CAPABILITY=capability)
    library, used = told.split()
    assert Path(library) == rebuilt.library(build.package(every_check))
    if used != capability:
        pytest.skip(f"this machine has no {capability}, only {used}")


def run_tests(names, *options, without=(), every_check=False):
    """A report is not for pytest to capture, nor a signal for it to handle."""
    start = "import sys, pytest; from quaver import _C; print(_C.__file__); sys.exit(pytest.main(sys.argv[1:]))"
    options = ("-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=sys", *options)
    options += ("-k", " and ".join(f"not {word}" for word in (*NOT_HERE, *without)))
    files = [f"tests/test_{name}.py" for name in names]
    told = passes("-c", start, *options, *files, every_check=every_check)
    assert Path(told.splitlines()[0]) == rebuilt.library(build.package(every_check))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_with_every_instruction_set(capability):
    run_with(capability)


def test_a_case_of_each_test():
    run_tests(TESTS_OF_OPS, "-p", "tests.sanitizers.sample", without=TOO_SLOW)


@pytest.mark.deep
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_with_every_instruction_set_and_check(capability):
    run_with(capability, every_check=True)


@pytest.mark.deep
def test_every_case_with_every_check():
    run_tests((*TESTS_OF_OPS, *OTHER_TESTS), every_check=True)


# That what is wrong is seen


def test_what_is_read_beyond_a_tensor():
    """numpy makes arrays that claim more than they have. The last element is read in peace, then the one behind it."""
    done = process.run(
        "-c",
        "import numpy, torch, quaver\n"
        "last = numpy.zeros(10, numpy.float32)[9:]\n"
        "for claimed in (1, 2):\n"
        "    x = torch.from_numpy(numpy.lib.stride_tricks.as_strided(last, (claimed,), (4,)))\n"
        "    print(quaver.quantize(x, torch.tensor(1.0)).tolist(), flush=True)\n",
        folder=build.package(),
    )
    assert done.stdout == "[0]\n", process.report(done)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in process.report(done)
    assert "quantize_elements" in process.report(done)


def run_sums(folder, file="arith.h", line="#pragma once", instead="#pragma once"):
    """tests/sanitizers/sums.cpp over the kernels with another line."""
    shutil.copytree(rebuilt.ROOT / "csrc", folder / "csrc")
    text = (folder / "csrc" / file).read_text()
    assert text.count(line) == 1
    (folder / "csrc" / file).write_text(text.replace(line, instead))
    build.compile_source(SUMS, "-I", folder / "csrc", "-o", folder / "sums")
    return subprocess.run([folder / "sums"], capture_output=True, text=True, check=False)


def test_right_lines_pass(tmp_path):
    done = run_sums(tmp_path)
    assert done.returncode == 0, process.report(done)


@pytest.mark.parametrize(
    ("file", "line", "instead", "words"),
    [
        (
            "cpu/kernels/sum_codes.h",
            "for (int64_t i = 0; i < n; ++i) sum +=",
            "for (int64_t i = 0; i <= n; ++i) sum +=",
            "AddressSanitizer: heap-buffer-overflow",
        ),
        (
            "cpu/kernels/panels.h",
            "sum[column] = wrapping_add(sum[column], static_cast<Code>(",
            "sum[column] = (sum[column] + static_cast<Code>(",
            "runtime error: signed integer overflow",
        ),
    ],
    ids=["one element too many", "a sum that does not wrap"],
)
def test_a_wrong_line_is_seen(tmp_path, file, line, instead, words):
    done = run_sums(tmp_path, file, line, instead)
    assert done.returncode != 0
    assert words in process.report(done)
