"""The results as one HTML page that needs no network: charts, every candidate of every case, and what is counted of
the GPU's side."""

import base64
from html import escape
from itertools import groupby

from benchmarks import rows
from benchmarks.cases import in_time

from . import charts, counted, reasons
from .tables import in_words, machine_line

STYLE = """
:root { --ink: #1f2328; --soft: #656d76; --line: #d0d7de; --ours: #1f6feb; --lost: #cf222e; --back: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #8d96a0; --line: #30363d; --ours: #4493f8; --lost: #f85149; --back: #0d1117; }
  img { background: #fff; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 72rem;
       margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.soft { color: var(--soft); } img { max-width: 100%; border-radius: 6px; }
input { font: inherit; padding: .3rem .6rem; width: 20rem; border: 1px solid var(--line); border-radius: 6px;
        background: var(--back); color: var(--ink); }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: var(--back); text-align: left; } th, td { padding: .2rem .6rem;
     border-bottom: 1px solid var(--line); vertical-align: top; }
.bar { display: inline-block; height: .6em; background: var(--soft); border-radius: 2px; margin-right: .4em; }
.ours .bar { background: var(--ours); } .lost { font-weight: bold; color: var(--lost); }
"""
FILTER = """
document.querySelector("input").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(" ");
  for (const row of document.querySelectorAll("tbody.case"))
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
});
"""
WIDEST = 9  # em, of a bar


def write_page(result, folder):
    """index.html and a PNG for each chart; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = charts.draw(result)
    without = "" if drawn is not None else "<p>There are no charts: matplotlib is not installed.</p>"
    drawn = drawn or {}
    for number, picture in enumerate(drawn.values(), 1):
        (folder / f"chart-{number}.png").write_bytes(picture)
    page = folder / "index.html"
    page.write_text(text_of(result, drawn, without))
    return page


def text_of(result, drawn, without=""):
    """The page, of a result and its charts, or what is said without them."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>quaver's benchmarks</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{STYLE}</style>",
        f"<h1>quaver's benchmarks</h1><p>{escape(machine_line(result.about))}.<br>{escape(in_words(result))}.</p>",
        "<p class='soft'>All times are medians of turns that the candidates of a case took in one process, after their"
        " results were compared. Times of a shared machine scatter: believe ratios.</p>",
        without,
    ]
    for title, picture in drawn.items():
        source = base64.b64encode(picture).decode()
        parts.append(f"<h2>{escape(title)}</h2><img alt='{escape(title, True)}' src='data:image/png;base64,{source}'>")
    parts += [
        "<h2>Every case</h2><p><input type='search' placeholder='op, shape, dtype, candidate ...'></p>",
        _cases(result),
        _losses(result),
        _beside(result),
        *counted.sections(),
        f"<script>{FILTER}</script></html>",
    ]
    return "\n".join(parts)


def _cases(result):
    lines = [
        "<table><thead><tr><th>case</th><th>candidate</th><th>time (quartiles)</th><th>times quaver's</th>",
        "<th>of the ceiling</th></tr></thead>",
    ]
    for key, grouped in groupby(result.rows, key=lambda row: row.key):
        lines.append(_case(result, key, list(grouped)))
    return "\n".join([*lines, "</table>"])


def _case(result, key, candidates):
    ours = next((row for row in candidates if row.candidate == rows.OURS), None)
    ours = ours or next((row for row in candidates if row.ours), candidates[0])
    longest = max(row.milliseconds for row in candidates)
    _, op, case, memory, threads = key
    name = f"{op}<br><span class='soft'>{escape(case)}, {memory}, {threads} thread{'s' * (threads > 1)}"
    name += ", disturbed</span>" if ours.disturbed else "</span>"
    lines = []
    for place, row in enumerate(candidates):
        over, share = row.milliseconds / ours.milliseconds, result.share(row)
        lost = not row.ours and over < rows.LOSS
        bar = f"<span class='bar' style='width:{max(0.1, WIDEST * row.milliseconds / longest):.2f}em'></span>"
        spread = f"({in_time(row.low)}..{in_time(row.high)})"
        cells = [
            f"<td>{escape(row.candidate)}</td>",
            f"<td>{bar}{in_time(row.milliseconds)} <span class='soft'>{spread}</span></td>",
            f"<td{' class=lost' if lost else ''}>{over:.2f}</td>",
            f"<td>{f'{share[1]:.0%}' if share else ''}</td>",
        ]
        first = f"<td rowspan='{len(candidates)}'>{name}</td>" if place == 0 else ""
        lines.append(f"<tr{' class=ours' if row.ours else ''}>{first}{''.join(cells)}</tr>")
    return f"<tbody class='case'>{''.join(lines)}</tbody>"


def _losses(result):
    """Why others are faster where they are."""
    items = [
        f"<li>{escape(words or 'not found out yet')}: <b>{len(cells)}</b> of {len(result.cells)} comparisons</li>"
        for words, cells in reasons.given(result).items()
    ]
    return f"<h2>Where others are faster, and why</h2><ul>{''.join(items)}</ul>" if items else ""


def _beside(result):
    """What was no case, was missing or could not be done."""
    lines = []
    for where, note in result.about["notes"].items():
        lines += [f"{what}: <b>{number}</b>" for what, number in note.get("facts", {}).items()]
        for kind, said in (("absent", "not installed"), ("failed", "not done")):
            lines += [f"{said}: {escape(name)}: {escape(why)}" for name, why in note.get(kind, {}).items()]
        lines += [f"<span class='lost'>not timed: {escape(what)}</span>" for what in note.get("broken", [])]
        if "seconds" in note:
            lines.append(f"<span class='soft'>{escape(where)}: {note['seconds']} s in all</span>")
    items = "".join(f"<li>{line}</li>" for line in dict.fromkeys(lines))
    return f"<h2>Beside the cases</h2><ul>{items}</ul>" if lines else ""
