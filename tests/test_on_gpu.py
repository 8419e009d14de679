"""`make gpu-test` and `make gpu-bench`, as far as a machine without a GPU can go through them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import timing
from tests.on_gpu import SANITIZERS

ROOT = Path(__file__).parents[1]


def run(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.deep
def test_the_tests_of_a_gpu_in_rehearsal():
    done = run("tests.on_gpu", "--rehearse")
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = done.stdout.rsplit("=== in all\n", 1)[1].splitlines()
    *stages, _, _, _, _ = verdicts
    assert len(stages) == 3
    assert all(": passed in " in verdict for verdict in stages)
    assert verdicts[3:] == [f"compute-sanitizer's {name}: not run: it needs a GPU" for name in SANITIZERS]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: make gpu-test, make gpu-bench")
def test_without_a_gpu_they_say_so():
    done = run("tests.on_gpu")
    assert done.returncode == 1
    assert done.stderr.startswith("tests.on_gpu: no GPU to test: ")
    done = run("benchmarks.bench_gpu")
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks.bench_gpu: torch ")


@pytest.mark.deep
def test_the_benchmark_in_rehearsal():
    done = run("benchmarks.bench_gpu", "--device", "cpu", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "int8 layer, MiniLM-L6: down, 32 x 384 x 1536" in done.stdout
    assert "torch._int_mm" in done.stdout


def test_the_clock_of_a_gpu(monkeypatch):
    """In which order it does what it does; torch.cuda's part of it is pretended."""
    did = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            did.append("record")

        def synchronize(self):
            did.append("synchronize")

        def elapsed_time(self, end):
            assert end is not self
            return 7.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: did.append("sleep"))
    clock = timing.GpuClock("cpu")
    monkeypatch.setattr(clock, "flush", torch.ones(4))
    assert clock(lambda: did.append("call")) == 7.5
    assert did == ["sleep", "record", "call", "record", "synchronize"]
    assert not clock.flush.any()
