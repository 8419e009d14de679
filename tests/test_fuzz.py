"""The fuzzer: a sample of its calls in every run, 10^5 of them in `make test-deep`, and that it can complain."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import quaver
from quaver import library, reference
from tests.fuzz import fuzz


def test_a_sample_of_random_calls():
    made = fuzz(1000, seed=1)
    assert not made.complaints, "\n".join(made.complaints)
    for kind in ("valid", "refused", "accepted", "compared", "fakes"):
        assert made.counts[kind] > 50, f"hardly any call was {kind}"


@pytest.mark.deep
def test_a_hundred_thousand_random_calls():
    """In a process of its own: a crash is seen, and what was said before tells among which thousand calls."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "--calls", "100000"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"


def test_a_wrong_bit_is_complained_of(monkeypatch):
    true = reference.dequantize
    monkeypatch.setattr(reference, "dequantize", lambda *args, **kwargs: -true(*args, **kwargs))
    made = fuzz(100, seed=1)
    assert made.complaints
    wrong = ("dequantize", "fake_quantize")  # whose definition it is a part of
    for words in made.complaints:
        assert any(re.search(rf"VerificationError: quaver::{op}(\.out)?: the element at", words) for op in wrong)


def test_a_refusal_without_words_is_complained_of(monkeypatch):
    def refuse(*args, **kwargs):
        raise IndexError("list index out of range")

    monkeypatch.setattr(quaver, "quantize", refuse)
    made = fuzz(200, seed=1)
    assert made.complaints
    assert all(": quantize {" in words for words in made.complaints)
    assert any("refused with IndexError: list index out of range" in words for words in made.complaints)


def test_a_fake_with_other_words_is_complained_of(monkeypatch):
    true = torch._check
    monkeypatch.setattr(torch, "_check", lambda ok, words: true(ok, lambda: words() + "!"))
    made = fuzz(300, seed=1)
    assert any("its fake" in words for words in made.complaints)


def test_equal_numbers_make_equal_calls():
    first, second = (fuzz(200, seed=3).counts for _ in range(2))
    assert first == second
    assert len(library.OPS) > 1
