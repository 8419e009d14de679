"""python -m benchmarks.roofline: which kernel the plan takes for the layers of a few models, and what bounds it.

Bounds from published peaks, for four cards; nothing is measured, and no GPU is needed. Writes benchmarks/ROOFLINE.md.
"""

from pathlib import Path

import torch

import quaver
from benchmarks.layers import LAYERS, ROWS

PAGE = Path(__file__).parent / "ROOFLINE.md"
CARDS = ("A100", "L40S", "RTX 4090", "T4")
HEAD = """# Matmuls by the plan

Which kernel `quaver.explain_matmul` names for a layer with M rows of activations, int8 in and float16 out: kernel,
parts of K if more than one, how much of its rounds over the multiprocessors are results, and what bounds the product:
`mem` the operands and the result at the card's published bandwidth, `mma` its operations at the published rate of the
tensor cores, `issue` the plan's own instructions, where its tiles do more than the product needs. **These are bounds,
not measurements: no GPU has run them.** Made by `python -m benchmarks.roofline`.
"""


def cell(card, m, n, k):
    x, weight = (torch.empty(size, k, dtype=torch.int8, device="meta") for size in (m, n))
    plan = quaver.explain_matmul(x, weight.t(), card, out_dtype=torch.float16)
    parts = f" /{plan.splits}" if plan.splits > 1 else ""
    return f"{plan.kernel}{parts} {plan.efficiency:.0%} {plan.bound}"


def lines(card):
    """The table's lines: a model's name alone, or a layer's name, its size and its cells."""
    for model, layers in LAYERS.items():
        yield [model, *[""] * (1 + len(ROWS))]
        for layer, (n, k) in layers.items():
            yield [layer, f"{n} x {k}", *(cell(card, m, n, k) for m in ROWS)]


def table(card):
    found = ["| layer | N x K | " + " | ".join(f"M = {m:,}" for m in ROWS) + " |", "| --- " * (2 + len(ROWS)) + "|"]
    for name, *cells in lines(card):
        found.append(f"| {name if any(cells) else f'**{name}**'} | {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(found)


def text():
    return "\n".join([HEAD, *(f"## {card}\n\n{table(card)}\n" for card in CARDS)])


if __name__ == "__main__":
    PAGE.write_text(text())
    print(text())
