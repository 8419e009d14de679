"""Show how an int8 matmul [M, K] x [K, N] would run on a GPU: plan and bound, nothing is measured.

The weight lies in memory as [N, K], as torch.nn.Linear has it.
"""

import json
from dataclasses import asdict

import torch

from quaver import explain_matmul
from quaver.explain import GPUS

RESULTS = {name: getattr(torch, name) for name in ("int32", "int8", "float16", "bfloat16", "float32")}


def add_arguments(command):
    """The product and the card."""
    for size, words in (("M", "rows of the activations"), ("N", "outputs"), ("K", "inputs")):
        command.add_argument(size, type=int, help=words)
    command.add_argument("--gpu", choices=[*GPUS, "all"], default="all", help="which card (default: all)")
    command.add_argument("--out", choices=RESULTS, default="float16", help="the type of the result (default: float16)")


def run(chosen):
    """Prints a table for each card."""
    for size in ("M", "N", "K"):
        if getattr(chosen, size) < 1:
            raise ValueError(f"{size} must be 1 or more, got {getattr(chosen, size)}")
    x = torch.empty(chosen.M, chosen.K, dtype=torch.int8, device="meta")
    weight = torch.empty(chosen.N, chosen.K, dtype=torch.int8, device="meta")
    cards = GPUS if chosen.gpu == "all" else [chosen.gpu]
    plans = [explain_matmul(x, weight.t(), card, out_dtype=RESULTS[chosen.out]) for card in cards]
    if chosen.json:
        print(json.dumps([{**asdict(plan), "bound": plan.bound} for plan in plans], indent=2))
    else:
        print("\n\n".join(map(str, plans)))
