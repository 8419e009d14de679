"""The GPU's side of the page, with no GPU: what was counted in the emulator and what is bounded, never measured."""

import statistics
from functools import cache
from html import escape
from itertools import groupby

from benchmarks import beside_triton, roofline
from benchmarks.evidence import table as evidence
from benchmarks.layers import ROWS


@cache
def sections():
    """The parts of the page, in HTML. Of no result: they are made once."""
    return [_moved(), _beside_triton(), _bounds()]


def _moved():
    """A line for each op and architecture: the median of its cases and the worst."""
    counted = [row for row in evidence.read() if row["kernel"] == evidence.WHOLE_OP or row["bytes_over_compulsory"]]
    counted.sort(key=lambda row: (row["op"], int(row["architecture"].removeprefix("sm_"))))
    lines = []
    for (op, architecture), grouped in groupby(counted, key=lambda row: (row["op"], row["architecture"])):
        own = list(grouped)
        cells = [op, architecture, str(len({row["case"] for row in own}))]
        for name in ("bytes_over_compulsory", "sectors_over_ideal", "wavefronts_over_ideal"):
            values = [row[name] for row in own if row[name] is not None]
            cells.append(f"{statistics.median(values):.2f} ({max(values):.2f})" if values else "")
        lines.append(cells)
    return _section(
        "The GPU's side: counted in the emulator, not measured",
        "What the CUDA kernels move, as a share of what must be moved, of the fewest sectors and of the fewest"
        " shared-memory wavefronts: the median of an op's cases, and the most. No GPU was used. benchmarks/EVIDENCE.md"
        " has every case.",
        _table(("op", "architecture", "cases", "bytes", "sectors", "wavefronts"), lines),
    )


def _beside_triton():
    return _section(
        "Beside Triton's kernels: counted, not measured",
        f"The int8 products of our kernels and of Triton's with the same tile, of {beside_triton.SIZE} rows and columns"
        f" and K = {beside_triton.K[1]:,}, on {beside_triton.DEVICE}, both run by the emulator: instructions of a warp"
        " for each of its tensor cores' products, sectors and wavefronts of shared memory beside the fewest, registers"
        " and warps that a multiprocessor holds at a time. Triton's store int32; ours have the whole epilogue.",
        _table(*beside_triton.read()),
    )


def _bounds():
    heads = ("layer", "N x K", *(f"M = {m:,}" for m in ROWS))
    cards = [f"<h3>{card}</h3>{_table(heads, roofline.lines(card))}" for card in roofline.CARDS]
    return _section(
        "Matmuls on four cards: bounds, not measurements",
        "Which kernel the plan takes, the parts of K if more than one, how much of its rounds over the multiprocessors"
        " are results, and what bounds the product: <b>mem</b>ory, the tensor cores' <b>mma</b>, or the <b>issue</b> of"
        " the plan's own instructions, by the cards' published peaks. No GPU has run them.",
        "".join(cards),
    )


def _section(title, words, content):
    return f"<h2>{title}</h2><p>{words}</p>{content}"


def _table(heads, lines):
    """Each line is hidden where the search box asks for something else."""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f"<tbody class='case'><tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr></tbody>" for line in lines
    )
    return f"<table><thead><tr>{head}</tr></thead>{body}</table>"
