"""From outcomes to verdicts, tables and text."""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .explanations import EXPLANATIONS
from .rules import equivalent, hole

ROOT = Path(__file__).parents[2]


@dataclass
class Judged:
    outcome: object
    verdict: str  # seen, equivalent, known hole (explained, yet a defect) or open
    reason: str = ""
    explanation: object = None


def judge(outcomes, subjects):
    by_name = {subject.name: subject for subject in subjects}
    explained = Counter()
    return [_judge(outcome, by_name[outcome.subject], explained) for outcome in outcomes]


def _judge(outcome, subject, explained):
    if not outcome.survived:
        return Judged(outcome, "seen", outcome.seen)
    reason = equivalent(subject, outcome)
    if reason:
        return Judged(outcome, "equivalent", reason)
    reason = hole(subject, outcome)
    if reason:
        return Judged(outcome, "known hole", reason)
    text = source_text(outcome.source)
    for explanation in EXPLANATIONS:
        use = (outcome.subject, explanation)
        if explanation.fits(outcome, text) and explained[use] < explanation.most:
            explained[use] += 1
            return Judged(outcome, explanation.verdict, explanation.reason, explanation)
    return Judged(outcome, "open", "" if outcome.reached else "no case reaches it")


@cache
def _lines(name):
    found = [path for path in (ROOT / "csrc", ROOT / "tests" / "emulator" / "triton") for path in path.rglob(name)]
    return found[0].read_text().splitlines() if found else []


def source_text(source):
    """The source line's text; empty where the compiler made the instruction of no line."""
    file, line = source
    lines = _lines(Path(file).name) if file else []
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def rate(judged):
    """Of the mutants that are not equivalent, the share that was seen."""
    counts = Counter(each.verdict for each in judged)
    different = len(judged) - counts["equivalent"]
    return counts["seen"] / different if different else 1.0


def summary(judged):
    counts = Counter(each.verdict for each in judged)
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("seen", "equivalent", "known hole", "open"))
    return f"{len(judged)} mutants: {words}; {100 * rate(judged):.2f} % of those that differ were seen."


def table(judged):
    """A row for each kernel and operator: seen / equivalent / not seen."""
    families = sorted({each.outcome.family for each in judged})
    operators = sorted({each.outcome.operator for each in judged})
    wide = max(map(len, families))
    lines = ["seen/equivalent/not seen".ljust(wide) + "".join(f"  {name:>15}" for name in operators)]
    for family in families:
        cells = []
        for operator in operators:
            verdicts = Counter(
                each.verdict for each in judged if (each.outcome.family, each.outcome.operator) == (family, operator)
            )
            missed = verdicts["known hole"] + verdicts["open"]
            cell = f"{verdicts['seen']}/{verdicts['equivalent']}/{missed}" if verdicts else "-"
            cells.append(f"  {cell:>15}")
        lines.append(family.ljust(wide) + "".join(cells))
    kinds = Counter(each.reason.split(":")[0] for each in judged if each.verdict == "seen")
    lines.append("seen as: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    return "\n".join(lines)


def describe(judged):
    outcome = judged.outcome
    file, line = outcome.source
    place = f"{Path(file).name}:{line}: {source_text(outcome.source)}" if file else ""
    return (
        f"{judged.verdict}: {outcome.subject}: {outcome.operator} at {outcome.at}: {outcome.change}\n"
        f"    {outcome.ptx}\n    {place}\n    {judged.reason}"
    )
