"""The CPU's benchmarks run, and print what they promise."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.deep


def quick(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_elementwise_ops():
    printed = quick("bench_cpu_elementwise")
    assert "dynamic_quantize [64, 96] float32 axis 0, threads: 1" in printed
    assert "of 7 ratios are at least 0.97" in printed


def test_the_products():
    printed = quick("bench_cpu_matmul")
    for result, peer in (("int32", "_int_mm"), ("uint8", "qlinear"), ("dynamic", "linear_dynamic")):
        assert f"{result}, 32 x 384 x 384, 2 threads" in printed
        assert f"{peer}/quaver" in printed
