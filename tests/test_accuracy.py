"""The accuracy tables: the README shows what was kept, in the form and with the verdicts that the page gives."""

import types

import pytest
import torch

from benchmarks.accuracy import page, tasks

# Not measured: numbers for the page alone.
ROWS = [
    ("dynamic, asymmetric", {"mean cosine": 0.9989, "worst cosine": 0.98, "neighbours kept": 0.95}, 1.0),
    ("static, extremes", {"mean cosine": 0.993, "worst cosine": 0.97, "neighbours kept": 0.9}, 1.0),
    ("static, squared error", {"mean cosine": 0.9931, "worst cosine": 0.96, "neighbours kept": 0.91}, 1.0),
]
ORDER = [way for way, _, _ in ROWS]


def test_the_readme_shows_what_was_kept():
    text = page.README.read_text()
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    shown = text.partition(page.BEGIN)[2].partition(page.END)[0]
    assert shown == "\n" + page.text_of(page.read())


def test_what_was_kept_reaches_every_bar():
    text = page.text_of(page.read())
    assert text.count(", reached") == len(page.BARS)
    assert "not reached" not in text


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "CSV", tmp_path / "accuracy.csv")
    monkeypatch.setattr(page, "README", tmp_path / "README.md")
    page.README.write_text(f"before\n{page.BEGIN}\n{page.END}\nafter\n")
    task = {name: getattr(tasks.Encoder, name) for name in ("name", "title", "measures", "decisive")}
    return types.SimpleNamespace(**task, batches=[torch.ones(2)], calibration=[{"x": torch.zeros(2)}])


def test_what_is_kept_is_shown_with_every_row(elsewhere):
    page.keep(elsewhere, ROWS, ORDER)
    text = page.README.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| static, extremes | 0.9930 | 0.9700 | 90.0% |" in text
    assert "| **static, squared error** | 0.9931 |" in text  # the best static one
    assert "dynamic, asymmetric: 0.9989, wanted at least 0.9988, reached" in text
    assert "the best static one: 0.9931, wanted at least 0.9950, **not reached**" in text
    assert [float(row["value"]) for row in page.read()] == [value for _, row, _ in ROWS for value in row.values()]


def test_a_model_measured_again_takes_its_rows_place(elsewhere):
    page.keep(elsewhere, ROWS, ORDER)
    first = page.README.read_text()
    page.keep(elsewhere, ROWS, ORDER)
    assert page.README.read_text() == first
    assert len(page.read()) == 9
    page.keep(elsewhere, ROWS[:1], ORDER)
    assert page.README.read_text() == first
    page.keep(elsewhere, ROWS[1:], ORDER[1:])  # a way that is no more
    assert "dynamic, asymmetric |" not in page.README.read_text()


def test_less_perplexity_is_better():
    assert {task.decisive for task in tasks.TASKS.values() if task.decisive in page.LESS_IS_BETTER} == {"growth"}
    value = {("a", "growth"): 0.2, ("b", "growth"): 0.01}
    assert page._best(["a", "b"], types.SimpleNamespace(decisive="growth"), value) == "b"
