"""Histograms on grids of powers of 2: their counts depend on the values seen and on nothing else.

The oracle counts in whole multiples of 2^-149, which all float32 are, and looks for the exponent by trying them all.
"""

import math
from fractions import Fraction
from itertools import chain, combinations_with_replacement

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quaver import histogram
from quaver.histogram import Grid, exponent_of, halving_sum, power_of_two
from tests.cases import EDGE_VALUES, assert_bits, normal

LARGEST = torch.finfo(torch.float32).max
SMALLEST = 2.0**-149
FINITE_EDGES = EDGE_VALUES[EDGE_VALUES.isfinite()].tolist()


def range_of(x):
    """[blocks, elements], all finite -> (lo, hi)"""
    return x.amin(1) + 0.0, x.amax(1) + 0.0


def count(grid, x):
    return grid.count(x, torch.isfinite(x), *range_of(x))


def only(values):
    return torch.tensor([values], dtype=torch.float32)


# The oracle.


def counted(values, bins, centred):
    """(exponent, first bin, counts)"""
    wholes = [int(Fraction(value) * 2**149) for value in values]
    largest = max(map(abs, values))
    exponent = max(math.frexp(largest)[1] - 24, -149) if largest else -149  # of a step between float32 of this size
    while True:
        places = [whole >> (exponent + 149) for whole in wholes]  # Python's shift rounds down
        first = -(bins // 2) if centred else min(places)
        if first <= min(places) and max(places) < first + bins:
            return exponent, first, [places.count(first + place) for place in range(bins)]
        exponent += 1


def check(values, bins, centred):
    grid = Grid(bins, centred)
    x = only(values)
    exponent, first = grid.place(*range_of(x))
    assert (exponent.item(), first.item(), count(grid, x).tolist()[0]) == counted(x[0].tolist(), bins, centred)


# Hand numbers.


@pytest.mark.parametrize(
    ("values", "bins", "exponent", "edges", "counts"),
    [
        ([0.0, 1.0, 3.0, 3.9], 4, 0, [0, 1, 2, 3, 4], [1, 1, 0, 2]),
        ([0.0, 1.0, 4.0], 4, 1, [0, 2, 4, 6, 8], [2, 0, 1, 0]),  # 4 would be in a fifth bin of width 1
        ([-1.0, 2.0, 2.5], 4, 0, [-1, 0, 1, 2, 3], [1, 0, 0, 2]),
        ([-1.0, 3.0], 4, 1, [-2, 0, 2, 4, 6], [1, 0, 1, 0]),  # bins -1..3 of width 1 are five
        ([-0.0, 0.0], 4, -149, [0, SMALLEST, 2 * SMALLEST, 3 * SMALLEST, 4 * SMALLEST], [2, 0, 0, 0]),
        ([1.0, 1.0], 2, -23, [1, 1 + 2**-23, 1 + 2**-22], [2, 0]),
        ([-SMALLEST, SMALLEST], 2, -148, [-2 * SMALLEST, 0, 2 * SMALLEST], [1, 1]),
        ([-LARGEST, LARGEST], 2, 128, [-(2.0**128), 0, 2.0**128], [1, 1]),
        ([LARGEST, LARGEST], 2, 104, [LARGEST, 2.0**128, 2.0**128 + 2.0**104], [2, 0]),
    ],
)
def test_hand_numbers(values, bins, exponent, edges, counts):
    grid, x = Grid(bins), only(values)
    assert grid.place(*range_of(x))[0].item() == exponent
    assert grid.edges(*range_of(x)).tolist() == [edges]
    assert count(grid, x).tolist() == [counts]


@pytest.mark.parametrize(
    ("values", "bins", "edges", "counts"),
    [
        ([-2.0, 0.0, 1.5], 4, [-2, -1, 0, 1, 2], [1, 0, 1, 1]),
        ([-2.0, 0.0, 2.0], 4, [-4, -2, 0, 2, 4], [0, 1, 1, 1]),  # 2 has no place above 0..2 in the middle
        ([-2.0, 0.0, 2.0], 5, [-2, -1, 0, 1, 2, 3], [1, 0, 1, 0, 1]),
        ([7.5, 7.0], 4, [-8, -4, 0, 4, 8], [0, 0, 0, 2]),
    ],
)
def test_centred_hand_numbers(values, bins, edges, counts):
    grid, x = Grid(bins, centred=True), only(values)
    assert grid.edges(*range_of(x)).tolist() == [edges]
    assert count(grid, x).tolist() == [counts]


def test_middles_lie_in_the_range():
    x = only([0.25, 3.0])
    assert Grid(4).centres(*range_of(x)).tolist() == [[0.5, 1.5, 2.5, 3.0]]
    x = only([-LARGEST, LARGEST])
    assert Grid(2048).centres(*range_of(x)).isfinite().all()


# The oracle's numbers.


@pytest.mark.parametrize("centred", [False, True], ids=["from lo", "centred"])
@pytest.mark.parametrize("bins", [2, 7, 64])
def test_every_pair_of_edge_values(bins, centred):
    """In one call, a block for each pair."""
    x = torch.tensor(list(combinations_with_replacement(FINITE_EDGES, 2)))
    grid = Grid(bins, centred)
    exponent, first = grid.place(*range_of(x))
    found = list(zip(exponent.tolist(), first.tolist(), count(grid, x).tolist(), strict=True))
    assert found == [counted(values, bins, centred) for values in x.tolist()]


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR = st.floats(-4, 4, width=32)  # of one magnitude
BOUNDED = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@BOUNDED
@given(st.lists(FLOATS, min_size=1, max_size=8), st.integers(2, 70), st.booleans())
def test_any_values(values, bins, centred):
    check(values, bins, centred)


@BOUNDED
@given(st.lists(NEAR, min_size=1, max_size=30), st.integers(2, 70), st.booleans())
def test_values_of_one_magnitude(values, bins, centred):
    check(values, bins, centred)


@BOUNDED
@given(
    st.lists(st.lists(st.one_of(FLOATS, NEAR), min_size=1, max_size=5), min_size=1, max_size=6),
    st.integers(2, 70),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_joined_in_any_order(batches, bins, centred, random):
    """Two at a time, whichever, until one is left: the histogram of all values at once."""
    grid = Grid(bins, centred)
    parts = [(*range_of(only(batch)), count(grid, only(batch))) for batch in batches]
    while len(parts) > 1:
        random.shuffle(parts)
        (lo, hi, counts), (other_lo, other_hi, other_counts) = parts.pop(), parts.pop()
        joined = torch.minimum(lo, other_lo), torch.maximum(hi, other_hi)
        moved = grid.move(counts, (lo, hi), joined) + grid.move(other_counts, (other_lo, other_hi), joined)
        parts.append((*joined, moved))
    ((lo, hi, counts),) = parts
    everything = only(list(chain.from_iterable(batches)))
    assert_bits(counts, count(grid, everything))
    assert (lo.item(), hi.item()) == (everything.min().item(), everything.max().item())


def test_what_does_not_count():
    x = torch.tensor([[1.0, math.nan, math.inf, 2.0], [math.nan, -math.inf, math.inf, math.nan]])
    finite = torch.isfinite(x)
    lo, hi = torch.tensor([1.0, math.inf]), torch.tensor([2.0, -math.inf])  # the second block has nothing
    assert Grid(4).count(x, finite, lo, hi).tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]
    assert Grid(4).edges(lo, hi)[0].tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_parts_of_large_tensors(monkeypatch):
    x = normal(3, 100)
    whole = count(Grid(64), x)
    monkeypatch.setattr(histogram, "ELEMENTS_AT_ONCE", 21)
    assert_bits(count(Grid(64), x), whole)


# What it is made of.


def test_powers_of_two():
    exponents = torch.arange(-1022, 1024)
    assert power_of_two(exponents).tolist() == [2.0**exponent for exponent in exponents.tolist()]
    assert exponent_of(power_of_two(exponents)).tolist() == exponents.tolist()
    below = torch.nextafter(power_of_two(exponents[1:]), torch.tensor(0.0, dtype=torch.float64))
    assert exponent_of(below).tolist() == exponents[:-1].tolist()


def test_sums_by_halves():
    """1 + tiny is 1 and tiny + tiny is not: only one order gives this sum."""
    tiny = 2.0**-53
    terms = torch.tensor([1.0, tiny, tiny, tiny, 0.0, tiny], dtype=torch.float64)
    # halves of 8: [1, 2 tiny, tiny, tiny], then [1 + tiny = 1, 3 tiny], and 3 tiny is more than half a step of 1
    assert halving_sum(terms).item() == 1.0 + 2.0**-51
    assert halving_sum(torch.ones(3, 5)).tolist() == [5, 5, 5]
    assert halving_sum(torch.ones(2, 1)).tolist() == [1, 1]
