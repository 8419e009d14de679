"""dynamic_quantize: float tensor to codes, the parameters that it chose for them, and the sums of their rows.
ARITHMETIC.md (5)."""

from math import inf, nan

import pytest
import torch

import quaver
from quaver import PerChannel, PerGroup, PerTensor, PerToken, reference
from tests.cases import (
    CODE_DTYPES,
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
from tests.test_qparams import KINDS

op = torch.ops.quaver.dynamic_quantize

on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
for_each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def check(x, scale_shape, **kind):
    """Codes, scale, zero point and row sums are the reference's; the codes lie as torch.empty_like lays them."""
    return_row_sum = x.dim() > 0
    actual = op(x, scale_shape, **kind, return_row_sum=return_row_sum)
    expected = reference.dynamic_quantize(x, scale_shape, **kind, return_row_sum=return_row_sum)
    for got, wanted in zip(actual, expected, strict=True):
        assert_bits(got, wanted)
    assert actual[0].stride() == torch.empty_like(x, dtype=actual[0].dtype).stride()
    for parameter in actual[1:]:
        assert parameter.is_contiguous()
    return actual


# Hand numbers.


@on_each_device
@pytest.mark.parametrize("implementation", [reference.dynamic_quantize, op], ids=["reference", "op"])
@pytest.mark.parametrize(
    ("x", "kind", "codes", "scale", "zero_point", "row_sum"),
    [
        # 254 / 127 = 2; 101 / 2 and -3 / 2 are ties: 50, -2.
        ([-254.0, 101.0, -3.0], {}, [-127, 50, -2], 2.0, 0, -79),
        # 510 / 255 = 2; z = -128 + 10 / 2; 101 / 2 goes to 50 before z is added.
        ([-10.0, 500.0, 101.0, 0.0], {"symmetric": False}, [-128, 127, -73, -123], 2.0, -123, -197),
        ([-10.0, 500.0, 101.0, 0.0], {"symmetric": False, "dtype": torch.uint8}, [0, 255, 55, 5], 2.0, 5, 315),
        # z = -128 + 2.5 goes to the even -126; 505 / 2 = 252.5 goes to 252, which then just fits.
        ([-5.0, 505.0], {"symmetric": False}, [-128, 126], 2.0, -126, -2),
        # z = -128 + 3.5 goes to -124; 503 / 2 = 251.5 to 252, one code too far: saturated.
        ([-7.0, 503.0], {"symmetric": False}, [-128, 127], 2.0, -124, -1),
        ([0.0, 510.0, 3.0], {"dtype": torch.uint8, "q_min": 0}, [0, 255, 2], 2.0, 0, 257),
        # The range is that of the finite elements; infinities saturate in it, NaN becomes the zero point.
        ([254.0, inf, -inf, nan], {}, [127, 127, -127, 0], 2.0, 0, 127),
        ([-10.0, 500.0, inf, -inf, nan], {"symmetric": False}, [-128, 127, 127, -128, -123], 2.0, -123, -125),
        ([nan, inf, -inf], {}, [0, 127, -127], 1.0, 0, 0),
        ([0.0, -0.0], {"symmetric": False, "dtype": torch.uint8}, [0, 0], 1.0, 0, 0),
        # The emitted scale is the one in use: 14 / 4 = 3.5 goes to 4.
        ([14.0, -254.0], {"eps": 4.0}, [4, -64], 4.0, 0, -60),
        ([], {}, [], 1.0, 0, 0),
    ],
)
def test_hand_numbers(device, implementation, x, kind, codes, scale, zero_point, row_sum):
    x = torch.tensor(x, device=device)
    actual = implementation(x, (1,), **kind, return_row_sum=True)
    expected = (
        torch.tensor(codes, dtype=kind.get("dtype", torch.int8)),
        torch.tensor([scale]),
        torch.tensor([zero_point], dtype=torch.int32),
        torch.tensor([row_sum], dtype=torch.int32),
    )
    for got, wanted in zip(actual, expected, strict=True):
        assert_bits(got, wanted)


# The op is the reference, bit for bit.


@on_each_device
@for_each_dtype
@for_each_kind
@pytest.mark.parametrize(("shape", "scale_shape"), [case for case in GRANULARITIES if len(case[0]) == len(case[1])])
def test_granularities(device, dtype, kind, shape, scale_shape):
    check((normal(*shape) * 3 + 1).to(device, dtype), scale_shape, **kind)


@on_each_device
@for_each_dtype
@for_each_kind
def test_edge_values(device, dtype, kind):
    """In one block, in rows and columns, in pairs, each by itself; then blocks of one sign, of one value, of NaN."""
    x = EDGE_VALUES.repeat(6).reshape(-1, 6).to(device, dtype)
    for scale_shape in ((1, 1), (len(x), 1), (1, 6), (len(x), 3), x.shape):
        check(x, scale_shape, **kind)
    one_sided = torch.stack([x.abs(), -x.abs(), *(torch.full_like(x, value) for value in (0.0, 3.7, nan))])
    check(one_sided, (5, 1, 1), **kind)
    check(one_sided.permute(1, 2, 0).contiguous(), (1, 1, 5), **kind)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("symmetric", [True, False])
def test_layouts(device, dtype, symmetric):
    for shape, scale_shape in (((67,), (1,)), ((7, 13), (7, 1)), ((6, 70), (6, 2)), ((2, 3, 4, 5), (1, 3, 1, 1))):
        for _, x in layouts(normal(*shape, dtype=dtype).to(device)):
            check(x, scale_shape, symmetric=symmetric)
    for shape in ((5, 1), (1, 40), (1, 1)):  # repeated by strides of 0
        x = normal(*shape, dtype=dtype).to(device).expand(5, 40)
        for scale_shape in ((1, 1), (5, 1), (1, 40), (5, 8)):
            check(x, scale_shape, symmetric=symmetric)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("size", EDGE_SIZES)
def test_sizes(device, dtype, code_dtype, size):
    check(normal(size, dtype=dtype).to(device), (1,), symmetric=False, dtype=code_dtype)
    for shape in ((5, size), (size, 5)):
        for scale_shape in ((1, 1), (shape[0], 1), (1, shape[1]), shape):
            check(normal(*shape, dtype=dtype).to(device), scale_shape, symmetric=False, dtype=code_dtype)


@on_each_device
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [
        ((200_003,), (1,)),
        ((301, 997), (1, 1)),
        ((301, 997), (301, 1)),
        ((301, 997), (1, 997)),
        ((301, 1000), (301, 125)),
        ((3, 5, 131, 101), (1, 5, 1, 1)),
        ((7, 11, 2003), (7, 11, 1)),
    ],
)
def test_more_than_one_thread(device, symmetric, shape, scale_shape):
    """Odd sizes: threads begin inside rows and groups."""
    x = normal(*shape).to(device)
    check(x, scale_shape, symmetric=symmetric)
    check(x.transpose(0, -1).contiguous().transpose(0, -1), scale_shape, symmetric=symmetric)


# What a user relies on.


@on_each_device
@for_each_dtype
@for_each_kind
def test_codes_are_quantized_with_the_emitted_params(device, dtype, kind):
    """The law's (5), through the functions: choose_qparams' params, and quantize's codes under them."""
    x = (normal(12, 40) * 3 + 1).to(device, dtype)
    for granularity in (PerTensor(), PerChannel(0), PerChannel(1), PerToken(), PerGroup(8)):
        q, params = quaver.dynamic_quantize(x, granularity, **kind)
        chosen = quaver.choose_qparams(x, granularity, **kind)
        assert_bits(params.scale, chosen.scale)
        assert_bits(params.zero_point, chosen.zero_point)
        assert (params.q_min, params.q_max, params.symmetric) == (chosen.q_min, chosen.q_max, chosen.symmetric)
        assert_bits(q, quaver.quantize(x, params, dtype=kind.get("dtype", torch.int8)))


@on_each_device
def test_row_sums(device):
    """Sums of the codes over the last dimension, whatever shares a scale; by default rows do, and no sum comes."""
    x = normal(3, 7, 250).to(device)
    for granularity in (PerTensor(), PerChannel(1), PerToken(), PerGroup(25)):
        for code_dtype in CODE_DTYPES:
            q, _, row_sum = quaver.dynamic_quantize(
                x, granularity, symmetric=False, dtype=code_dtype, return_row_sum=True
            )
            assert_bits(row_sum, q.to(torch.int32).sum(-1, keepdim=True, dtype=torch.int32))
    assert_bits(quaver.dynamic_quantize(x)[0], op(x, (3, 7, 1))[0])
    assert op(x, (3, 7, 1))[3].shape == (0,)
    # The sum is odd and beyond 2^24: no float32 holds it.
    x = torch.ones(100_002, device=device)
    x[0] = 0.0
    _, _, row_sum = quaver.dynamic_quantize(x, symmetric=False, dtype=torch.uint8, return_row_sum=True)
    assert_bits(row_sum, torch.tensor([255 * 100_001], dtype=torch.int32))


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("granularity", [PerTensor(), PerToken(), PerGroup(8)], ids=str)
def test_symmetric_codes_are_closed_under_negation(device, dtype, granularity):
    x = normal(20, 64, dtype=dtype).to(device)
    q, params = quaver.dynamic_quantize(x, granularity)
    negative_q, negative_params = quaver.dynamic_quantize(-x, granularity)
    assert_bits(negative_q, -q)
    assert_bits(negative_params.scale, params.scale)
    assert q.min() >= -127


@on_each_device
@for_each_dtype
@for_each_kind
def test_zero_stays_exactly_zero(device, dtype, kind):
    x = (normal(200, 8) * torch.exp2(torch.linspace(-40, 15, 200))[:, None] + 1).to(device, dtype)
    x[:, 3] = 0.0
    x[:, 4] = -0.0
    q, params = quaver.dynamic_quantize(x, **kind)
    for out_dtype in FLOAT_DTYPES:
        assert_bits(quaver.dequantize(q, params, dtype=out_dtype)[:, 3:5], torch.zeros(200, 2, dtype=out_dtype))


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("kind", ["symmetric", "full range", "asymmetric", "asymmetric uint8", "video range"])
def test_round_trip_stays_within_half_a_step(device, dtype, kind):
    """|dequantize(q) - x| <= scale * (1/2 + 2^-12) for every x, the ends of the range too.

    In steps of one scale, with u = 2^-24 and |x / scale| <= 255 (1 + 3u): the quotient errs by less than 2^-15, its
    rounding by 1/2, the product by less than 2^-15. Where the code saturates, no rounding of the quotient comes in but
    that of the zero point, 1/2 too, with its quotient's and its difference's errors, less than 2^-15 each, and the
    scale's own, at most 255 * 3u < 2^-14. Together these are less than 1/2 + 2^-12.
    """
    sizes = torch.exp2(torch.linspace(-13, 13, 300))[:, None]  # normal numbers of all three types
    shifts = 4 * torch.rand(300, 1, generator=generator()) - 2
    x = ((normal(300, 100) + shifts) * sizes).to(device, dtype)
    q, params = quaver.dynamic_quantize(x, **KINDS[kind])
    if kind == "asymmetric":
        assert (q == params.q_max).any(), "no range ends here, so that nothing is known about saturation"
    error = (quaver.dequantize(q, params).double() - x.double()).abs()
    assert (error <= params.scale.double() * (0.5 + 2**-12)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dtype": torch.uint8}, ValueError, r"symmetric uint8 codes need q_min=0.*asymmetric \(symmetric=False\)"),
        ({"dtype": torch.float16}, ValueError, "dtype must be torch.int8 or torch.uint8, got torch.float16"),
        ({"q_min": 1}, ValueError, "symmetric codes need q_min <= 0 < q_max, got q_min=1 and q_max=127"),
        ({"q_max": 128}, ValueError, "got q_min=-127 and q_max=128"),
        ({"eps": -1.0}, ValueError, "eps must be positive and finite, got -1.0"),
        ({"granularity": 0}, TypeError, r"granularity must be PerTensor\(\).*got 0"),
    ],
)
def test_arguments_that_do_not_fit(arguments, error, words):
    with pytest.raises(error, match=f"quaver::dynamic_quantize: .*{words}"):
        quaver.dynamic_quantize(torch.ones(4), **arguments)
