"""Observers beside torch.ao.quantization's and onnxruntime's: where they say the same, equal; and where not, how."""

from math import inf, nan

import numpy as np
import pytest
import torch
from onnxruntime.quantization.calibrate import HistogramCollector
from torch.ao.quantization import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)

from quaver import PerChannel
from quaver.entropy import NumpyOrder, best_reach, kept_bins
from quaver.observers import Entropy, MinMax, MovingAverage, Percentile
from tests.cases import assert_bits, generator, normal


def after(observer, *tensors):
    for x in tensors:
        observer.observe(x)
    return observer


def torch_after(observer, *tensors):
    for x in tensors:
        observer(x)
    return observer


def assert_same_range(ours, theirs):
    lo, hi = ours.chosen_range()
    assert_bits(lo.flatten(), theirs.min_val.flatten())
    assert_bits(hi.flatten(), theirs.max_val.flatten())


def batches(seed=0):
    """Of magnitudes from 1e-3 to 1e3, one of them empty."""
    sizes = torch.exp2(torch.rand(8, generator=generator(seed)) * 20 - 10)
    tensors = [normal(5, 3, seed=seed + step) * size for step, size in enumerate(sizes)]
    return [*tensors[:4], torch.empty(0, 3), *tensors[4:]]


# torch.ao.quantization


@pytest.mark.parametrize("seed", range(5))
def test_torch_min_max(seed):
    assert_same_range(after(MinMax(), *batches(seed)), torch_after(MinMaxObserver(), *batches(seed)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("axis", [0, 1])
def test_torch_per_channel_min_max(seed, axis):
    tensors = [batch for batch in batches(seed) if len(batch)]
    theirs = torch_after(PerChannelMinMaxObserver(ch_axis=axis), *tensors)
    assert_same_range(after(MinMax(granularity=PerChannel(axis)), *tensors), theirs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("momentum", [0.01, 0.1, 1 / 3, 0.5, 1.0])
def test_torch_moving_average(seed, momentum):
    theirs = torch_after(MovingAverageMinMaxObserver(averaging_constant=momentum), *batches(seed))
    assert_same_range(after(MovingAverage(momentum), *batches(seed)), theirs)
    theirs = torch_after(MovingAveragePerChannelMinMaxObserver(momentum, ch_axis=1), *batches(seed))
    assert_same_range(after(MovingAverage(momentum, granularity=PerChannel(1)), *batches(seed)), theirs)


def test_torch_moving_average_has_the_same_default():
    assert MovingAverage().momentum == MovingAverageMinMaxObserver().averaging_constant


@pytest.mark.parametrize("poison", [nan, inf, -inf])
def test_torch_does_not_recover(poison):
    """One number that is none, and torch's average is never one again."""
    tensors = [normal(9), torch.tensor([1.0, poison]), *[normal(9, seed=seed) for seed in range(1, 200)]]
    theirs = torch_after(MovingAverageMinMaxObserver(averaging_constant=0.5), *tensors)
    assert not (theirs.min_val.isfinite() and theirs.max_val.isfinite())
    tensors[1] = torch.tensor([1.0])
    theirs = torch_after(MovingAverageMinMaxObserver(averaging_constant=0.5), *tensors)
    tensors[1] = torch.tensor([1.0, poison])
    assert_same_range(after(MovingAverage(0.5), *tensors), theirs)


def test_torch_overflows():
    """Where two batches are further apart than float32 reaches."""
    tensors = torch.tensor([-3 * 2.0**126]), torch.tensor([3 * 2.0**126])
    assert torch_after(MovingAverageMinMaxObserver(averaging_constant=0.25), *tensors).min_val == inf
    assert after(MovingAverage(0.25), *tensors).chosen_range()[0] == -3 * 2.0**125


@pytest.mark.parametrize("seed", range(5))
def test_torch_asymmetric_parameters(seed):
    """Its zero point rounds before it adds, which is the same but for ties."""
    scale, zero_point = torch_after(MinMaxObserver(dtype=torch.qint8, eps=1e-8), *batches(seed)).calculate_qparams()
    params = after(MinMax(symmetric=False, eps=1e-8), *batches(seed)).qparams()
    assert_bits(params.scale, scale)
    assert_bits(params.zero_point, zero_point)


@pytest.mark.parametrize("seed", range(5))
def test_torch_symmetric_parameters_divide_by_a_half_more(seed):
    """By (127 - -128) / 2, so that what is largest is rounded to 127.5 steps and clipped to 127."""
    theirs = torch_after(MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric), *batches(seed))
    scale, _ = theirs.calculate_qparams()
    lo, hi = after(MinMax(), *batches(seed)).chosen_range()
    bound = torch.maximum(-lo, hi)
    assert_bits(scale, bound / 127.5)
    assert_bits(after(MinMax(), *batches(seed)).qparams().scale, bound / torch.tensor(127.0))


# onnxruntime, on the histograms of our observers and on numpy's

EVERYWHERE = (np.float32(-3e38), np.float32(3e38), np.float32(3e38))  # nothing seen that would cut a range


def collector(method, *, symmetric=False, levels=128, percentile=99.999):
    return HistogramCollector(method, symmetric, 128, levels, percentile, "same")


def their_percentiles(counts, edges, percentile, *, symmetric=False, seen=EVERYWHERE):
    collected = collector("percentile", symmetric=symmetric, percentile=percentile)
    collected.histogram_dict = {"x": (counts, edges, *seen)}
    return collected.compute_percentile()["x"][:2]


def histogram_of(observer):
    """(counts, edges) as numpy has them; all edges are float32."""
    counts, edges = (part.flatten().numpy() for part in observer.histogram())
    assert (edges == edges.astype(np.float32)).all()
    return counts, edges.astype(np.float32)


def edge_after(edges, edge):
    return edges[np.flatnonzero(edges == edge)[0] + 1]


DATA = {
    "normal": lambda seed: normal(1000, seed=seed),
    "of one sign": lambda seed: normal(1000, seed=seed).abs() + 1,
    "negative": lambda seed: -normal(1000, seed=seed).exp(),
    "outliers": lambda seed: torch.cat([normal(1000, seed=seed), torch.tensor([30.0, -20.0])]),
    "steps": lambda seed: (normal(1000, seed=seed) * 2).round(),
    "few": lambda seed: normal(20, seed=seed),
    "mostly zeros": lambda seed: normal(1000, seed=seed).clamp(min=1.5) - 1.5,
}
for_each_data = pytest.mark.parametrize("data", DATA.values(), ids=DATA)


@for_each_data
@pytest.mark.parametrize("percentile", [99.93, 98.7, 81.3])
def test_onnxruntime_percentiles(data, percentile):
    """The same lo; hi is the upper edge of the bin whose lower edge is onnxruntime's. Both are cut to what was seen."""
    cut = (100 - percentile) / 2
    for seed in range(3):
        x = data(seed)
        observer = after(Percentile(cut, 100 - cut, bins=256), x)
        counts, edges = histogram_of(observer)
        lo, hi = their_percentiles(counts, edges, percentile)
        seen = x.min().numpy(), x.max().numpy()
        assert [end.item() for end in observer.chosen_range()] == [
            max(lo, seen[0]),
            min(edge_after(edges, hi), seen[1]),
        ]


@pytest.mark.parametrize("percentile", [99.93, 98.7, 81.3])
def test_onnxruntime_symmetric_percentiles(percentile):
    """It counts |x|: for data of one sign that is one tail alone."""
    for seed in range(3):
        x = normal(1000, seed=seed).abs()
        observer = after(Percentile(0, percentile, bins=256), x)
        counts, edges = histogram_of(observer)
        _, bound = their_percentiles(counts, edges, percentile, symmetric=True)
        assert observer.chosen_range()[1].item() == min(edge_after(edges, bound), x.max().numpy())


def test_onnxruntime_symmetric_percentiles_of_both_signs():
    """Ours are those of two tails, and of these the wider: 1 % of the least takes -50 away, 0.75 % do not."""
    x = torch.cat([torch.linspace(0.5, 1, 99), torch.tensor([-50.0])])
    counts, edges = np.histogram(x.abs().numpy(), 1000)
    assert their_percentiles(counts, edges.astype(np.float32), 98.5, symmetric=True)[1] < 1.01
    assert after(Percentile(0.75, 99.25), x).qparams().scale.item() == pytest.approx(50 / 127)
    assert after(Percentile(1, 100), x).qparams().scale.item() == pytest.approx(1 / 127)


def test_onnxruntime_clips_more_than_was_asked_for():
    """Its lower edge: of 99.9 % in one bin nothing is kept but what is below that bin."""
    x = torch.cat([torch.full((999,), 1.5), torch.tensor([1000.0])])
    observer = after(Percentile(0.05, 99.9, bins=512), x)
    lo, hi = their_percentiles(*histogram_of(observer), 99.8)
    assert (lo, hi) == (0, 0)
    assert [end.item() for end in observer.chosen_range()] == [1.5, 2.0]


@pytest.mark.parametrize(
    "length", [1, 7, 8, 9, 100, 127, 128, 129, 135, 136, 137, 255, 256, 257, 264, 1000, 2049, 4095]
)
def test_numpy_sums(length):
    """The order of summation is numpy's: the same bits."""
    rows = normal(20, length).exp()
    theirs = [np.sum(row, axis=0, keepdims=True)[0] for row in rows.numpy()]
    assert_bits(NumpyOrder(length, "cpu").sum(rows), torch.tensor(np.stack(theirs)))


def their_range(counts, edges, levels, seen=EVERYWHERE):
    return collector("entropy").get_entropy_threshold((counts, edges, *seen), levels)


def check_entropy(counts, edges, levels):
    first, end = kept_bins(best_reach(torch.from_numpy(counts)[None], levels).item(), len(counts))
    assert (edges[first], edges[end]) == their_range(counts, edges, levels)


def numpys_histogram(x, bins):
    """From -m to m, a little beyond what is there."""
    reach = x.abs().max().item() * 1.1
    counts, edges = np.histogram(x.numpy(), bins, range=(-reach, reach))
    return counts, edges.astype(np.float32)


@for_each_data
@pytest.mark.parametrize(("bins", "levels"), [(64, 8), (64, 9), (65, 16), (129, 33), (130, 130), (96, 15), (300, 255)])
def test_onnxruntime_entropy(data, bins, levels):
    """The same range for numpy's histograms."""
    check_entropy(*numpys_histogram(data(bins), bins), levels)


@pytest.mark.parametrize(
    ("bins", "levels", "seed"),
    [*((129, 33, seed) for seed in (18, 137, 289, 324, 373)), *((130, 32, seed) for seed in (35, 97, 170, 235))],
)
def test_onnxruntime_entropy_where_rounding_decides(bins, levels, seed):
    """Of these histograms (9 of 800), sums in float64 choose another range."""
    check_entropy(*numpys_histogram(normal(1000, seed=seed), bins), levels)


@for_each_data
def test_onnxruntime_entropy_of_an_observer(data):
    """And for an observer's. Both are cut to what was seen; ours keeps 0, which onnxruntime's parameters do as well."""
    for seed in range(3):
        x = data(seed)
        observer = after(Entropy(levels=31, bins=128), x)
        seen = x.min().numpy(), x.max().numpy(), EVERYWHERE[2]
        lo, hi = their_range(*histogram_of(observer), 31, seen)
        assert [end.item() for end in observer.chosen_range()] == [min(lo, 0), max(hi, 0)]


def test_onnxruntime_entropy_of_channels():
    x = torch.stack([data(seed)[:20] for seed, data in enumerate(DATA.values())])
    observer = after(Entropy(levels=15, bins=100, granularity=PerChannel(0)), x)
    counts, edges = observer.histogram()
    lo, hi = observer.chosen_range()
    for channel in range(len(x)):
        row = counts[channel, 0].numpy(), edges[channel, 0].numpy().astype(np.float32)
        seen = x[channel].min().numpy(), x[channel].max().numpy(), EVERYWHERE[2]
        theirs = their_range(*row, 15, seen)
        assert (lo[channel].item(), hi[channel].item()) == (min(theirs[0], 0), max(theirs[1], 0))


def test_onnxruntime_entropy_of_counts_beyond_float32():
    """Counts are rounded to 24 bits, as there."""
    counts = (normal(101).abs() * 2**40).to(torch.int64)
    check_entropy(counts.numpy(), np.arange(-50, 52, dtype=np.float32), 12)
