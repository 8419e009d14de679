"""The results as charts: {title: PNG}. Needs matplotlib, and draws without a screen."""

import io
from collections import defaultdict
from itertools import groupby

from benchmarks import rows
from benchmarks.accuracy import page as accuracy

OURS, PEERS, LOST, GRID = "#1f6feb", "#8c959f", "#cf222e", "#d0d7de"
WAY = {  # a candidate of bench_models to the way of benchmarks/accuracy
    "float32": None,
    "quaver, dynamic symmetric": "dynamic, symmetric",
    "quaver, dynamic asymmetric": "dynamic, asymmetric",
    "quaver, static": "static, extremes",
}


def draw(result):
    """Those that the result has rows for; None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = {}
    for title, chart in CHARTS.items():
        figure = chart(result)
        if figure is not None:
            file = io.BytesIO()
            figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})
            made[title] = file.getvalue()
    pyplot.close("all")
    return made


def _axes(width, height, columns=1):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), squeeze=False)
    for each in axes[0]:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color=GRID, linewidth=0.6)
        each.set_axisbelow(True)
    return figure, axes[0]


def ratios(result):
    """A dot for each case, in a line for each op."""
    groups = defaultdict(list)
    for cell in result.cells:
        if cell.peers:
            groups[f"{cell.ours.op} ({cell.ours.memory})"].append(cell)
    if not groups:
        return None
    figure, (axes,) = _axes(9, 0.9 + 0.42 * len(groups))
    for height, cells in enumerate(groups.values()):
        for values, colour, lift, size in (
            ([cell.over_reference for cell in cells if cell.reference], PEERS, 0.14, 14),
            ([cell.over_best for cell in cells if not cell.loses], OURS, -0.14, 20),
            ([cell.over_best for cell in cells if cell.loses], LOST, -0.14, 20),
        ):
            axes.scatter(values, [height + lift] * len(values), s=size, color=colour, alpha=0.75, linewidths=0)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set_xlabel(
        "times quaver's time: grey the reference, blue the fastest peer, red where it is faster than quaver"
    )
    return figure


def roofline(result):
    """Products: operations for each byte of operands, and operations a second."""
    products = [row for row in result.rows if row.group == "matmul" and row.op == "product to int32"]
    threads = max((row.threads for row in products), default=0)
    products = [row for row in products if row.threads == threads]
    if not products:
        return None
    copied, rate = result.ceilings[threads]
    figure, (axes,) = _axes(9, 5)
    for candidate, colour in (("onnxruntime", "#bf8700"), ("torch._int_mm", PEERS), (rows.OURS, OURS)):
        own = [row for row in products if row.candidate == candidate]
        axes.scatter(
            [row.operations / _operand_bytes(row) for row in own],
            [row.operations / row.milliseconds / 1e6 for row in own],
            label=candidate,
            color=colour,
            s=26,
            alpha=0.85,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_xlim()
    knee = min(max(rate / copied, low), high)
    line = [min(each * copied, rate) / 1e9 for each in (low, knee, high)]
    axes.plot([low, knee, high], line, color="black", linewidth=1)
    axes.set_xlabel("operations for each byte of operands and result")
    axes.set_ylabel("10^9 operations a second")
    axes.set_title(f"int8 products to int32, {threads} threads; the line: a copy's bandwidth, the fastest product here")
    axes.legend(frameon=False)
    return figure


def _operand_bytes(row):
    m, n, k = map(int, row.case.rpartition(", ")[2].split(" x "))
    return m * k + k * n + 4 * m * n


def scaling(result):
    """Linear layers: how many times float32's speed, by the rows of x; a line for each layer."""
    lines = defaultdict(dict)
    for _, grouped in groupby(
        [row for row in result.rows if row.group == "linear"], key=lambda row: (row.case, row.threads)
    ):
        found = {row.candidate: row for row in grouped}
        if rows.OURS in found and "float32" in found:
            ours = found[rows.OURS]
            layer, _, shape = ours.case.rpartition(", ")
            ratio = found["float32"].milliseconds / ours.milliseconds
            lines[ours.threads, layer][int(shape.split(" x ")[0])] = ratio
    if not lines:
        return None
    threads = sorted({key[0] for key in lines})
    figure, axes = _axes(5 * len(threads) + 1, 4.4, len(threads))
    for each, count in zip(axes, threads, strict=True):
        for (own, layer), points in lines.items():
            if own == count:
                each.plot(*zip(*sorted(points.items()), strict=True), marker="o", markersize=4, label=layer)
        each.axhline(1, color="black", linewidth=1)
        each.set_xscale("log", base=2)
        each.set_title(f"{count} thread{'s' * (count > 1)}")
        each.set_xlabel("rows of x")
        each.set_ylabel("float32's time / int8_linear's")
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def accuracy_and_speed(result):
    """Models: speed against float32's on this machine, and what is kept of its results."""
    kept = {(row["model"], row["way"], row["measure"]): float(row["value"]) for row in accuracy.read()}
    decisive = {"MiniLM": "mean cosine", "EfficientNet": "top-1 kept", "SmolLM2": "growth"}
    models = defaultdict(list)
    for _, grouped in groupby([row for row in result.rows if row.group == "models"], key=lambda row: row.key):
        found = {row.candidate: row for row in grouped}
        base = found.get("float32")
        for candidate, way in WAY.items():
            row = found.get(candidate)
            value = row and way and kept.get((row.op, way, decisive[row.op]))
            if base and value is not None:
                models[row.op].append((base.milliseconds / row.milliseconds, value, candidate, row))
    if not models:
        return None
    figure, axes = _axes(4.6 * len(models), 4, len(models))
    for each, (model, points) in zip(axes, models.items(), strict=True):
        for candidate in dict.fromkeys(point[2] for point in points):
            own = [point for point in points if point[2] == candidate]
            each.scatter([point[0] for point in own], [point[1] for point in own], label=candidate, s=30)
        each.axvline(1, color="black", linewidth=1)
        each.set_title(model)
        each.set_xlabel("times float32's speed")
        each.set_ylabel({"growth": "growth of the perplexity"}.get(decisive[model], decisive[model]))
        each.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    return figure


CHARTS = {
    "How many times quaver's time the others take": ratios,
    "What bounds a product": roofline,
    "int8 beside float32, by the rows of x and the threads": scaling,
    "Accuracy against speed": accuracy_and_speed,
}
