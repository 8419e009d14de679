"""The demo's own functions, without its model: which sentences it takes, and how it judges embeddings and bits."""

import importlib.util
from pathlib import Path

import pytest
import torch

import quaver

EXAMPLE = Path(__file__).parents[1] / "examples" / "sentence_encoder.py"

DOCUMENT = """A heading of more than eight plain words here
**********************************************

The first sentence is long enough to be taken here.  The second is not.
The third one goes over a line and has a hand-
written word.

   An indented paragraph is prose as well, as long as its lines agree.

   This one is not prose because its second line
      stands further in than the others, as code does.

* A list item has a star before it and is no plain sentence.

The expression "x" has quotes and therefore is not a plain one.

   assert_stmt ::= the name of a rule and its many parts.

+------+------+
| A table has lines and bars and is not a plain sentence. |
+------+------+

The first sentence is long enough to be taken here.
"""

EMBEDDINGS = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.8]]), dim=-1)


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("sentence_encoder", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The text


def test_the_rule_on_a_small_document(demo):
    assert demo.plain_sentences([DOCUMENT]) == [
        "The first sentence is long enough to be taken here.",
        "The third one goes over a line and has a hand-written word.",
        "An indented paragraph is prose as well, as long as its lines agree.",
    ]


def test_at_least_two_hundred_sentences_of_prose(demo):
    sentences = demo.plain_text()
    assert len(sentences) == len(set(sentences)) >= demo.SENTENCES == 200
    for sentence in sentences:
        assert len(sentence.split()) >= 8
        assert sentence[0].isupper()
        assert sentence[-1] == "."
        assert not set(sentence) & set('"`*_=<>[]{}|+\n')


def test_the_choice_is_always_the_same(demo):
    assert demo.plain_text() == demo.plain_text()
    assert demo.sha256(demo.plain_text()) == demo.sha256(demo.plain_text())
    assert demo.sha256(["One.", "Two."]) != demo.sha256(["Two.", "One."])


def test_evenly_spaced(demo):
    assert demo.evenly_spaced(4, 10) == [0, 2, 5, 7]
    assert demo.evenly_spaced(3, 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="4 items are wanted, the list has 3"):
        demo.evenly_spaced(4, 3)


# Quality


def test_nearest_neighbours_leave_the_row_itself_out(demo):
    assert demo.nearest_neighbours(EMBEDDINGS).tolist() == [1, 0, 3, 2]


def test_neighbours_kept(demo):
    assert demo.neighbours_kept(EMBEDDINGS, EMBEDDINGS) == 100.0
    moved = EMBEDDINGS.clone()
    moved[3] = moved[0]  # the nearest of rows 0, 2 and 3 are now 3, 1 and 0; row 1 keeps 0, the first of two equals
    assert demo.neighbours_kept(moved, EMBEDDINGS) == 25.0


def test_cosines(demo):
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    other = torch.tensor([[1.0, 0.0], [0.8, -0.6]])
    assert demo.cosines(rows, other).tolist() == pytest.approx([1.0, 0.0], abs=1e-7)


def test_bars(demo):
    good = {demo.SYMMETRIC: 0.9971, demo.ASYMMETRIC: 0.9981}
    kept = {demo.SYMMETRIC: 90.5, demo.ASYMMETRIC: 99.0}
    assert list(demo.missed_bars(good, kept, 200)) == []
    assert len(list(demo.missed_bars(good, kept, 605))) == 1
    bad = {demo.SYMMETRIC: float("nan"), demo.ASYMMETRIC: 0.9979}
    missed = list(demo.missed_bars(bad, {**kept, demo.SYMMETRIC: 90.0}, 200))
    assert len(missed) == 3


def test_a_sample_may_show_less(demo):
    """95 % of 200: a standard error of sqrt(.95 * .05 / 200) = 1.541 points."""
    assert demo.lowest_of_sample(95.0, 200) == pytest.approx(95.0 - 3 * 1.5411, abs=1e-3)


# Size and bits


def test_megabytes_counts_what_a_checkpoint_holds(demo):
    layer = torch.nn.Linear(1000, 500)
    assert demo.megabytes(layer) == (1000 * 500 * 4 + 500 * 4) / 1e6
    assert demo.megabytes(quaver.quantize_model(layer)) == (1000 * 500 + 3 * 500 * 4) / 1e6


def test_differing_bits_sees_what_equality_does_not(demo):
    nan, other_nan = torch.tensor([0x7FC00000, -0x400000 + 1], dtype=torch.int32).view(torch.float32)
    assert nan.isnan()
    assert other_nan.isnan()
    actual = torch.stack([nan, torch.tensor(0.0), torch.tensor(1.0)])
    assert demo.count_differing_bits(actual, torch.stack([other_nan, torch.tensor(0.0), torch.tensor(1.0)])) == 0
    assert demo.count_differing_bits(actual, torch.stack([nan, torch.tensor(-0.0), torch.tensor(1.0000001)])) == 2
    assert demo.count_differing_bits(actual, actual.double()) == 3


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_reference_check_counts_and_notices(demo, symmetric):
    layer = quaver.QuantLinear.from_float(torch.nn.Linear(8, 4), symmetric=symmetric)
    x = torch.randn(3, 8)
    check = demo.ReferenceCheck()
    check(layer, (x,), layer(x))
    assert (len(check.layers), check.elements, check.differing) == (1, 12, 0)
    wrong = layer(x)
    wrong[1, 2] = torch.nextafter(wrong[1, 2], torch.tensor(torch.inf))
    check(layer, (x,), wrong)
    assert (len(check.layers), check.elements, check.differing) == (1, 24, 1)
    assert list(demo.differing_layers({"int8": check}, 1)) == ["int8: 1 elements differ, 1 of 1 layers compared"]


def test_a_layer_that_never_ran_is_noticed(demo):
    words = list(demo.differing_layers({"int8": demo.ReferenceCheck()}, 36))
    assert words == ["int8: 0 elements differ, 0 of 36 layers compared"]


def test_a_missing_package_is_named(demo):
    with pytest.raises(SystemExit, match=r"(?s)needs the package no_such_package.*pip install"):
        demo.require("no_such_package")
