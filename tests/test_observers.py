"""Observers: what they see, what they choose, how they are joined and kept. ARITHMETIC.md (4) makes parameters of it.

The peers' numbers are in tests/test_observers_peers.py, several processes in tests/test_observers_distributed.py, and
the histogram itself in tests/test_histogram.py.
"""

import copy
import io
import pickle
from functools import partial
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import quaver
from quaver import PerChannel, PerGroup, PerTensor, PerToken
from quaver.observers import MSE, Entropy, FixedRange, MinMax, MovingAverage, Percentile
from tests.cases import DEVICES, EDGE_VALUES, FLOAT_DTYPES, assert_bits, normal

LARGEST = torch.finfo(torch.float32).max
SMALLEST = 2.0**-149

# One of each kind, with few bins and candidates where they have any.
KINDS = {
    "MinMax": MinMax,
    "MovingAverage": partial(MovingAverage, 0.25),
    "FixedRange": partial(FixedRange, -0.5, 1.5),
    "Percentile": partial(Percentile, 5, 90, bins=64),
    "MSE": partial(MSE, candidates=8, bins=64),
    "Entropy": partial(Entropy, levels=8, bins=64),
}
for_each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
for_each_data_driven_kind = pytest.mark.parametrize(
    "kind",
    [kind for name, kind in KINDS.items() if name != "FixedRange"],
    ids=[name for name in KINDS if name != "FixedRange"],
)
on_each_device = pytest.mark.parametrize("device", DEVICES)
symmetric_or_not = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])


def after(observer, *tensors):
    for x in tensors:
        observer.observe(x)
    return observer


def parts_of(value):
    return value if isinstance(value, list) else [value]


def assert_same_state(actual, expected):
    actual, expected = actual.state_dict(), expected.state_dict()
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        for part, wanted in zip(parts_of(actual[name]), parts_of(value), strict=True):
            if isinstance(wanted, torch.Tensor):
                assert_bits(part, wanted)
            else:
                assert part == wanted


def assert_same_params(actual, expected):
    assert_bits(actual.scale, expected.scale)
    assert_bits(actual.zero_point, expected.zero_point)
    assert (actual.q_min, actual.q_max, actual.symmetric) == (expected.q_min, expected.q_max, expected.symmetric)


def range_of(observer):
    return tuple(end.tolist() for end in observer.chosen_range())


# Hand numbers.


@on_each_device
@pytest.mark.parametrize(
    ("observer", "batches", "lo", "hi"),
    [
        (MinMax(), [[1.0, -3.0], [2.0]], -3, 2),
        (MinMax(), [[1.0, nan], [inf], [-inf, 4.0]], 1, 4),
        # 0 + 1/4 * (8 - 0) = 2, then 2 + 1/4 * (-2 - 2) = 1; hi 8, 8, 8 + 1/4 * (0 - 8) = 6
        (MovingAverage(0.25), [[0.0, 8.0], [8.0], [-2.0, 0.0]], 1, 6),
        (MovingAverage(0.25), [[0.0, 8.0], [], [nan, inf], [8.0], [-2.0, 0.0]], 1, 6),  # nothing finite: no batch
        (MovingAverage(1), [[5.0], [0.0, 8.0], [8.0]], 8, 8),
        # -3 and 3 times 2^126, whose difference overflows
        (MovingAverage(0.25), [[-3 * 2.0**126], [3 * 2.0**126]], -3 * 2.0**125, -3 * 2.0**125),
        (FixedRange(-5, 5), [[0.0, 256.0]], -5, 5),
        (FixedRange(1, 2), [[nan]], 1, 2),
        # 0..99 in 128 bins of width 1: below 10 lie 10 %, below 90 lie 90 %.
        (Percentile(10, 90, bins=128), [list(range(50)), list(range(50, 100))], 10, 90),
        (Percentile(9.5, 90.5, bins=128), [list(range(100))], 9, 91),
        (Percentile(0, 100, bins=128), [list(range(3, 100))], 3, 99),
        (Percentile(0.5, 99.5, bins=4), [[1.0] * 200 + [1000.0]], 1, 256),  # bins of 256: 1.0 is in 0..256
        (Percentile(40, 60, bins=4), [[7.0]], 7, 7),
        # 2 codes but 0, bins of width 1/4 with middles 1/8 above the values: ones by a range of 1.125 are exact.
        (MSE(candidates=8, bins=64, q_min=-1, q_max=1), [[1.0] * 100 + [9.0]], -1.125, 1.125),
        (MSE(candidates=4, bins=64, q_min=-1, q_max=1), [[0.0] * 3], 0, 0),
        # Ranges hold 0, also if no value is near it.
        (MSE(candidates=8, bins=64, symmetric=False, q_min=0, q_max=1), [[1.0] * 99 + [9.0]], 0, 1.125),
        (MSE(candidates=8, bins=64, symmetric=False, q_min=-1, q_max=0), [[-1.25] * 99 + [-9.0]], -1.125, 0),
        # All in the bin at 0 and one far away: no more than 2 levels' bins need to be kept.
        (Entropy(levels=2, bins=64), [[0.5] * 1000 + [30.0]], 0, 2),
    ],
)
def test_hand_numbers(device, observer, batches, lo, hi):
    observer = after(
        copy.deepcopy(observer), *(torch.tensor(batch, dtype=torch.float32, device=device) for batch in batches)
    )
    assert range_of(observer) == ([lo], [hi])


@symmetric_or_not
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(0), PerChannel(-1), PerToken(), PerGroup(4)], ids=str)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_minmax_is_choose_qparams_of_everything(symmetric, granularity, dtype):
    batches = [
        (normal(3, 5, 8, dtype=dtype, seed=seed) * (seed + 1)).where(normal(3, 5, 8) < 1, nan) for seed in (1, 2, 0)
    ]
    params = after(MinMax(granularity=granularity, symmetric=symmetric), *batches).qparams()
    if granularity == PerTensor():
        wanted = quaver.choose_qparams(torch.cat(batches).flatten(), symmetric=symmetric)
    else:  # blocks side by side, each in a row
        blocks = granularity.scale_shape((3, 5, 8))
        rows = torch.cat([in_rows(batch, blocks) for batch in batches], dim=1)
        wanted = quaver.choose_qparams(rows, PerToken(), symmetric=symmetric)
        assert params.scale.shape == blocks
    assert_bits(params.scale.flatten(), wanted.scale.flatten())
    assert_bits(params.zero_point.flatten(), wanted.zero_point.flatten())


def in_rows(x, blocks):
    """[blocks, elements], by asking each element for its block's number."""
    numbers = torch.arange(torch.Size(blocks).numel()).reshape(blocks)
    for dim, (size, count) in enumerate(zip(x.shape, blocks, strict=True)):
        numbers = numbers.repeat_interleave(size // count, dim)
    return torch.stack([x[numbers == number] for number in range(torch.Size(blocks).numel())])


@for_each_kind
@symmetric_or_not
@pytest.mark.parametrize(
    "codes", [{}, {"eps": 0.25}, {"dtype": torch.uint8, "q_min": 0}, {"q_min": -7, "q_max": 7}], ids=str
)
def test_parameters_are_those_of_the_chosen_range(kind, symmetric, codes):
    """Equation (4), by choose_qparams, of the two ends."""
    observer = after(kind(granularity=PerChannel(1), symmetric=symmetric, **codes), normal(40, 3))
    ends = torch.stack(observer.chosen_range()).reshape(2, 3)
    wanted = quaver.choose_qparams(ends, PerChannel(1), symmetric=symmetric, **codes)
    assert_same_params(observer.qparams(), wanted)


# What the rules say.


def test_the_notebooks_outlier():
    """A range clipped to 5 keeps codes for the other values: the second notebook's scale."""
    x = torch.tensor([-0.5687, -0.1912, -0.0626, -0.1266, 0.2687, 0.5551, 256.0])
    assert quaver.quantize(x, after(MinMax(), x).qparams()).tolist() == [0, 0, 0, 0, 0, 0, 127]
    params = after(FixedRange(-5, 5), x).qparams()
    assert_bits(params.scale, torch.tensor([0.03937007859349251]))
    assert quaver.quantize(x, params).tolist() == [-14, -5, -2, -3, 7, 14, 127]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("low", "high"), [(0, 100), (1, 99), (12.5, 50), (0.001, 99.999), (49, 50)])
def test_percentiles_by_their_definition(seed, low, high):
    """Of all edges, by counting; what is clipped is no more than was asked for."""
    x = normal(500, seed=seed).exp() if seed % 2 else normal(500, seed=seed).round()
    observer = after(Percentile(low, high, bins=100), x)
    edges = observer.histogram()[1][0]
    share_below = [100 * (x < edge).sum().item() / 500 for edge in edges]
    lo = max(edge for edge, share in zip(edges.tolist(), share_below, strict=True) if share <= low)
    hi = min(edge for edge, share in zip(edges.tolist(), share_below, strict=True) if share >= high)
    assert range_of(observer) == ([max(lo, x.min().item())], [min(hi, x.max().item())])
    chosen_lo, chosen_hi = observer.chosen_range()
    assert (x < chosen_lo).sum() <= low * 5
    assert (x > chosen_hi).sum() <= (100 - high) * 5


def with_outliers(seed):
    return torch.cat([normal(3000, seed=seed).clamp(-3.9, 3.9), torch.tensor([-4.0, 20.0])])


def squared_error(observer, lo, hi):
    """Of fake_quantize with such a range, on the middles of the bins of values from -4 to 20; in whatever order."""
    counts, edges = observer.histogram()
    middles = ((edges[:, 1:] + edges[:, :-1]) / 2).clamp(-4, 20).float()
    codes = {"dtype": observer.dtype, "q_min": observer.q_min, "q_max": observer.q_max}
    params = quaver.choose_qparams(torch.tensor([lo, hi]), symmetric=observer.symmetric, **codes)
    rounded = quaver.fake_quantize(middles, params, dtype=observer.dtype)
    return (counts * (middles.double() - rounded.double()) ** 2).sum().item()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "codes", [{"q_min": -7, "q_max": 7}, {"q_min": -1, "q_max": 1}, {"dtype": torch.uint8, "q_min": 0}]
)
def test_the_least_squared_error_of_symmetric_ranges(seed, codes):
    observer = after(MSE(candidates=40, bins=256, **codes), with_outliers(seed))
    ((lo,), (hi,)) = range_of(observer)
    errors = {}
    for step in range(1, 41):
        bound = (torch.tensor(20.0) * (step / 40)).item()
        errors[bound] = squared_error(observer, -bound, bound)
    assert lo == -hi
    assert errors[hi] <= min(errors.values()) * (1 + 1e-12)
    assert hi < 20 or codes.get("q_min") == 0  # nothing is won by clipping 20 where what is negative becomes 0 anyway


@pytest.mark.parametrize("seed", range(3))
def test_the_least_squared_error_of_asymmetric_ranges(seed):
    """Each end finds its own: lo is the best for hi, and no range whose ends move together is better."""
    observer = after(MSE(candidates=20, bins=256, symmetric=False, q_min=0, q_max=15), with_outliers(seed))
    ((lo,), (hi,)) = range_of(observer)
    ratios = [step / 20 for step in range(1, 21)]
    error = squared_error(observer, lo, hi)
    for ratio in ratios:
        assert error <= squared_error(observer, -4.0 * ratio, hi) * (1 + 1e-12)
        assert error <= squared_error(observer, -4.0 * ratio, 20.0 * ratio)
    assert hi / 20 < lo / -4


@symmetric_or_not
def test_of_equal_errors_the_wider_range_wins(symmetric):
    """Middles 3 (twice) and 8, codes 0 and 1. By a range of 8: 3 -> 0, 9 + 9. By 4: 3 -> 4 and 8 -> 4, 1 + 1 + 16."""
    codes = {"q_min": 0, "q_max": 1, "dtype": torch.uint8, "symmetric": symmetric}
    observer = after(MSE(candidates=2, bins=4, **codes), torch.tensor([3.0, 3.0, 8.0]))
    assert observer.chosen_range()[1].tolist() == [8.0]
    observer.observe(torch.tensor([3.0]))  # 27 against 19
    assert observer.chosen_range()[1].tolist() == [4.0]


@pytest.mark.parametrize("values", [[-LARGEST], [LARGEST], [-LARGEST, LARGEST]], ids=str)
def test_ranges_of_nearly_the_largest_number(values):
    """Their own codes may stand for infinity, an error that any other range undercuts."""
    x, codes = torch.tensor(values), {"symmetric": False, "q_min": -127}
    assert quaver.fake_quantize(x, after(MinMax(**codes), x).qparams()).isinf().all()
    assert quaver.fake_quantize(x, after(MSE(candidates=20, **codes), x).qparams()).isfinite().all()


def test_entropy_has_as_many_levels_as_there_are_codes():
    assert Entropy().levels == 255
    assert Entropy(dtype=torch.uint8, q_min=0).levels == 511  # 255 on each side of 0, of which one is empty
    assert Entropy(symmetric=False).levels == Entropy(symmetric=False, dtype=torch.uint8).levels == 256
    assert Entropy(symmetric=False, q_min=0, q_max=15).levels == 16


def test_entropy_of_data_of_one_sign_begins_at_0():
    """Also where all of it lies beyond the range that it chooses."""
    x = torch.tensor([10.0] * 900 + [11.0] * 100 + [60.0])
    for sign in (1, -1):
        observer = after(Entropy(levels=8, bins=64, symmetric=False), sign * x)
        near, far = sorted((end.item() for end in observer.chosen_range()), key=abs)
        assert near == 0
        assert 0 < sign * far < 60
    params = after(Entropy(levels=8, bins=64), x).qparams()
    assert params.scale.item() * 127 < 60


# Blocks, dtypes, shapes.


@for_each_kind
@symmetric_or_not
def test_channels_are_tensors_of_their_own(kind, symmetric):
    batches = [normal(6, 5, 4, seed=seed) * torch.tensor([1e-30, 1.0, 7.0, 1e30, 0.0])[:, None] for seed in (0, 1)]
    batches[1][:, 1, 2] = nan
    together = after(kind(granularity=PerChannel(1), symmetric=symmetric), *batches).qparams()
    for channel in range(5):
        alone = after(kind(symmetric=symmetric), *(batch[:, channel] for batch in batches)).qparams()
        assert_bits(together.scale[:, channel].flatten(), alone.scale)
        assert_bits(together.zero_point[:, channel].flatten(), alone.zero_point)


@for_each_kind
@pytest.mark.parametrize("granularity", [PerChannel(0), PerChannel(1), PerToken(), PerGroup(4)], ids=str)
def test_blocks_are_rows(kind, granularity):
    x = normal(4, 3, 8)
    blocks = granularity.scale_shape(x.shape)
    params = after(kind(granularity=granularity), x).qparams()
    assert params.scale.shape == params.zero_point.shape == blocks
    assert_bits(params.scale.reshape(-1, 1), after(kind(granularity=PerToken()), in_rows(x, blocks)).qparams().scale)


@for_each_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_small_floats_are_widened(kind, dtype):
    x = torch.cat([normal(50), EDGE_VALUES]).to(dtype)
    assert_same_state(after(kind(), x), after(kind(), x.float()))


@for_each_kind
def test_per_tensor_takes_any_shape(kind):
    """The scale has one element, which serves tensors of every rank. Strides do not matter."""
    x = normal(2, 3, 4)
    apart = after(kind(), x[0, 0, 0], x[0, 0, 1:], x[0, 1:], x[1:, :, None])
    assert apart.qparams().scale.shape == (1,)
    assert apart.count == 24
    if kind is not KINDS["MovingAverage"]:
        assert_same_state(apart, after(kind(), x))
    assert_same_state(after(kind(), x.transpose(0, 2)), after(kind(), x))
    assert_same_state(after(kind(), x[:, :1].expand(2, 5, 4)), after(kind(), x[:, :1].repeat(1, 5, 1)))


@for_each_kind
def test_no_elements(kind):
    """Nothing changes, but that there is something to make parameters of: those of zeros."""
    observer = after(kind(granularity=PerChannel(1)), torch.empty(0, 3))
    if kind is not KINDS["FixedRange"]:
        assert observer.qparams().scale.tolist() == [[1.0, 1.0, 1.0]]
    x = normal(4, 3)
    assert_same_params(
        after(observer, x, torch.empty(0, 3)).qparams(), after(kind(granularity=PerChannel(1)), x).qparams()
    )
    assert after(kind(granularity=PerChannel(0)), torch.empty(0, 3)).qparams().scale.shape == (0, 1)
    assert after(kind(granularity=PerToken()), torch.empty(3, 0, 5)).qparams().scale.shape == (3, 0, 1)


# What is no number, and extremes.


@on_each_device
@for_each_kind
def test_nan_and_infinities_are_counted_and_left_out(kind, device):
    x = normal(40, 3)
    x[3:9, 1], x[5, 2], x[11:14, 2], x[20] = nan, inf, -inf, inf
    x = x.to(device)
    observer = after(kind(granularity=PerChannel(1)), x)
    counts = (observer.count, observer.nan_count, observer.infinite_count)
    assert [count.item() for count in counts] == [40 * 3 - 13, 6, 7]
    assert all(count.dtype == torch.int64 and count.device == x.device and count.dim() == 0 for count in counts)
    for channel in range(3):
        column = x[:, channel]
        alone = after(kind(), column[column.isfinite()]).qparams()
        assert_bits(observer.qparams().scale[0, channel], alone.scale[0])
    observer.observe(torch.full((2, 3), nan, device=device))
    observer.observe(normal(2, 3).to(device))
    assert observer.nan_count.item() == 12
    assert observer.qparams().scale.isfinite().all()


@for_each_data_driven_kind
@symmetric_or_not
def test_nothing_finite_has_the_parameters_of_zeros(kind, symmetric):
    params = after(kind(symmetric=symmetric), torch.tensor([nan, inf, -inf])).qparams()
    assert_same_params(params, quaver.choose_qparams(torch.zeros(1), symmetric=symmetric))


@for_each_kind
@symmetric_or_not
@pytest.mark.parametrize(
    "values",
    [
        [0.0],
        [-0.0, 0.0],
        [SMALLEST],
        [-SMALLEST, 1e-39],
        [1.0],
        [-7.3] * 5,
        [LARGEST],
        [-LARGEST, LARGEST],
        [-LARGEST, SMALLEST],
        [3e38] * 3 + [-1e-45],
        [1.0, 1.0000001],
        [1e9, 1e9 + 64],
    ],
    ids=str,
)
def test_extremes_have_parameters(kind, symmetric, values):
    """In one batch and value by value; ranges lie within what was seen and 0."""
    x = torch.tensor(values)
    together = after(kind(symmetric=symmetric), x)
    by_value = after(kind(symmetric=symmetric), *x)
    for observer in (together, by_value):
        params = observer.qparams()
        assert (params.scale.isfinite() & (params.scale >= 2.0**-126)).all()
        assert ((params.zero_point >= params.q_min) & (params.zero_point <= params.q_max)).all()
        if kind is not KINDS["FixedRange"]:
            bound = x.abs().max()
            lo, hi = observer.chosen_range()
            assert -bound <= lo <= hi <= bound
    if kind is not KINDS["MovingAverage"]:
        assert_same_state(by_value, together)


def test_both_zeros_are_one():
    """The lesser of 0 and -0 would depend on which comes first."""
    for values in ([0.0, -0.0], [-0.0, 0.0], [-0.0]):
        lo, hi = after(MinMax(), torch.tensor(values)).chosen_range()
        assert_bits(torch.cat([lo, hi]), torch.zeros(2))


# What observing leaves alone.


@for_each_kind
def test_gradients_are_left_alone(kind):
    x = normal(8).requires_grad_()
    y = x * 2
    observer = after(kind(), x, y)
    assert not any(
        part.requires_grad
        for value in observer.state_dict().values()
        for part in parts_of(value)
        if isinstance(part, torch.Tensor)
    )
    assert not observer.qparams().scale.requires_grad
    y.sum().backward()
    assert x.grad.tolist() == [2.0] * 8


@for_each_kind
def test_x_stays_as_it_is(kind):
    x = torch.cat([normal(20), EDGE_VALUES])
    before = x.clone()
    observer = after(kind(), x)
    state = copy.deepcopy(observer)
    x.fill_(1e9)
    assert_same_state(observer, state)
    x.copy_(before)
    assert_bits(x, before)


@for_each_kind
def test_inference_mode(kind):
    x = normal(3, 20)
    plain = after(kind(granularity=PerChannel(0)), x, x + 1)
    observer = kind(granularity=PerChannel(0))
    with torch.inference_mode():
        observer.observe(x)
    observer.observe(x + 1)
    assert_same_state(observer, plain)
    assert_same_params(copy.deepcopy(observer).qparams(), plain.qparams())


class NothingIsRead(TorchDispatchMode):
    """Refuses ops that bring values to the host or whose results' shapes depend on values."""

    REFUSED = (
        "_local_scalar_dense",
        "item",
        "is_nonzero",
        "equal",
        "nonzero",
        "masked_select",
        "bincount",
        "unique",
        "histc",
    )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert not name.startswith(self.REFUSED), name
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        assert not any(index is not None and index.dtype == torch.bool for index in indices), name
        return function(*args, **(kwargs or {}))


@for_each_kind
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(1), PerGroup(2)], ids=str)
def test_observing_waits_for_nothing(kind, granularity):
    with NothingIsRead():
        observer = after(kind(granularity=granularity), normal(3, 4), normal(3, 4) * 100, torch.full((3, 4), nan))
    with NothingIsRead():
        observer.merge(copy.deepcopy(observer))


def test_what_waits_is_noticed():
    x = normal(3)
    for waits in (lambda: x.max().item(), lambda: x[x > 0], lambda: bool(x[0] > 0), x.nonzero, lambda: x.equal(x)):
        with NothingIsRead(), pytest.raises(AssertionError):
            waits()


@for_each_kind
def test_no_shape_depends_on_values(kind):
    """Tensors without values can be observed."""
    observer = after(
        kind(granularity=PerChannel(1)), torch.empty(3, 4, device="meta"), torch.empty(2, 4, device="meta")
    )
    assert observer.count.device.type == "meta"
    params = observer.qparams()
    assert (params.scale.shape, params.scale.device.type) == ((1, 4), "meta")


@for_each_kind
def test_ops_are_compared_with_the_reference(kind):
    with quaver.verify():
        params = after(kind(symmetric=False), normal(50)).qparams()
    with quaver.backend("reference"):
        assert_same_params(after(kind(symmetric=False), normal(50)).qparams(), params)


# Joining.

NUMBERS = st.one_of(st.floats(width=32), st.floats(-2, 2, width=32))
BATCHES = st.lists(st.lists(NUMBERS, max_size=4), min_size=1, max_size=5)


@for_each_kind
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(BATCHES, st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_joined_observers_are_one_that_saw_everything(kind, batches, first_cut, second_cut, right_first):
    """Three that see consecutive parts, which may be none, joined from the left or from the right."""
    batches = [torch.tensor(batch) for batch in batches]
    first_cut, second_cut = sorted((first_cut, second_cut))
    parts = (batches[:first_cut], batches[first_cut:second_cut], batches[second_cut:])
    first, second, third = (after(kind(), *part) for part in parts)
    if right_first:
        second.merge(third)
        first.merge(second)
    else:
        first.merge(second)
        first.merge(third)
    assert_same_state(first, after(kind(), *batches))


@for_each_kind
def test_order_matters_to_the_moving_average_alone(kind):
    a, b = normal(9), normal(9, seed=1) + 3
    forward, backward = after(kind(), a), after(kind(), b)
    forward.merge(after(kind(), b))
    backward.merge(after(kind(), a))
    if kind is KINDS["MovingAverage"]:
        assert range_of(forward) != range_of(backward)
    else:
        assert_same_state(forward, backward)


@for_each_kind
def test_the_other_stays_as_it_is(kind):
    one, other = after(kind(), normal(9)), after(kind(), normal(9, seed=1) * 9)
    before = copy.deepcopy(other)
    one.merge(other)
    one.observe(normal(5) * 100)
    assert_same_state(other, before)
    new = kind()
    new.merge(other)  # takes over what it has
    new.observe(normal(5) * 100)
    assert_same_state(other, before)
    other.merge(other)
    assert other.count == 18


@pytest.mark.parametrize(
    ("one", "other", "error", "words"),
    [
        (MinMax(), FixedRange(0, 1), TypeError, "observers.MinMax: other must be a MinMax too, got FixedRange"),
        (MinMax(), None, TypeError, "got NoneType"),
        (
            MinMax(),
            MinMax(symmetric=False),
            ValueError,
            r"a state must be of MinMax\(.*symmetric=True.*symmetric=False",
        ),
        (MinMax(), MinMax(granularity=PerChannel(0)), ValueError, "PerTensor.*PerChannel"),
        (MovingAverage(0.5), MovingAverage(0.25), ValueError, r"momentum=0.5\), got .*momentum=0.25\)"),
        (Percentile(bins=64), Percentile(bins=65), ValueError, "bins=64.*bins=65"),
        (FixedRange(0, 1), FixedRange(0, 2), ValueError, "hi=1.0.*hi=2.0"),
    ],
)
def test_those_that_do_not_fit_are_not_joined(one, other, error, words):
    with pytest.raises(error, match=words):
        one.merge(other)


def test_blocks_that_differ_are_not_joined():
    one, other = (after(MinMax(granularity=PerChannel(0)), normal(channels, 4)) for channels in (3, 2))
    with pytest.raises(ValueError, match=r"the other's shape must give the scale the shape \[3, 1\].*got \[2, 1\]"):
        one.merge(other)
    assert one.count == 12


# Keeping.


@for_each_kind
def test_kept_and_taken_up_again(kind):
    observer = after(kind(granularity=PerChannel(0)), normal(3, 20), normal(3, 20, seed=1))
    file = io.BytesIO()
    torch.save(observer.state_dict(), file)
    file.seek(0)
    loaded = kind(granularity=PerChannel(0))
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for same in (loaded, copy.deepcopy(observer), pickle.loads(pickle.dumps(observer))):
        assert repr(same) == repr(observer)
        assert_same_state(same, observer)
        assert_same_params(same.qparams(), observer.qparams())
        later = copy.deepcopy(observer)
        assert_same_state(after(same, normal(3, 5) * 50), after(later, normal(3, 5) * 50))
    assert observer.count == 120


@for_each_kind
def test_an_observer_without_data_is_kept_too(kind):
    observer = after(kind(), normal(5))
    observer.load_state_dict(kind().state_dict())
    assert_same_state(observer, kind())
    with pytest.raises(RuntimeError, match="nothing was observed"):
        observer.qparams()


@for_each_kind
def test_reset(kind):
    observer = after(kind(granularity=PerChannel(0)), normal(3, 20))
    observer.reset()
    assert observer.count == observer.nan_count == observer.infinite_count == 0
    assert observer.device is None
    assert_same_state(after(observer, normal(2, 9)), after(kind(granularity=PerChannel(0)), normal(2, 9)))


def test_states_that_do_not_fit():
    with pytest.raises(ValueError, match=r"observers.MinMax: a state must be of MinMax\(.*got one of MovingAverage\("):
        MinMax().load_state_dict(MovingAverage().state_dict())
    for nothing in ({}, None, [1]):
        with pytest.raises(TypeError, match="a state must be what state_dict"):
            MinMax().load_state_dict(nothing)


@for_each_kind
def test_the_representation_makes_the_observer(kind):
    observer = kind(granularity=PerChannel(1), eps=1e-8, q_max=100)
    again = eval(repr(observer), {**vars(quaver), **vars(quaver.observers), "torch": torch})
    assert repr(again) == repr(observer)
    assert type(again) is type(observer)


def test_representations():
    assert repr(MinMax(symmetric=False)) == (
        "MinMax(granularity=PerTensor(), symmetric=False, dtype=torch.int8, q_min=-128, q_max=127, eps=None)"
    )
    assert repr(MovingAverage(1)).endswith("q_min=-127, q_max=127, eps=None, momentum=1.0)")


# What does not fit.


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        ([1.0], TypeError, "observers.MinMax: x must be a tensor, got list"),
        (torch.zeros(2, 3, dtype=torch.float64), RuntimeError, "x must be float32, float16 or bfloat16, got float64"),
        (torch.zeros(2, 3, dtype=torch.int8), RuntimeError, "got int8"),
        (torch.zeros(2, 3, device="meta"), RuntimeError, "x must be on cpu, as what was seen before, got one on meta"),
        (torch.zeros(3, 3), ValueError, r"x's shape must give the scale the shape \[2, 1\], as before, got \[3, 1\]"),
        (torch.zeros(2, 3, 4), ValueError, r"got \[2, 1, 1\]"),
        (torch.zeros(()), ValueError, "PerChannel: x must have at least 1 dimension"),
    ],
)
def test_tensors_that_do_not_fit(x, error, words):
    observer = after(MinMax(granularity=PerChannel(0)), normal(2, 3))
    before = copy.deepcopy(observer)
    with pytest.raises(error, match=words):
        observer.observe(x)
    assert_same_state(observer, before)


def test_tangents_are_refused():
    with pytest.raises(NotImplementedError, match="MinMax: x has a tangent"):
        torch.func.jvp(lambda x: (MinMax().observe(x), x)[1], (normal(3),), (normal(3),))


@for_each_kind
def test_nothing_was_observed(kind):
    observer = kind()
    for question in (observer.qparams, observer.chosen_range, getattr(observer, "histogram", observer.qparams)):
        with pytest.raises(RuntimeError, match=r"nothing was observed yet: call observe\(x\) first"):
            question()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (partial(MinMax, granularity="per_tensor"), TypeError, "observers.MinMax: granularity must be PerTensor"),
        (partial(MinMax, symmetric=1), TypeError, "symmetric must be a bool, got int"),
        (partial(MinMax, dtype=torch.uint8), ValueError, "symmetric uint8 codes need q_min=0"),
        (partial(MinMax, dtype=torch.int32), ValueError, "dtype must be torch.int8 or torch.uint8"),
        (partial(MinMax, q_max=128), ValueError, "q_min < q_max <= 127"),
        (partial(MinMax, eps=0.0), ValueError, "eps must be positive and finite"),
        (partial(MovingAverage, 0), ValueError, "momentum must be above 0 and at most 1, got 0.0"),
        (partial(MovingAverage, 1.5), ValueError, "got 1.5"),
        (partial(MovingAverage, nan), ValueError, "got nan"),
        (partial(MovingAverage, "little"), TypeError, "momentum must be a number, got str"),
        (partial(FixedRange, 1, 1), ValueError, "lo must be below hi, and both finite float32, got 1.0 and 1.0"),
        (partial(FixedRange, 0, inf), ValueError, "got 0.0 and inf"),
        (partial(FixedRange, 0, 1e39), ValueError, "got 0.0 and 1e[+]39"),
        (partial(FixedRange, 0, None), TypeError, "hi must be a number, got NoneType"),
        (partial(Percentile, -1, 50), ValueError, "0 <= low < high <= 100, got -1.0 and 50.0"),
        (partial(Percentile, 50, 50), ValueError, "got 50.0 and 50.0"),
        (partial(Percentile, 0, 101), ValueError, "got 0.0 and 101.0"),
        (partial(Percentile, bins=1), ValueError, r"bins must lie within 2\.\.65536, got 1"),
        (partial(Percentile, bins=64.0), TypeError, "bins must be an int, got float"),
        (partial(MSE, 0), ValueError, r"candidates must lie within 1\.\.10000, got 0"),
        (partial(Entropy, 1), ValueError, r"levels must lie within 2\.\.2048, got 1"),
        (partial(Entropy, bins=128), ValueError, r"levels must lie within 2\.\.128, got 255"),
        (partial(Entropy, bins=8193), ValueError, r"bins must lie within 2\.\.8192, got 8193"),
    ],
)
def test_arguments_that_do_not_fit(make, error, words):
    with pytest.raises(error, match=words):
        make()
