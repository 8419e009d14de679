"""The int8 products on a GPU beside torch's of the same shapes, and beside what bounds them; `make gpu-bench`.

python -m benchmarks.bench_gpu [--device cuda] [--quick]

The layers are those of benchmarks/roofline.py. Peers: torch._int_mm (cuBLASLt's int8 product, to int32) and torch's
bfloat16 linear layer. `--device cpu` is a rehearsal, whose times say nothing of a GPU. Nobody has run this on one yet.
"""

import argparse
from functools import partial

import torch

import quaver
from benchmarks import timing
from benchmarks.roofline import LAYERS
from quaver.explain import GPUS

ROWS = (1, 4, 16, 17, 64, 256, 2048, 8192)
QUICK_ROWS = (1, 32)
QUICK_LAYERS = {"MiniLM-L6": LAYERS["MiniLM-L6"]}


class Problem:
    """One layer's operands: x [M, K] bfloat16, its codes, and a weight [N, K] as bfloat16 and as codes."""

    def __init__(self, m, n, k, device):
        self.x = timing.normal(m, k).to(device, torch.bfloat16)
        self.weight = timing.normal(n, k, seed=1).to(device, torch.bfloat16)
        self.q, self.params = quaver.dynamic_quantize(self.x)
        self.weight_q, self.weight_params = quaver.dynamic_quantize(self.weight)


def int8_matmul(problem):
    a, b = problem.q, problem.weight_q.t()
    exact = {"quaver": partial(quaver.int8_matmul, a, b)}
    # What cuBLASLt takes: more than 16 rows, and columns and codes by eights.
    if a.shape[0] > 16 and a.shape[1] % 8 == 0 and b.shape[1] % 8 == 0:
        exact["torch._int_mm"] = partial(torch._int_mm, a, b)
    return exact, {}


def int8_matmul_dequantize(problem):
    args = (problem.q, problem.weight_q.t(), problem.params, problem.weight_params.scale.t())
    exact = {"quaver": partial(quaver.int8_matmul_dequantize, *args, dtype=torch.bfloat16)}
    return exact, {"bfloat16": partial(torch.nn.functional.linear, problem.x, problem.weight)}


def int8_linear(problem):
    args = (problem.x, problem.weight_q, problem.weight_params.scale)
    exact = {"quaver": partial(quaver.int8_linear, *args)}
    return exact, {"bfloat16": partial(torch.nn.functional.linear, problem.x, problem.weight)}


OPS = {"int8_matmul": int8_matmul, "int8_matmul_dequantize": int8_matmul_dequantize, "int8_linear": int8_linear}


def bound(problem, out_dtype, device):
    """Milliseconds that the product needs at the card's published peaks, and the plan; of the card that is there."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else ""
    card = next((card for card in GPUS if card.removeprefix("RTX ") in name), None)
    if card is None:
        return None
    plan = quaver.explain_matmul(problem.q, problem.weight_q.t(), card, out_dtype=out_dtype)
    return max(plan.memory_microseconds, plan.tensor_microseconds) / 1e3, plan.kernel


def print_comparison(label, timings, bounded):
    first, *others = timings.items()
    cells = [f"{first[1].median:.4f} ms"]
    cells += [f"{name} {other.median / first[1].median:.2f}x" for name, other in others]
    if bounded is not None:
        cells.append(f"{bounded[0] / first[1].median:.0%} of the bound's rate, {bounded[1]}")
    print(f"{label:<64}{', '.join(cells)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="few and small shapes, to see that everything runs")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"benchmarks.bench_gpu: torch {torch.__version__} sees no GPU; --device cpu is a rehearsal")
    clock = timing.GpuClock(device) if device.type == "cuda" else timing.milliseconds
    timing.announce("int8 products beside torch's; n x: so many times quaver's time", device)
    for model, layers in (QUICK_LAYERS if chosen.quick else LAYERS).items():
        for layer, (n, k) in layers.items():
            for m in QUICK_ROWS if chosen.quick else ROWS:
                problem = Problem(m, n, k, device)
                for name, op in OPS.items():
                    out_dtype = torch.int32 if name == "int8_matmul" else torch.bfloat16
                    label = f"{name}, {model}, {layer}, {m} x {n} x {k}"
                    print_comparison(label, timing.compare(*op(problem), clock), bound(problem, out_dtype, device))
    timing.conclude()


if __name__ == "__main__":
    main()
