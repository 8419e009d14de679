"""The CPU's benchmarks run, and print what they promise."""

import subprocess
import sys
from pathlib import Path


def test_the_elementwise_ops():
    command = [sys.executable, "-m", "benchmarks.bench_cpu_elementwise", "--quick"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dynamic_quantize [64, 96] float32 axis 0, threads: 1" in done.stdout
    assert "of 7 ratios are at least 0.97" in done.stdout
