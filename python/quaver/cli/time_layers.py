"""Time int8 linear layers beside float ones and beside the pure-torch reference, on this machine.

Candidates run in turn, A B A B, on data that is not zeros; medians are shown, in microseconds and as ratios to float32
(more is faster). Other programs on the machine disturb it. The repository's `make bench` measures much more.
"""

import json
import statistics
import time

import torch

import quaver
from quaver import reference

SHAPES = ((1, 4096, 4096), (16, 1024, 1024), (128, 768, 3072), (512, 1024, 1024))


def add_arguments(command):
    """Which layers, and where."""
    command.add_argument(
        "--shape", metavar=("M", "N", "K"), nargs=3, type=int, action="append", help="rows, outputs, inputs; repeatable"
    )
    command.add_argument("--device", default="cpu", help="such as cpu or cuda (default: cpu)")
    command.add_argument("--threads", type=int, help="of torch, on the CPU")
    command.add_argument("--rounds", type=int, default=20, help="how often each candidate is timed (default: 20)")


def run(chosen):
    """Prints a row for each shape and candidate."""
    if chosen.rounds < 1:
        raise ValueError(f"--rounds must be 1 or more, got {chosen.rounds}")
    if chosen.threads is not None and chosen.threads < 1:
        raise ValueError(f"--threads must be 1 or more, got {chosen.threads}")
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here")
    rows = [row for shape in chosen.shape or SHAPES for row in _measure(*shape, device, chosen.rounds)]
    if chosen.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{device}, {torch.get_num_threads()} threads, quaver {quaver.build_info()['cpu_capability']}")
    print(f"{'M':>6} {'N':>6} {'K':>6}  {'candidate':<22} {'us':>10}  {'to float32':>10}")
    for row in rows:
        m, n, k = row["shape"]
        print(f"{m:>6} {n:>6} {k:>6}  {row['candidate']:<22} {row['microseconds']:>10.1f}  {row['ratio']:>10.2f}")


def _measure(m, n, k, device, rounds):
    if min(m, n, k) < 1:
        raise ValueError(f"--shape must be three numbers of 1 or more, got {m} {n} {k}")
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, k, generator=generator).to(device) for rows in (m, n))
    linear = torch.nn.Linear(k, n, bias=False, device=device).requires_grad_(False)
    linear.weight.copy_(weight)
    layers = {symmetric: quaver.QuantLinear.from_float(linear, symmetric=symmetric) for symmetric in (True, False)}
    half, half_weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
    int8 = layers[True]
    candidates = {
        "float32": lambda: torch.nn.functional.linear(x, weight),
        "bfloat16": lambda: torch.nn.functional.linear(half, half_weight),
        "int8, symmetric": lambda: layers[True](x),
        "int8, asymmetric": lambda: layers[False](x),
        "reference, symmetric": lambda: reference.int8_linear(x, int8.weight_q, int8.weight_scale),
    }
    if not torch.equal(candidates["int8, symmetric"](), candidates["reference, symmetric"]()):
        raise quaver.VerificationError(f"int8_linear of {m} x {n} x {k} differs from the reference: quaver selftest")
    times = {name: [] for name in candidates}
    for turn in range(rounds + 2):
        for name, candidate in candidates.items():
            taken = _timed(candidate, device)
            if turn >= 2:  # the first ones warm up
                times[name].append(taken)
    medians = {name: 1e6 * statistics.median(taken) for name, taken in times.items()}
    return [
        {"shape": [m, n, k], "candidate": name, "microseconds": median, "ratio": medians["float32"] / median}
        for name, median in medians.items()
    ]


def _timed(candidate, device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    candidate()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
