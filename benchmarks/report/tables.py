"""The results in Markdown: every cell in RESULTS.md, and a summary in README.md between two marks."""

import statistics
from itertools import groupby

from benchmarks import machine, rows
from benchmarks.cases import in_time

from . import reasons
from .result import kept

README = machine.ROOT / "README.md"
RESULTS = machine.ROOT / "benchmarks" / "RESULTS.md"
BEGIN, END = "<!-- benchmarks: benchmarks/report/tables.py makes this -->", "<!-- benchmarks: end -->"
HEAD = """# What the benchmarks measured

Each line is one case on the CPU: quaver's time, how many times as long the pure-torch reference and the fastest peer
took in the same run, and the share of the machine's own ceiling: of a copy's bandwidth where the data come from memory,
of the fastest int8 product that any library reached in the run where it is a product. A ratio below 0.97 is a loss and
stands in bold. A case marked ~ was disturbed by other work on the machine. Made by `make bench` with
`python -m benchmarks --keep`; all candidates stand in benchmarks/results.
"""


def ratio(value):
    """Times as long; in bold where it is a loss."""
    if value is None:
        return "-"
    text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return f"**{text}**" if value < rows.LOSS else text


def machine_line(about):
    """What a result was measured on, in a line."""
    versions = about["versions"]
    return (
        f"{about['processor']}, {about['instruction set']}, {about['cores']} cores; torch {versions['torch']}; "
        f"{about['date']}, commit {about['commit']}, load {about['load before']} before{_again(about)}"
    )


def _again(about):
    """Which benchmarks were timed again later."""
    of_commit = {}
    for name, note in about["notes"].items():
        if note.get("commit", about["commit"]) != about["commit"]:
            of_commit.setdefault((note["date"], note["commit"]), {})[name.partition(",")[0]] = None
    return "".join(
        f"; {' and '.join(groups)} again {date}, commit {commit}" for (date, commit), groups in of_commit.items()
    )


# RESULTS.md


def text_of(results):
    parts = [HEAD]
    for result in results:
        parts.append(f"## {machine_line(result.about)}\n")
        for (group, op), cells in groupby(result.cells, key=lambda cell: (cell.ours.group, cell.ours.op)):
            parts.append(f"### {group}: {op}\n\n{_table(result, list(cells))}\n")
        parts += [_losses(result), _notes(result)]
    return "\n".join(parts)


def _table(result, cells):
    lines = [
        "| case | threads | quaver | reference / quaver | fastest peer / quaver | of the ceiling |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        ours, share = cell.ours, result.share(cell.ours)
        way = "" if ours.candidate == rows.OURS else f" ({ours.candidate.partition(', ')[2]})"
        mark = " ~" if ours.disturbed else ""
        peer = f"{ratio(cell.over_best)} {cell.peers[0].candidate}" if cell.peers else "-"
        lines.append(
            f"| {ours.case}, {ours.memory}{way}{mark} | {ours.threads} | {in_time(ours.milliseconds)} "
            f"| {ratio(cell.over_reference)} | {peer} | {f'{share[1]:.0%}' if share else '-'} |"
        )
    return "\n".join(lines)


def _losses(result):
    """Why others are faster where they are."""
    lines = [
        f"- {words or 'not found out yet'}: {len(cells)} of {len(result.cells)} comparisons, such as "
        f"{cells[0].ours.op} of {cells[0].ours.case}"
        for words, cells in reasons.given(result).items()
    ]
    return "### Where others are faster, and why\n\n" + "\n".join(lines) + "\n" if lines else ""


def _notes(result):
    """What was no case, what was missing, and what could not be done."""
    lines = []
    for note in result.about["notes"].values():
        lines += [f"- {what}: {number}" for what, number in note.get("facts", {}).items()]
        lines += [f"- not installed: {name}: {why}" for name, why in note.get("absent", {}).items()]
        lines += [f"- not done: {name}: {why}" for name, why in note.get("failed", {}).items()]
        lines += [f"- not timed: {what}" for what in note.get("broken", [])]
    return "### Beside the cases\n\n" + "\n".join(dict.fromkeys(lines)) + "\n" if lines else ""


# README.md


def summary_of(results):
    return "".join(f"\n{_summary(result)}\n" for result in results)


def _summary(result):
    lines = [
        f"{machine_line(result.about)}:",
        "",
        "| | comparisons | reference / quaver | fastest peer / quaver, median (least to most) | lost |",
        "| --- | --- | --- | --- | --- |",
    ]
    ordered = sorted(result.cells, key=lambda cell: _line(cell.ours))  # stable
    order = list(dict.fromkeys(_line(cell.ours) for cell in result.cells))
    grouped = {name: list(cells) for name, cells in groupby(ordered, key=lambda cell: _line(cell.ours))}
    for name in order:
        cells = grouped[name]
        over_reference = [cell.over_reference for cell in cells if cell.reference]
        over_best = [cell.over_best for cell in cells if cell.peers]
        lost = sum(cell.loses for cell in cells)
        spread = "-"
        if over_best:
            spread = f"{ratio(statistics.median(over_best))} ({ratio(min(over_best))} to {ratio(max(over_best))})"
        reference = ratio(statistics.median(over_reference)) if over_reference else "-"
        lines.append(f"| {name} | {len(cells)} | {reference} | {spread} | {f'**{lost}**' if lost else 0} |")
    return "\n".join(lines)


def _line(row):
    way = row.candidate.partition(", ")[2]
    of_size = f", {row.memory}" if row.group == "elementwise" else ""
    return f"{row.op}{of_size}{f', {way}' if way else ''}"


def in_words(result):
    """A run in a few lines."""
    lost = [cell for cell in result.cells if cell.loses]
    with_peers = [cell for cell in result.cells if cell.peers]
    disturbed = sum(cell.ours.disturbed for cell in result.cells)
    return (
        f"{len(result.cells)} comparisons; of {len(with_peers)} with peers, quaver is beaten in {len(lost)}; "
        f"disturbed by other work: {disturbed}"
    )


def write_tables():
    """Both, from the results that are kept."""
    results = kept()
    RESULTS.write_text(text_of(results))
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{summary_of(results)}\n{END}{after}")
