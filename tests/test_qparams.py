"""choose_qparams, the first stage: float tensor to scale and zero point of each block. ARITHMETIC.md (4)."""

from math import inf, nan

import pytest
import torch

import quaver
from quaver import PerChannel, PerGroup, PerTensor, PerToken, reference
from tests.cases import (
    DEVICES,
    EDGE_SIZES,
    EDGE_VALUES,
    FLOAT_DTYPES,
    GRANULARITIES,
    assert_bits,
    generator,
    layouts,
    normal,
)

op = torch.ops.quaver.choose_qparams

SMALLEST_NORMAL = 2.0**-126
LARGEST = torch.finfo(torch.float32).max

# Every kind of parameters: symmetric closed under negation, full range and one-sided; asymmetric; parts of the codes.
KINDS = {
    "symmetric": {},
    "full range": {"q_min": -128, "q_max": 127},
    "7 bits": {"q_min": -63, "q_max": 63, "eps": 1e-3},
    "one-sided": {"dtype": torch.uint8, "q_min": 0},
    "asymmetric": {"symmetric": False},
    "asymmetric uint8": {"symmetric": False, "dtype": torch.uint8},
    "4 bits": {"symmetric": False, "dtype": torch.uint8, "q_min": 0, "q_max": 15, "eps": 1e-3},
    "1 bit": {"symmetric": False, "q_min": 0, "q_max": 1},
    "video range": {"symmetric": False, "dtype": torch.uint8, "q_min": 16, "q_max": 235},
}

on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
for_each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def check(x, scale_shape, **kind):
    """The op's scale and zero point are the reference's, and contiguous whatever x is."""
    actual = op(x, scale_shape, **kind)
    for got, wanted in zip(actual, reference.choose_qparams(x, scale_shape, **kind), strict=True):
        assert_bits(got, wanted)
        assert got.stride() == torch.empty(scale_shape).stride()
    return actual


# Hand numbers.


@on_each_device
@pytest.mark.parametrize("implementation", [reference.choose_qparams, op], ids=["reference", "op"])
@pytest.mark.parametrize(
    ("x", "kind", "scale", "zero_point"),
    [
        ([-254.0, 100.0], {}, 2.0, 0),  # 254 / 127
        ([-254.0, 100.0], {"q_min": -128}, 2.0, 0),  # q_max is still 127: -128 stays unused
        ([-14.0, 3.0], {"q_min": -7, "q_max": 7}, 2.0, 0),
        ([0.0, 510.0], {"dtype": torch.uint8, "q_min": 0}, 2.0, 0),  # one-sided: 510 / 255
        ([-10.0, 500.0], {"symmetric": False}, 2.0, -123),  # 510 / 255; -128 + 10 / 2
        ([-10.0, 500.0], {"symmetric": False, "dtype": torch.uint8}, 2.0, 5),
        ([100.0, 510.0], {"symmetric": False}, 2.0, -128),  # lo becomes 0: 0 needs a code
        ([-510.0, -100.0], {"symmetric": False}, 2.0, 127),  # hi becomes 0
        # Half a step: -128 + 2.5 is -125.5 and -128 + 3.5 is -124.5, and both go to the even neighbour.
        ([-5.0, 505.0], {"symmetric": False}, 2.0, -126),
        ([-7.0, 503.0], {"symmetric": False}, 2.0, -124),
        ([-5.0, 505.0], {"symmetric": False, "dtype": torch.uint8}, 2.0, 2),
        ([-7.0, 503.0], {"symmetric": False, "dtype": torch.uint8}, 2.0, 4),
        ([-2.0, 436.0], {"symmetric": False, "dtype": torch.uint8, "q_min": 16, "q_max": 235}, 2.0, 17),  # 438 / 219
        # Nothing to measure: scale 1, whatever eps is.
        ([0.0, -0.0], {"eps": 4.0}, 1.0, 0),
        ([0.0, -0.0], {"symmetric": False, "eps": 4.0}, 1.0, -128),
        ([], {}, 1.0, 0),
        ([nan, inf, -inf], {}, 1.0, 0),
        ([nan, inf, -inf], {"symmetric": False, "dtype": torch.uint8}, 1.0, 0),
        ([nan, 100.0, inf, -254.0, -inf], {}, 2.0, 0),  # the finite elements count
        # Scales stop at the smallest normal number, or at eps.
        ([2.0**-149], {}, SMALLEST_NORMAL, 0),
        ([-(2.0**-149)], {"symmetric": False}, SMALLEST_NORMAL, -128),  # a quotient of 2^-23 does not move it
        ([254.0], {"eps": 2.5}, 2.5, 0),
        ([254.0], {"eps": 1.5}, 2.0, 0),
        ([-10.0, 500.0], {"symmetric": False, "eps": 4.0}, 4.0, -126),  # -128 + 10 / 4 = -125.5
        # 2^128 / 255 = 2^120 * 1.0000 0001 0000 0001 0000 0001..., whose 24th bit behind the point rounds the 23rd up,
        # though hi - lo overflows. By this scale lo is -127.49999 steps from 0, and -128 + 127.49999 goes to -1.
        ([-(2.0**127), 2.0**127], {"symmetric": False}, float.fromhex("0x1.010102p120"), -1),
    ],
)
def test_hand_numbers(device, implementation, x, kind, scale, zero_point):
    x = torch.tensor(x, device=device)
    actual_scale, actual_zero_point = implementation(x, (1,), **kind)
    assert_bits(actual_scale, torch.tensor([scale]))
    assert_bits(actual_zero_point, torch.tensor([zero_point], dtype=torch.int32))


@pytest.mark.parametrize(
    ("granularity", "shape", "scale_shape"),
    [
        (PerTensor(), (), ()),
        (PerTensor(), (2, 3, 4), (1, 1, 1)),
        (PerChannel(), (2, 3, 4), (2, 1, 1)),
        (PerChannel(1), (2, 3, 4), (1, 3, 1)),
        (PerChannel(-1), (2, 3, 4), (1, 1, 4)),
        (PerToken(), (2, 3, 4), (2, 3, 1)),
        (PerToken(), (4,), (1,)),
        (PerGroup(2), (2, 3, 4), (2, 3, 2)),
        (PerGroup(4), (3, 0), (3, 0)),
    ],
)
def test_granularity_becomes_a_shape(granularity, shape, scale_shape):
    assert granularity.scale_shape(shape) == scale_shape


@pytest.mark.parametrize(
    ("granularity", "shape", "words"),
    [
        (PerChannel(2), (3, 4), r"PerChannel: axis must be between -2 and 1 for x \[3, 4\], got 2"),
        (PerChannel(-3), (3, 4), "got -3"),
        (PerToken(), (), "PerToken: x must have at least 1 dimension"),
        (PerGroup(2), (), "PerGroup: x must have at least 1 dimension"),
        (PerGroup(3), (3, 4), "PerGroup: size must divide x's last dimension 4, got 3"),
        (PerGroup(0), (3, 4), "got 0"),
    ],
)
def test_granularity_that_does_not_fit(granularity, shape, words):
    with pytest.raises(ValueError, match=words):
        quaver.choose_qparams(torch.zeros(shape), granularity)


# The op is the reference, bit for bit.


@on_each_device
@for_each_dtype
@for_each_kind
@pytest.mark.parametrize(("shape", "scale_shape"), [case for case in GRANULARITIES if len(case[0]) == len(case[1])])
def test_granularities(device, dtype, kind, shape, scale_shape):
    check((normal(*shape, dtype=dtype) * 3 + 1).to(device), scale_shape, **kind)


@on_each_device
@for_each_dtype
@for_each_kind
@pytest.mark.parametrize("axis", [0, 1])
def test_awkward_channels(device, dtype, kind, axis):
    channels = torch.stack(
        [
            torch.zeros(40),
            -torch.zeros(40),
            torch.full((40,), 3.7),
            torch.full((40,), -3.7),
            normal(40).abs() + 5,
            -normal(40).abs() - 5,
            torch.full((40,), nan),
            torch.full((40,), -inf),
            normal(40).where(torch.arange(40) % 3 > 0, inf),
            normal(40).where(torch.arange(40) % 7 > 0, nan),
            normal(40) * 1e-39,  # denormals, zeros in float16
            normal(40) * 1e-44,
            torch.linspace(-LARGEST, LARGEST, 40),
            torch.linspace(-1e38, LARGEST, 40),
        ]
    ).to(device, dtype)
    x = channels if axis == 0 else channels.t().contiguous()
    check(x, PerChannel(axis).scale_shape(x.shape), **kind)


@on_each_device
@for_each_kind
def test_ranges_of_edge_values(device, kind):
    """Each pair of edge values as a block of its own."""
    low, high = torch.broadcast_tensors(EDGE_VALUES[:, None], EDGE_VALUES)
    x = torch.stack([low, high], dim=-1).to(device)
    check(x, (*x.shape[:-1], 1), **kind)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_a_small_type_is_widened_exactly(device, dtype):
    """With codes -1, 0, 1 and a block for each element, the scale is |x| itself."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
    scale, _ = check(x, x.shape, q_min=-1, q_max=1)
    size = x.to(torch.float64).abs().cpu()
    expected = torch.where((size == 0) | ~size.isfinite(), 1.0, size.clamp(min=SMALLEST_NORMAL))
    assert_bits(scale, expected.to(torch.float32))


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("kind", [KINDS["symmetric"], KINDS["asymmetric"]], ids=["symmetric", "asymmetric"])
def test_layouts(device, dtype, kind):
    for shape, scale_shape in (((7, 13), (7, 1)), ((6, 70), (6, 2)), ((2, 3, 4, 5), (1, 3, 1, 1)), ((67,), (1,))):
        for _, x in layouts(normal(*shape, dtype=dtype).to(device)):
            check(x, scale_shape, **kind)
    for shape in ((5, 1), (1, 40), (1, 1)):  # repeated by strides of 0
        x = normal(*shape, dtype=dtype).to(device).expand(5, 40)
        for scale_shape in ((1, 1), (5, 1), (1, 40), (5, 8)):
            check(x, scale_shape, **kind)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("size", EDGE_SIZES)
def test_sizes(device, dtype, size):
    for symmetric in (True, False):
        check(normal(size, dtype=dtype).to(device), (1,), symmetric=symmetric)
        for scale_shape in ((1, 1), (5, 1), (1, size), (5, size)):
            check(normal(5, size, dtype=dtype).to(device), scale_shape, symmetric=symmetric)


@on_each_device
@for_each_dtype
def test_an_extreme_is_found_wherever_it_stands(device, dtype):
    """Row and column i hold one large element, at i, so for every lane and tail of a loop; 127 * 2^e has scale 2^e."""
    scales = torch.exp2(torch.arange(257) % 7 + 1.0)
    for sign in (1, -1):
        x = (torch.ones(257, 257) + torch.diag(sign * 127 * scales - 1)).to(device, dtype)
        for scale_shape in ((257, 1), (1, 257)):
            scale, _ = check(x, scale_shape)
            assert_bits(scale.flatten(), scales)


@pytest.fixture(params=[1, 2, 7], ids="{} threads".format)
def threads(request):
    """CPU threads: each number of them cuts the loops elsewhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@on_each_device
@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [
        ((200_003,), (1,)),
        ((301, 997), (1, 1)),
        ((301, 997), (301, 1)),
        ((301, 997), (1, 997)),
        ((301, 1000), (301, 125)),
        ((301, 1000), (7, 20)),
        ((2, 100_003), (2, 1)),
        ((100_003, 2), (1, 2)),
        ((3, 5, 131, 101), (1, 5, 1, 1)),
    ],
)
@pytest.mark.usefixtures("threads")
def test_more_than_one_thread(device, shape, scale_shape):
    x = normal(*shape).to(device)
    check(x, scale_shape)
    check(x, scale_shape, symmetric=False)
    check(x.transpose(0, -1).contiguous().transpose(0, -1), scale_shape, symmetric=False)


# What a user relies on.


@on_each_device
@for_each_kind
def test_every_finite_range_has_a_scale(device, kind):
    """Positive, finite and no denormal; the zero point is a code. 10^5 ranges over all float32 bit patterns, and the
    widest range."""
    bits = torch.randint(-(2**31), 2**31, (100_000, 2), generator=generator())
    x = bits.to(torch.int32).view(torch.float32)
    x = torch.cat([x[x.isfinite().all(1)], torch.tensor([[-LARGEST, LARGEST]])]).to(device)
    assert len(x) > 90_000
    params = quaver.choose_qparams(x, PerToken(), **kind)
    good = params.scale.isfinite() & (params.scale >= SMALLEST_NORMAL)
    good &= (params.zero_point >= params.q_min) & (params.zero_point <= params.q_max)
    assert good.all(), f"{(~good).sum()} ranges without valid parameters, the first {x[~good.flatten()][0].tolist()}"


@on_each_device
def test_params(device):
    """The function's granularity, ranges and kinds arrive in the op; what they came from stands in the params."""
    x = normal(6, 8).to(device)
    for granularity in (PerTensor(), PerChannel(1), PerToken(), PerGroup(4)):
        for kind in KINDS.values():
            params = quaver.choose_qparams(x, granularity, **kind)
            scale, zero_point = op(x, granularity.scale_shape(x.shape), **kind)
            assert_bits(params.scale, scale)
            assert_bits(params.zero_point, zero_point)
            symmetric = kind.get("symmetric", True)
            low, high = (0, 255) if kind.get("dtype") is torch.uint8 else (-127 if symmetric else -128, 127)
            assert (params.q_min, params.q_max) == (kind.get("q_min", low), kind.get("q_max", high))
            assert params.symmetric is symmetric
            assert params.correction is (None if symmetric else params.zero_point)
            moved = params.to("cpu")
            assert_bits(moved.scale, scale)
            assert_bits(moved.zero_point, zero_point)
            assert (moved.q_min, moved.q_max, moved.symmetric) == (params.q_min, params.q_max, symmetric)
    assert_bits(quaver.choose_qparams(x).scale, op(x, (1, 1))[0])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dtype": torch.uint8}, ValueError, r"symmetric uint8 codes need q_min=0.*asymmetric \(symmetric=False\)"),
        ({"dtype": torch.int32}, ValueError, "dtype must be torch.int8 or torch.uint8, got torch.int32"),
        ({"q_min": 5}, ValueError, "symmetric codes need q_min <= 0 < q_max, got q_min=5 and q_max=127"),
        ({"q_max": 128}, ValueError, "-128 <= q_min < q_max <= 127 for int8, got q_min=-127 and q_max=128"),
        ({"symmetric": False, "q_min": 3, "q_max": 3}, ValueError, "got q_min=3 and q_max=3"),
        ({"q_min": -7.0}, TypeError, "q_min must be an int or None, got float"),
        ({"eps": 0.0}, ValueError, "eps must be positive and finite, got 0.0"),
        ({"eps": nan}, ValueError, "eps must be positive and finite, got nan"),
        ({"eps": inf}, ValueError, "eps must be positive and finite, got inf"),
        ({"eps": "small"}, TypeError, "eps must be a number or None, got str"),
        ({"granularity": "per_tensor"}, TypeError, r"granularity must be PerTensor\(\).*got 'per_tensor'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, error, words):
    with pytest.raises(error, match=f"quaver::choose_qparams: .*{words}"):
        quaver.choose_qparams(torch.ones(4), **arguments)
