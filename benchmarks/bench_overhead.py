"""What quaver costs beside its work: calls of tiny tensors, importing it, memory at its highest, the wheel's size.

python -m benchmarks.bench_overhead [--quick] [--threads N] [--rows FILE.csv]

Memory is how much more than the input and the result a process that makes one call of 4096 x 4096 has held at its
highest, in MiB; times of imports are of a fresh process with everything in the file cache, torch's own taken off.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

import quaver
from benchmarks import machine
from benchmarks.cases import Case, run
from benchmarks.timing import Candidate, normal
from quaver import reference


def quantize(seed):
    x, scale = normal(1, 64, seed=seed), torch.tensor(0.02)
    place = torch.empty(1, 64, dtype=torch.int8)
    return {
        "reference": Candidate(partial(reference.quantize, x, scale), exact=True),
        "quaver": Candidate(partial(quaver.quantize, x, scale), exact=True),
        "quaver, out=": Candidate(partial(quaver.quantize, x, scale, out=place), exact=True),
        "quaver, the op": Candidate(partial(torch.ops.quaver.quantize.default, x, scale), exact=True),
        "quaver, the op, out=": Candidate(partial(torch.ops.quaver.quantize.out, x, scale, out=place), exact=True),
        "eager": Candidate(lambda: torch.clamp(torch.round(x / scale), -128, 127).to(torch.int8)),
        "torch": Candidate(
            partial(torch.quantize_per_tensor, x, scale.item(), 0, torch.qint8), read=torch.Tensor.int_repr
        ),
    }


def linear(seed):
    layer, x = torch.nn.Linear(64, 64).requires_grad_(False), normal(1, 64, seed=seed)
    int8 = quaver.QuantLinear.from_float(layer)
    holder = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.Linear}, dtype=torch.qint8)
    return {
        "float32": Candidate(partial(layer, x)),
        "quaver": Candidate(partial(int8, x)),
        "torch": Candidate(partial(holder, x)),
    }


def cases(chosen):
    yield Case("a call of quantize", "1 x 64", quantize)
    yield Case("a call of a linear layer", "1 x 64 x 64", linear)


# In processes of their own.

IMPORT = """
import time
import torch
start = time.perf_counter()
import quaver
print(time.perf_counter() - start)
"""
MEMORY = """
import re, torch, quaver
from pathlib import Path
from quaver import reference
torch.set_num_threads(1)
scale = torch.tensor(0.02)
def call(x):
    return {call}
def highest():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text()).group(1))
call(torch.ones(2, 2))  # so that everything is loaded
x = torch.randn(4096, 4096)
Path("/proc/self/clear_refs").write_text("5")  # from here on
before = highest()
y = call(x)
print(highest() - before - y.nbytes)
"""
CALLS = {
    "reference": "reference.quantize(x, scale)",
    "quaver": "quaver.quantize(x, scale)",
    "eager": "torch.clamp(torch.round(x / scale), -128, 127).to(torch.int8)",
}


def printed(program):
    """What a Python process of its own printed, as a number."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


def footprint(chosen):
    """{what: number}"""
    took = sorted(printed(IMPORT) for _ in range(1 if chosen.quick else 5))
    found = {"seconds that importing quaver takes, beside torch": round(took[len(took) // 2], 3)}
    for name, call in CALLS.items() if Path("/proc/self/clear_refs").exists() else ():
        mebibytes = round(printed(MEMORY.format(call=call)) / 2**20)
        found[f"MiB that quantize of 4096 x 4096 float32 holds beside input and result, {name}"] = mebibytes
    libraries = sum(path.stat().st_size for path in Path(quaver.__file__).parent.glob("*.so"))
    found["MiB of quaver's libraries, as they are built here"] = round(libraries / 2**20, 1)
    for wheel in sorted((machine.ROOT / "dist").glob("*.whl"))[-1:]:
        found["MiB of the wheel"] = round(wheel.stat().st_size / 2**20, 1)
    return found


if __name__ == "__main__":
    sys.exit(run("overhead", __doc__, cases, facts=footprint))
