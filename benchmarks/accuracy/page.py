"""The tables: accuracy.csv holds what was measured, README.md shows it between two marks; a test compares them."""

import csv
from datetime import datetime, timezone
from pathlib import Path

import torch

from . import tasks

ROOT = Path(__file__).parents[2]
CSV = ROOT / "benchmarks" / "accuracy.csv"
README = ROOT / "README.md"
BEGIN, END = "<!-- accuracy: benchmarks/accuracy/page.py makes this -->", "<!-- accuracy: end -->"
COLUMNS = ("model", "way", "measure", "value", "data", "torch", "date")

# What is wanted of a way: (model, way or None for the best static one, measure, least or most).
BARS = (
    ("MiniLM", "dynamic, asymmetric", "mean cosine", 0.9988),
    ("MiniLM", None, "mean cosine", 0.995),
    ("EfficientNet", None, "top-1 kept", 0.90),
    ("SmolLM2", "dynamic, asymmetric", "growth", 0.018),
    ("SmolLM2", None, "growth", 0.08),
)
HEAD = """What int8 costs three real models, way by way, against their float32 selves; `make accuracy` measures all,
`python -m benchmarks.accuracy MODEL --ways PATTERN` some. "dynamic" and "static" are of activations; weights always
have a scale for each output. Calibration and evaluation share no data. In bold stands the best static way. "a tenth
dynamic": so much of the weights is in layers that `quaver.recipes.fall_back` made dynamic.
"""
LESS_IS_BETTER = ("perplexity", "growth")


def in_words(task, measures):
    """Of one way."""
    return ", ".join(f"{name} {number(name, value)}" for name, value in measures.items())


def number(measure, value):
    """As the tables show it."""
    if measure in ("growth",):
        return f"{value:+.1%}"
    if measure.endswith("kept"):
        return f"{value:.1%}"
    return f"{value:.2f}" if measure == "perplexity" else f"{value:.4f}"


def keep(task, rows, order):
    """Puts a model's rows in the place of those of the same ways; ways that are not in `order` any more go."""
    measured = {way for way, _, _ in rows}
    others = [
        row for row in read() if row["model"] != task.name or (row["way"] in order and row["way"] not in measured)
    ]
    same = {
        "model": task.name,
        "data": tasks.fingerprint(task),
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    for way, measures, _ in rows:
        others += [{**same, "way": way, "measure": name, "value": repr(value)} for name, value in measures.items()]
    models, places = list(tasks.TASKS), {way: place for place, way in enumerate(order)}
    others.sort(key=lambda row: (models.index(row["model"]), places[row["way"]] if row["model"] == task.name else 0))
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(others)
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{text_of(others)}{END}{after}")


def read():
    """The rows that are kept."""
    if not CSV.exists():
        return []
    with CSV.open(newline="") as file:
        return list(csv.DictReader(file))


def text_of(rows):
    """The tables, one for each model, in Markdown."""
    parts = []
    for name, task in tasks.TASKS.items():
        own = [row for row in rows if row["model"] == name]
        if not own:
            continue
        ways = list(dict.fromkeys(row["way"] for row in own))
        value = {(row["way"], row["measure"]): float(row["value"]) for row in own}
        best = _best([way for way in ways if way.startswith("static")], task, value)
        lines = [f"| {task.title} | {' | '.join(task.measures)} |", f"|{' --- |' * (1 + len(task.measures))}"]
        for way in ways:
            cells = [number(measure, value[way, measure]) for measure in task.measures]
            shown = f"**{way}**" if way == best else way
            lines.append(f"| {shown} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + f"\n\n{_verdicts(task, value, best)}\n")
    return f"\n{HEAD}\n" + "\n".join(parts) + "\n" if parts else ""


def _best(ways, task, value):
    sign = 1 if task.decisive in LESS_IS_BETTER else -1
    return min(ways, key=lambda way: sign * value[way, task.decisive], default=None)


def _verdicts(task, value, best):
    words = []
    for model, way, measure, bar in BARS:
        if model == task.name:
            found = value.get((best if way is None else way, measure))
            if found is None:
                continue  # it has not been measured yet
            reached = found <= bar if measure in LESS_IS_BETTER else found >= bar
            what = "the best static one" if way is None else way
            sign = "at most" if measure in LESS_IS_BETTER else "at least"
            verdict = "reached" if reached else "**not reached**"
            words.append(f"{what}: {number(measure, found)}, wanted {sign} {number(measure, bar)}, {verdict}")
    return f"Bars: {'; '.join(words)}." if words else ""
