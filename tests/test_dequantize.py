"""dequantize, the last stage: codes and their parameters to a float tensor. ARITHMETIC.md (3)."""

from math import inf, nan

import pytest
import torch

import quaver
from quaver import PerChannel, QuantizationParams, reference
from tests.cases import (
    CODE_DTYPES,
    DEVICES,
    EDGE_SCALES,
    EDGE_SIZES,
    FLOAT_DTYPES,
    GRANULARITIES,
    assert_bits,
    codes,
    layouts,
    normal,
    scales,
    zero_points,
)

op = torch.ops.quaver.dequantize

on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
for_each_code_dtype = pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)


def check(q, scale, zero_point=None, **options):
    """The op's numbers are the reference's, in the memory that torch.empty_like gives."""
    actual = op(q, scale, zero_point, **options)
    assert_bits(actual, reference.dequantize(q, scale, zero_point, **options))
    assert actual.stride() == torch.empty_like(q, dtype=actual.dtype).stride()
    return actual


# Hand numbers.


@on_each_device
@pytest.mark.parametrize("implementation", [reference.dequantize, op], ids=["reference", "op"])
@pytest.mark.parametrize(
    ("q", "code_dtype", "scale", "zero_point", "dtype", "x"),
    [
        ([-128, 0, 127], torch.int8, 0.5, None, torch.float32, [-64.0, 0.0, 63.5]),
        ([0, 128, 255], torch.uint8, 0.5, 128, torch.float32, [-64.0, 0.0, 63.5]),
        # The difference leaves the codes' own type: -255 and 255 steps.
        ([-128, 127], torch.int8, 1.0, 127, torch.float32, [-255.0, 0.0]),
        ([127, -128], torch.int8, 1.0, -128, torch.float32, [255.0, 0.0]),
        ([0, 255], torch.uint8, 1.0, 255, torch.float32, [-255.0, 0.0]),
        # float16 counts by 1 up to 2048 and by 2 beyond: 2049 and 2051 are ties, between even 2048 and even 2052.
        ([1], torch.int8, 2049.0, None, torch.float16, [2048.0]),
        ([-1], torch.int8, 2051.0, None, torch.float16, [-2052.0]),
        # bfloat16 counts by 2 beyond 256: the same with 257 and 259.
        ([1, -1], torch.int8, 257.0, None, torch.bfloat16, [256.0, -256.0]),
        ([1, -1], torch.int8, 259.0, None, torch.bfloat16, [260.0, -260.0]),
        # 65504 is float16's last number: from half a step beyond it, 65520, on there is infinity.
        ([1, -1], torch.int8, 65519.996, None, torch.float16, [65504.0, -65504.0]),
        ([1, -1], torch.int8, 65520.0, None, torch.float16, [inf, -inf]),
        # 2^-24 is its first: half of it is a tie with 0, which keeps its sign.
        ([1, -1, 3], torch.int8, 2.0**-25, None, torch.float16, [0.0, -0.0, 2.0**-23]),
        # Denormals of bfloat16 and float32 are numbers like others, not flushed to 0.
        ([1, -3], torch.int8, 2.0**-133, None, torch.bfloat16, [2.0**-133, -3 * 2.0**-133]),
        ([1, -3], torch.int8, 2.0**-149, None, torch.float32, [2.0**-149, -3 * 2.0**-149]),
        ([2, -2, 1], torch.int8, 2.0**127, None, torch.float32, [inf, -inf, 2.0**127]),
        # 0 is +0, also below an equal zero point.
        ([5, 5], torch.int8, 0.1, 5, torch.bfloat16, [0.0, 0.0]),
    ],
)
def test_hand_numbers(device, implementation, q, code_dtype, scale, zero_point, dtype, x):
    q, scale = torch.tensor(q, dtype=code_dtype, device=device), torch.tensor(scale, device=device)
    if zero_point is not None:
        zero_point = torch.tensor(zero_point, dtype=torch.int32, device=device)
    assert_bits(implementation(q, scale, zero_point, dtype=dtype), torch.tensor(x, dtype=dtype))


# The op is the reference, bit for bit.


@on_each_device
@for_each_dtype
@for_each_code_dtype
@pytest.mark.parametrize("with_zero_point", [False, True])
@pytest.mark.parametrize(("shape", "scale_shape"), GRANULARITIES)
def test_granularities(device, dtype, code_dtype, with_zero_point, shape, scale_shape):
    q, scale = codes(*shape, dtype=code_dtype).to(device), scales(*scale_shape).to(device)
    zero_point = zero_points(*scale_shape, dtype=code_dtype).to(device) if with_zero_point else None
    check(q, scale, zero_point, dtype=dtype)


@on_each_device
@for_each_dtype
@for_each_code_dtype
def test_every_code(device, dtype, code_dtype):
    """Under each zero point, by scales of all magnitudes: one for all, and one for each column."""
    limits = torch.iinfo(code_dtype)
    q = torch.arange(limits.min, limits.max + 1).to(device, code_dtype).expand(256, 256)
    zero_point = q.t().to(torch.int32)[:, :1].contiguous()
    for scale in torch.tensor(EDGE_SCALES).to(device):
        check(q, scale.expand(256, 1).contiguous(), zero_point, dtype=dtype)
    several = (scales(1, 256) * torch.exp2(torch.linspace(-130, 110, 256))).to(device)
    for z in (limits.min, 3, limits.max):
        check(q, several, torch.full((1, 256), z, dtype=torch.int32, device=device), dtype=dtype)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_tie_of_a_small_type(device, dtype):
    """Codes 1 and -1 by the scales half way between neighbours, and by the float32 numbers beside them: from the first
    denormal to the step to infinity."""
    infinity = int(torch.tensor(inf, dtype=dtype).view(torch.int16))
    finite = torch.arange(infinity, dtype=torch.int16).view(dtype).to(torch.float64)
    beyond = 2 * finite[-1:] - finite[-2:-1]
    ties = ((finite + torch.cat([finite[1:], beyond])) / 2).to(torch.float32)
    scale = torch.stack([(ties.view(torch.int32) + step).view(torch.float32) for step in (-1, 0, 1)]).to(device)
    for sign in (1, -1):
        x = check(torch.full(scale.shape, sign, dtype=torch.int8, device=device), scale, dtype=dtype)
        # By hand: below a tie the lower neighbour, above it the upper one, on it the one whose last bit is 0.
        lower = torch.arange(infinity)
        expected = torch.stack([lower, lower + lower % 2, lower + 1]).to(torch.int16).view(dtype)
        assert_bits(x, sign * expected)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [((), ()), ((67,), (67,)), ((7, 13), (7, 1)), ((7, 13), (1, 13)), ((6, 70), (6, 2)), ((2, 3, 4, 5), (1, 3, 1, 1))],
)
def test_layouts(device, dtype, shape, scale_shape):
    """Any strides of q, of the scale and of the zero point give the same numbers."""
    q, scale = codes(*shape).to(device), scales(*scale_shape).to(device)
    zero_point = zero_points(*scale_shape).to(device)
    x = check(q, scale, zero_point, dtype=dtype)
    for _, view in layouts(q):
        assert_bits(check(view, scale, zero_point, dtype=dtype), x)
    for _, view in layouts(scale):
        assert_bits(check(q, view, zero_point, dtype=dtype), x)
    for _, view in layouts(zero_point):
        assert_bits(check(q, scale, view, dtype=dtype), x)


@on_each_device
@for_each_dtype
def test_repeated_by_strides_of_0(device, dtype):
    scale, zero_point = scales(5, 40).to(device), zero_points(5, 40).to(device)
    for shape in ((5, 1), (1, 40), (1, 1)):
        q = codes(*shape).to(device).expand(5, 40)
        check(q, scale[:1, :1], zero_point[:1, :1], dtype=dtype)
        check(q, scale[:, :1], zero_point[:, :1], dtype=dtype)
        check(q, scale, zero_point, dtype=dtype)
    q = codes(5, 40).to(device)
    for rows, columns in ((5, 40), (1, 40), (5, 8)):
        one_scale, offset = scale[:rows, :columns], zero_point[:rows, :columns]
        repeated_scale, repeated_offset = (t[:, :1].expand(rows, columns) for t in (one_scale, offset))
        check(q, repeated_scale, offset, dtype=dtype)
        check(q, one_scale, repeated_offset, dtype=dtype)
        check(q, repeated_scale, repeated_offset, dtype=dtype)


@on_each_device
@for_each_dtype
@for_each_code_dtype
@pytest.mark.parametrize("size", EDGE_SIZES)
def test_sizes(device, dtype, code_dtype, size):
    q = codes(5, size, dtype=code_dtype).to(device)
    for scale_shape in ((), (1, 1), (5, 1), (1, size), (5, size)):
        scale = scales(*scale_shape).to(device)
        check(q, scale, zero_points(*scale_shape, dtype=code_dtype).to(device), dtype=dtype)
        check(q, scale, dtype=dtype)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [
        ((200_003,), ()),
        ((200_003,), (200_003,)),
        ((301, 997), (1, 1)),
        ((301, 997), (301, 1)),
        ((301, 997), (1, 997)),
        ((301, 1000), (301, 125)),
        ((3, 5, 131, 101), (1, 5, 1, 1)),
    ],
)
def test_more_than_one_thread(device, dtype, shape, scale_shape):
    """Odd sizes: threads begin inside rows and groups."""
    q, scale, zero_point = (
        codes(*shape).to(device),
        scales(*scale_shape).to(device),
        zero_points(*scale_shape).to(device),
    )
    check(q, scale, zero_point, dtype=dtype)
    check(q.transpose(0, -1).contiguous().transpose(0, -1), scale, zero_point, dtype=dtype)


# What a user relies on.


@on_each_device
def test_one_element_is_per_tensor_at_any_rank(device):
    q = codes(3, 5).to(device)
    expected = op(q, torch.tensor(0.02, device=device), torch.tensor(7, dtype=torch.int32, device=device))
    for scale_shape, zero_point_shape in (((1,), ()), ((), (1,)), ((1, 1), (1, 1, 1)), ((1,) * 8, (1,))):
        scale = torch.full(scale_shape, 0.02, device=device)
        zero_point = torch.full(zero_point_shape, 7, dtype=torch.int32, device=device)
        assert_bits(check(q, scale, zero_point), expected)


@on_each_device
@for_each_dtype
def test_zero_point_0_is_none(device, dtype):
    for shape, scale_shape in GRANULARITIES:
        q, scale = codes(*shape).to(device), scales(*scale_shape).to(device)
        zeros = torch.zeros(scale_shape, dtype=torch.int32, device=device)
        assert_bits(op(q, scale, zeros, dtype=dtype), op(q, scale, dtype=dtype))


@on_each_device
def test_zero_points_of_other_integer_types(device):
    q, scale = codes(6, 8, dtype=torch.uint8).to(device), scales(6, 1).to(device)
    zero_point = torch.tensor([0, 1, 5, 127, 64, 3], device=device)[:, None]  # codes of int8 and of uint8
    expected = op(q, scale, zero_point.to(torch.int32))
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64):
        assert_bits(quaver.dequantize(q, scale, zero_point.to(dtype)), expected)
    with pytest.raises(RuntimeError, match="quaver::dequantize: zero_point must be int32, got float32"):
        quaver.dequantize(q, scale, zero_point.float())


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("symmetric", [True, False])
def test_params_stand_for_scale_and_zero_point(device, dtype, symmetric):
    q, params = quaver.dynamic_quantize((normal(6, 8) + 1).to(device), PerChannel(0), symmetric=symmetric)
    assert_bits(quaver.dequantize(q, params, dtype=dtype), op(q, params.scale, params.zero_point, dtype=dtype))
    with pytest.raises(TypeError, match="quaver::dequantize: zero_point must not be given beside QuantizationParams"):
        quaver.dequantize(q, params, params.zero_point)


@on_each_device
@pytest.mark.parametrize(
    ("scale", "zero_point", "words"),
    [
        (0.0, 0, "scale must be positive and finite, got 0.0"),
        (-0.5, 0, "scale must be positive and finite, got -0.5"),
        (inf, 0, "scale must be positive and finite, got inf"),
        (nan, 0, "scale must be positive and finite, got nan"),
        (1.0, 128, "zero_point must lie within -128..127, got 128"),
        (1.0, -(2**31), "zero_point must lie within -128..127, got -2147483648"),
    ],
)
def test_check_reads_the_values(device, scale, zero_point, words):
    """One bad value among good ones. Without check the numbers are unspecified, but they come."""
    q = codes(3, 4).to(device)
    scale = torch.tensor([1.0, scale, 1.0], device=device)[:, None]
    zero_point = torch.tensor([0, zero_point, 0], device=device, dtype=torch.int32)[:, None]
    with pytest.raises(ValueError, match=f"quaver::dequantize: {words}"):
        quaver.dequantize(q, scale, zero_point, check=True)
    x = quaver.dequantize(q, scale, zero_point)
    good = torch.tensor([0, 2], device=device)
    assert_bits(x[good], q[good].float())
    assert_bits(quaver.dequantize(q[good], scale[good], zero_point[good], check=True), x[good])


def test_check_knows_the_codes_of_uint8():
    q = codes(3, dtype=torch.uint8)
    one, zero_point = torch.tensor(1.0), torch.tensor(255)
    assert_bits(quaver.dequantize(q, one, zero_point, check=True), q.float() - 255)
    with pytest.raises(ValueError, match=r"zero_point must lie within 0\.\.255, got -1"):
        quaver.dequantize(q, one, torch.tensor(-1), check=True)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dtype": torch.float64}, ValueError, "dtype must be torch.float32, torch.float16 or torch.bfloat16"),
        ({"dtype": torch.int8}, ValueError, "got torch.int8"),
        ({"scale": 0.5}, TypeError, "scale must be a tensor or QuantizationParams, got float"),
        ({"zero_point": 3}, TypeError, "zero_point must be a tensor, got int"),
    ],
)
def test_arguments_that_do_not_fit(arguments, error, words):
    with pytest.raises(error, match=f"quaver::dequantize: .*{words}"):
        quaver.dequantize(codes(4), **{"scale": torch.tensor(1.0), **arguments})


@on_each_device
@for_each_dtype
@for_each_code_dtype
def test_round_trip_stays_within_half_a_step(device, dtype, code_dtype):
    """|dequantize(quantize(x)) - x| <= scale * (1/2 + 2^-15) where the code does not saturate.

    In steps of the scale: |x / scale| < 256, so that the quotient errs by at most 2^-17 and the float32 product, of at
    most 255 steps, by less than 2^-16; the rounding between them errs by at most 1/2.
    """
    limits = torch.iinfo(code_dtype)
    scale, zero_point = scales(100, 1).to(device), zero_points(100, 1, dtype=code_dtype).to(device)
    x = (normal(100, 600).to(device) * 80 * scale).to(dtype)
    q = quaver.quantize(x, scale, zero_point, dtype=code_dtype)
    inside = (q > limits.min) & (q < limits.max)
    assert 0.3 < inside.double().mean() < 1
    error = (quaver.dequantize(q, scale, zero_point).double() - x.double()).abs()
    assert (error <= scale.double() * (0.5 + 2**-15))[inside].all()


@on_each_device
@pytest.mark.parametrize(
    ("dtype", "code_dtype", "symmetric"),
    [
        (torch.float32, torch.int8, False),
        (torch.float32, torch.uint8, False),
        (torch.float16, torch.int8, False),
        (torch.float16, torch.uint8, False),
        (torch.bfloat16, torch.int8, True),
    ],
)
def test_codes_survive_the_way_through_floats(device, dtype, code_dtype, symmetric):
    """quantize(dequantize(q)) is q: n steps in a type of p bits err by at most n * 2^-p / (1 + 2^-p), which is below
    1/2 for n <= 255 and p = 11, and still 0.4981 for n <= 128 and p = 8; float32's own roundings add less than 2^-15.
    """
    limits = torch.iinfo(code_dtype)
    q = torch.arange(limits.min, limits.max + 1).to(device, code_dtype).expand(200, 256)
    scale, zero_point = scales(200, 1).to(device), zero_points(200, 1, dtype=code_dtype).to(device)
    params = QuantizationParams(scale, zero_point, limits.min, limits.max, symmetric)
    assert_bits(quaver.quantize(quaver.dequantize(q, params, dtype=dtype), params, dtype=code_dtype), q)
