"""The int8 products on a GPU beside torch's, other libraries' and what bounds them: `make gpu-bench`.

python -m benchmarks.bench_gpu [--device cuda] [--quick] [--rows FILE.csv]

The layers are those of benchmarks/layers.py. "cold" are the call's kernels alone, with nothing of the operands in the
L2 cache; "warm" is a call as a loop of eager code makes it, its launches by the host included. "graph" is the replay
of a CUDA graph of the call, "triton" the fastest kernel that torch.compile finds or writes. bfloat16 is what int8 has
to beat, with the quantization of x ("int8 layer") and without it ("product to bfloat16"). `--device cpu` is a
rehearsal, whose times say nothing of a GPU.
"""

import shutil
import subprocess
import sys
from functools import partial

import torch

import quaver
from benchmarks import layers, peers, timing
from benchmarks.cases import COLD, WARM, Case, run
from benchmarks.timing import Candidate, normal
from quaver import reference
from quaver.explain import GPUS

QUICK = {"MiniLM-L6": ("q, k, v, output", "down")}
CLOCKS = "clocks.sm,clocks.mem,clocks_event_reasons.active,temperature.gpu"


class Problem:
    """One layer's operands: x [M, K] bfloat16, its codes, and a weight [N, K] as bfloat16 and as codes."""

    def __init__(self, m, n, k, device):
        self.shape = m, n, k
        self.x = normal(m, k).to(device, torch.bfloat16)
        self.weight = normal(n, k, seed=1).to(device, torch.bfloat16)
        self.q, self.params = quaver.dynamic_quantize(self.x)
        self.weight_q, self.weight_params = quaver.dynamic_quantize(self.weight)
        self.b, self.b_scale = self.weight_q.t(), self.weight_params.scale.t()


def graph(call, problem):
    """The replay of the call's CUDA graph; None on a CPU."""
    if not problem.x.is_cuda:
        return None
    call()  # what is set up by a first call is no part of it
    made = torch.cuda.CUDAGraph()
    with torch.cuda.graph(made):
        result = call()

    def replay():
        made.replay()
        return result

    return Candidate(replay, exact=True)


def int32(problem):
    a, b = problem.q, problem.b
    ours = partial(quaver.int8_matmul, a, b)
    # What cuBLASLt takes: more than 16 rows, and columns and codes by eights.
    fits = a.shape[0] > 16 and a.shape[1] % 8 == 0 and b.shape[1] % 8 == 0
    return {
        "reference": Candidate(partial(reference.int8_matmul, a, b), exact=True),
        "quaver": Candidate(ours, exact=True),
        "quaver, graph": graph(ours, problem),
        "torch._int_mm": Candidate(partial(torch._int_mm, a, b), exact=True) if fits else None,
        "triton": triton(torch._int_mm, a, b) if fits else None,
    }


def triton(function, *args):
    """What torch.compile makes of it with every template tried, Triton's kernels among them; None on a CPU."""
    if not args[0].is_cuda or peers.find("triton") is None:
        return None
    torch.compiler.reset()  # a function of torch's own is compiled for few shapes, and then no more
    call = partial(torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False), *args)
    return Candidate(call) if peers.attempt("triton", function.__name__, call) is not None else None


def bfloat16(problem):
    args = (problem.q, problem.b, problem.params.scale, problem.b_scale)
    ours = partial(quaver.int8_matmul_dequantize, *args, dtype=torch.bfloat16)
    return {
        "reference": Candidate(partial(reference.int8_matmul_dequantize, *args, dtype=torch.bfloat16), exact=True),
        "quaver": Candidate(ours, exact=True),
        "quaver, graph": graph(ours, problem),
        "bfloat16": Candidate(partial(torch.nn.functional.linear, problem.x, problem.weight)),
        "vllm": scaled_product("vllm._custom_ops", "cutlass_scaled_mm", args),
        "sgl-kernel": scaled_product("sgl_kernel", "int8_scaled_mm", args),
    }


def scaled_product(library, name, args):
    """Other libraries' products of the same arguments."""
    module = peers.find(library)
    if module is None:
        return None
    call = partial(getattr(module, name), *args, torch.bfloat16)
    return Candidate(call) if peers.attempt(library, name, call) is not None else None


def layer(problem):
    args = (problem.x, problem.weight_q, problem.weight_params.scale)
    ours = partial(quaver.int8_linear, *args)
    return {
        "reference": Candidate(partial(reference.int8_linear, *args), exact=True),
        "quaver": Candidate(ours, exact=True),
        "quaver, graph": graph(ours, problem),
        "bfloat16": Candidate(partial(torch.nn.functional.linear, problem.x, problem.weight)),
        "float16": Candidate(partial(torch.nn.functional.linear, problem.x.half(), problem.weight.half())),
    }


OPS = {
    "product to int32": (int32, torch.int32),
    "product to bfloat16": (bfloat16, torch.bfloat16),
    "int8 layer": (layer, torch.bfloat16),
}


def bound(problem, out_dtype):
    """Words: the time that the product needs at the card's published peaks, and the plan; of a card that is known."""
    name = torch.cuda.get_device_name() if problem.x.is_cuda else ""
    card = next((card for card in GPUS if card.removeprefix("RTX ") in name), None)
    if card is None:
        return ""
    plan = quaver.explain_matmul(problem.q, problem.b, card, out_dtype=out_dtype)
    microseconds = max(plan.memory_microseconds, plan.tensor_microseconds)
    return f" (bound {microseconds:.1f} us, {plan.kernel})"


def cases(chosen):
    device = torch.device(chosen.device)
    products = layers.products(QUICK, (1, 32)) if chosen.quick else layers.products()
    clocks = {WARM: timing.HostClock(device)}
    if device.type == "cuda":
        clocks = {COLD: timing.GpuClock(device), **clocks}
    for model, name, m, n, k in products:
        problem = Problem(m, n, k, device)
        for op, (make, out_dtype) in OPS.items():
            what = f"{model}: {name}, {m} x {n} x {k}{bound(problem, out_dtype)}"
            for memory, clock in clocks.items():
                yield Case(op, what, lambda _, m=make, p=problem: m(p), memory, 0, 0, 2 * m * n * k, clock=clock)


def facts(chosen):
    """The card, and its clocks after the work."""
    if torch.device(chosen.device).type != "cuda":
        return {"rehearsed on": chosen.device}
    if shutil.which("nvidia-smi") is None:
        return {"card": torch.cuda.get_device_name()}
    asked = ["nvidia-smi", f"--query-gpu={CLOCKS}", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return {"card": torch.cuda.get_device_name(), CLOCKS: told}


def options(parser):
    parser.add_argument("--device", default="cuda", help="cpu: a rehearsal")


def objection(chosen):
    if torch.device(chosen.device).type == "cuda" and not torch.cuda.is_available():
        return f"benchmarks.bench_gpu: torch {torch.__version__} sees no GPU; --device cpu is a rehearsal"
    return None


if __name__ == "__main__":
    sys.exit(run("gpu", __doc__, cases, facts, options, objection))
