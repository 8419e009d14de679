"""python -m tests.on_gpu: everything that a machine with a GPU shows and others cannot; `make gpu-test`.

One stage after the other, whatever came of those before; the last lines say which failed. `--rehearse` goes through the
stages without a GPU, on the CPU, to see that they would run.
"""

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import quaver

ROOT = Path(__file__).parents[1]
# The emulator compiles and runs the kernels itself, and the rest looks at sources and packages.
NOT_OF_A_GPU = ("emulat*", "evidence", "mutants", "house", "package", "install", "docs", "wheel", "fuzz", "on_gpu")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")


@dataclass(frozen=True)
class Stage:
    title: str
    command: tuple
    missing: str | None = None  # why it cannot run here


def python(*arguments):
    return (sys.executable, "-m", *map(str, arguments))


def stages(rehearse):
    device, seconds = ("cpu", 1) if rehearse else ("cuda", 300)
    selftest = python("quaver", "selftest", "--device", device)
    globs = [f"--ignore-glob=tests/test_{name}.py" for name in NOT_OF_A_GPU]
    yield Stage("every op beside its definition", (*selftest, "--seconds", str(seconds)))
    yield Stage("what a GPU alone shows", python("pytest", "-q", "--gpu", device, "tests/test_gpu.py"))
    yield Stage(
        "the ops' tests", python("pytest", "-q", *globs, "tests", *(["--collect-only", "-qq"] if rehearse else []))
    )
    tool = shutil.which("compute-sanitizer")
    for name in SANITIZERS:
        yield Stage(
            f"compute-sanitizer's {name}",
            (tool or "compute-sanitizer", "--tool", name, "--error-exitcode", "3", *selftest, "--seconds", "30"),
            None if tool and not rehearse else "it needs a GPU" if rehearse else "it is not on PATH",
        )


def facts():
    """What the log is of."""
    yield f"quaver {quaver.build_info()}"
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        yield f"cuda:{number} {properties.name}, sm_{properties.major}{properties.minor}, " + ", ".join(
            (f"{properties.multi_processor_count} multiprocessors", f"{properties.total_memory / 2**30:.0f} GiB")
        )


def objection():
    """Why this machine cannot run the kernels, or None."""
    if not quaver.build_info()["cuda"]:
        return quaver.build_info()["cuda_unavailable_reason"]
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU (built for CUDA {torch.version.cuda})"
    return None


def run(stage):
    """What became of it, in words."""
    print(f"\n=== {stage.title}", flush=True)
    if stage.missing:
        return f"not run: {stage.missing}"
    began = time.monotonic()
    print(" ".join(stage.command), flush=True)
    code = subprocess.run(stage.command, cwd=ROOT, check=False).returncode
    return f"{'passed' if code == 0 else f'FAILED with {code}'} in {time.monotonic() - began:.0f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU")
    rehearse = parser.parse_args().rehearse
    if not rehearse and objection() is not None:
        return f"tests.on_gpu: no GPU to test: {objection()}"
    print(time.strftime("%F", time.gmtime()), "a rehearsal on the CPU" if rehearse else "on a GPU")
    print("\n".join(facts()))
    results = {stage.title: run(stage) for stage in stages(rehearse)}
    print("\n=== in all")
    for title, result in results.items():
        print(f"{title}: {result}")
    return int(any(result.startswith("FAILED") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
