"""quantize: float tensor and given parameters to codes. ARITHMETIC.md (2)."""

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
    EDGE_VALUES,
    FLOAT_DTYPES,
    GRANULARITIES,
    INTEGER_VIEWS,
    MODES,
    assert_bits,
    layouts,
    normal,
    scales,
    zero_points,
)

op = torch.ops.quaver.quantize

on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
for_each_code_dtype = pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
for_each_mode = pytest.mark.parametrize("mode", MODES)


def check(x, scale, zero_point=None, **options):
    """The op's codes are the reference's, in the memory that torch.empty_like gives."""
    actual = op(x, scale, zero_point, **options)
    assert_bits(actual, reference.quantize(x, scale, zero_point, **options))
    assert actual.stride() == torch.empty_like(x, dtype=actual.dtype).stride()
    return actual


# Hand numbers.


@on_each_device
@pytest.mark.parametrize("implementation", [reference.quantize, op], ids=["reference", "op"])
@pytest.mark.parametrize(
    ("x", "scale", "zero_point", "options", "codes"),
    [
        # Ties go to the even code, whatever the sign.
        ([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], 1.0, None, {}, [0, 2, 2, 0, -2, -2]),
        ([0.25, 0.75, 1.25, -0.25, -0.75], 0.5, None, {}, [0, 2, 2, 0, -2]),
        # The float32 numbers beside a tie are no ties.
        ([0.49999997, 0.50000006, 1.4999999, 2.5000002], 1.0, None, {}, [0, 1, 1, 3]),
        # An odd zero point is added after the rounding: the even one of the quotients, not of the codes. In the affine
        # mode it is added before: 0.5 + 1, 1.5 + 1, 2.5 + 1, -0.5 + 1 are ties among codes.
        ([0.5, 1.5, 2.5, -0.5], 1.0, 1, {}, [1, 3, 3, 1]),
        ([0.5, 1.5, 2.5, -0.5], 1.0, 1, {"mode": "affine"}, [2, 2, 4, 0]),
        # 0.49999997 + 1 is no float32: the affine sum is rounded to 1.5, a tie.
        ([0.49999997], 1.0, 1, {}, [1]),
        ([0.49999997], 1.0, 1, {"mode": "affine"}, [2]),
        # 45.5 / 7 = 6.5, a tie. 45.5 * (1 / 7) would be 6.5000005.
        ([45.5, -45.5], 7.0, None, {}, [6, -6]),
        ([45.5, -45.5], 7.0, None, {"mode": "reciprocal"}, [7, -7]),
        # 91.5 / 61 = 1.5, a tie. 1 / 61 is rounded down: 91.5 * (1 / 61) is 1.4999999.
        ([91.5, -91.5], 61.0, None, {}, [2, -2]),
        ([91.5, -91.5], 61.0, None, {"mode": "reciprocal"}, [1, -1]),
        # 1 / 1e-39 is finite, 1 / 1e-45 is not: 0 times infinity is no number, and so is the zero point.
        ([0.0, 1e-39, -1e-39], 1e-39, 3, {"mode": "reciprocal"}, [3, 127, -128]),
        ([0.0, 1e-45, -1e-45], 1e-45, 3, {"mode": "reciprocal"}, [3, 127, -128]),
        # Beyond the codes: saturated after the sum, so that a far quotient can come back by the zero point.
        ([126.5, 127.5, 1e9, -128.5, -129.0, -1e9], 1.0, None, {}, [126, 127, 127, -128, -128, -128]),
        ([200.0, 254.5, 256.0, -1.0], 1.0, -128, {}, [72, 126, 127, -128]),
        ([-0.5, -1.0, 254.5, 255.5], 1.0, None, {"dtype": torch.uint8}, [0, 0, 254, 255]),
        ([-200.0, -255.0, -256.0, 0.5], 1.0, 255, {"dtype": torch.uint8}, [55, 0, 0, 255]),
        # Quotients that overflow saturate, quotients that vanish are 0.
        ([3e38, -3e38, 1e-45, -0.0], 1e-30, 3, {}, [127, -128, 3, 3]),
        ([3.4028235e38, -1.8e38, 1e-45], 3.4028235e38, 3, {}, [4, 2, 3]),
        # No numbers: infinities saturate, NaN is the zero point, which dequantizes to 0.
        ([inf, -inf, nan], 0.1, 5, {}, [127, -128, 5]),
        ([inf, -inf, nan], 0.1, 5, {"mode": "affine", "dtype": torch.uint8}, [255, 0, 5]),
        ([inf, -inf, nan], 0.1, 5, {"mode": "reciprocal"}, [127, -128, 5]),
        ([inf, -inf, nan], 0.1, 5, {"mode": "stochastic"}, [127, -128, 5]),
        ([inf, -inf, nan, 9.0, -9.0, 7.5], 1.0, 2, {"q_min": -7, "q_max": 8}, [8, -7, 2, 8, -7, 8]),
    ],
)
def test_hand_numbers(device, implementation, x, scale, zero_point, options, codes):
    x, scale = torch.tensor(x, device=device), torch.tensor(scale, device=device)
    if zero_point is not None:
        zero_point = torch.tensor(zero_point, dtype=torch.int32, device=device)
    actual = implementation(x, scale, zero_point, **options)
    assert_bits(actual, torch.tensor(codes, dtype=options.get("dtype", torch.int8)))


# The op is the reference, bit for bit.


@on_each_device
@for_each_dtype
@for_each_code_dtype
@for_each_mode
@pytest.mark.parametrize("with_zero_point", [False, True])
@pytest.mark.parametrize(("shape", "scale_shape"), GRANULARITIES)
def test_granularities(device, dtype, code_dtype, mode, with_zero_point, shape, scale_shape):
    scale = scales(*scale_shape).to(device)
    # Spread over the codes, their ends and somewhat beyond, whatever the block's scale.
    spread = reference.for_each_element(scale, shape) * 100
    x = (normal(*shape).to(device) * spread).to(dtype)
    zero_point = zero_points(*scale_shape, dtype=code_dtype).to(device) if with_zero_point else None
    check(x, scale, zero_point, dtype=code_dtype, mode=mode)


@on_each_device
@for_each_dtype
@for_each_code_dtype
@for_each_mode
def test_edge_values(device, dtype, code_dtype, mode):
    """Each value by each scale: one scale for a column, for a row, for each element."""
    limits = torch.iinfo(code_dtype)
    edge_scales = torch.tensor(EDGE_SCALES)
    for z in (limits.min, limits.min + 1, limits.max // 2, limits.max):
        x = EDGE_VALUES.to(device, dtype)[:, None].expand(-1, len(EDGE_SCALES)).contiguous()
        scale = edge_scales.to(device)[None]
        zero_point = torch.full_like(scale, z, dtype=torch.int32)
        for one_scale in (scale, scale.expand(x.shape).contiguous()):
            offset = zero_point.expand(one_scale.shape).contiguous()
            check(x, one_scale, offset, dtype=code_dtype, mode=mode)
            check(x.t().contiguous(), one_scale.t().contiguous(), offset.t().contiguous(), dtype=code_dtype, mode=mode)


@on_each_device
@for_each_dtype
@for_each_code_dtype
@for_each_mode
def test_around_ties(device, dtype, code_dtype, mode):
    """(k + 1/2) * scale and the numbers beside it: where one unit in the last place decides the code."""
    scale = scales(64, 1)
    ties = ((torch.arange(-300, 300) + 0.5) * scale).to(dtype)
    bits = ties.view(INTEGER_VIEWS[dtype.itemsize])
    x = torch.cat([(bits + step).view(dtype) for step in (-1, 0, 1)], dim=1).to(device)
    zero_point = zero_points(64, 1, dtype=code_dtype).to(device)
    check(x, scale.to(device), zero_point, dtype=code_dtype, mode=mode)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@for_each_mode
def test_every_number_of_a_small_type(device, dtype, mode):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
    for scale in (*EDGE_SCALES, 2.0**-24, 1e-3, 300.0):
        check(x, torch.tensor(scale, device=device), torch.tensor(3, dtype=torch.int32, device=device), mode=mode)


@on_each_device
@for_each_mode
@pytest.mark.parametrize(
    ("code_dtype", "q_min", "q_max"),
    [
        (torch.int8, -127, 127),
        (torch.int8, -8, 7),
        (torch.int8, 0, None),
        (torch.int8, None, 0),
        (torch.int8, 126, 127),
        (torch.uint8, 0, 15),
        (torch.uint8, 16, 235),
        (torch.uint8, 254, None),
        (torch.uint8, None, 1),
    ],
)
def test_parts_of_the_codes(device, mode, code_dtype, q_min, q_max):
    x = torch.cat([EDGE_VALUES, torch.linspace(-300, 300, 1201)]).to(device)
    limits = torch.iinfo(code_dtype)
    low = limits.min if q_min is None else q_min
    high = limits.max if q_max is None else q_max
    for z in (low, (low + high) // 2, high):
        zero_point = torch.tensor(z, dtype=torch.int32, device=device)
        options = {"q_min": q_min, "q_max": q_max, "dtype": code_dtype, "mode": mode}
        q = check(x, torch.tensor(1.0, device=device), zero_point, **options)
        assert (q.min(), q.max()) == (low, high)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [((), ()), ((67,), (67,)), ((7, 13), (7, 1)), ((7, 13), (1, 13)), ((6, 70), (6, 2)), ((2, 3, 4, 5), (1, 3, 1, 1))],
)
@for_each_mode
def test_layouts(device, dtype, mode, shape, scale_shape):
    """Any strides of x, of the scale and of the zero point give the same codes, those that are drawn as well."""
    x, scale, zero_point = normal(*shape, dtype=dtype), scales(*scale_shape), zero_points(*scale_shape)
    x, scale, zero_point = x.to(device), scale.to(device) / 8, zero_point.to(device)
    options = {"mode": mode, "seed": 5}
    codes = check(x, scale, zero_point, **options)
    for _, view in layouts(x):
        assert_bits(check(view, scale, zero_point, **options), codes)
    for _, view in layouts(scale):
        assert_bits(check(x, view, zero_point, **options), codes)
    for _, view in layouts(zero_point):
        assert_bits(check(x, scale, view, **options), codes)


@on_each_device
@for_each_dtype
def test_repeated_by_strides_of_0(device, dtype):
    scale, zero_point = scales(5, 40).to(device), zero_points(5, 40).to(device)
    for shape in ((5, 1), (1, 40), (1, 1)):
        x = (normal(*shape) * 10).to(device, dtype).expand(5, 40)
        check(x, scale[:1, :1], zero_point[:1, :1])
        check(x, scale[:, :1], zero_point[:, :1])
        check(x, scale, zero_point)
        dense = x.contiguous()
        for one_scale, offset in ((scale, zero_point), (scale[:1], zero_point[:1]), (scale[:, :8], zero_point[:, :8])):
            check(dense, one_scale[:, :1].expand(one_scale.shape), offset)
            check(dense, one_scale, offset[:1, :1].expand(one_scale.shape))
            check(dense, one_scale[:, :1].expand(one_scale.shape), offset[:, :1].expand(one_scale.shape))


@on_each_device
@for_each_dtype
@for_each_code_dtype
@pytest.mark.parametrize("size", EDGE_SIZES)
def test_sizes(device, dtype, code_dtype, size):
    x = (normal(5, size) * 4).to(device, dtype)
    for scale_shape in ((), (1, 1), (5, 1), (1, size), (5, size)):
        scale = scales(*scale_shape).to(device)
        zero_point = zero_points(*scale_shape, dtype=code_dtype).to(device)
        check(x, scale, zero_point, dtype=code_dtype)
        check(x, scale, dtype=code_dtype)


@on_each_device
@for_each_mode
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
def test_more_than_one_thread(device, mode, shape, scale_shape):
    """Odd sizes: threads begin inside rows and groups."""
    x, scale, zero_point = (
        normal(*shape).to(device),
        scales(*scale_shape).to(device),
        zero_points(*scale_shape).to(device),
    )
    check(x, scale, zero_point, mode=mode)
    check(x.transpose(0, -1).contiguous().transpose(0, -1), scale, zero_point, mode=mode)


# What a user relies on.


@on_each_device
def test_one_element_is_per_tensor_at_any_rank(device):
    x = normal(3, 5).to(device)
    expected = op(x, torch.tensor(0.02, device=device), torch.tensor(7, dtype=torch.int32, device=device))
    for scale_shape, zero_point_shape in (((1,), ()), ((), (1,)), ((1, 1), (1, 1, 1)), ((1,) * 8, (1,))):
        scale = torch.full(scale_shape, 0.02, device=device)
        zero_point = torch.full(zero_point_shape, 7, dtype=torch.int32, device=device)
        assert_bits(check(x, scale, zero_point), expected)


@on_each_device
@for_each_code_dtype
def test_zero_point_0_is_none(device, code_dtype):
    for shape, scale_shape in GRANULARITIES:
        x, scale = normal(*shape).to(device), scales(*scale_shape).to(device)
        zeros = torch.zeros(scale_shape, dtype=torch.int32, device=device)
        assert_bits(op(x, scale, zeros, dtype=code_dtype), op(x, scale, dtype=code_dtype))


@on_each_device
def test_zero_points_of_other_integer_types(device):
    x, scale = normal(6, 8).to(device), scales(6, 1).to(device)
    zero_point = torch.tensor([0, 1, 5, 127, 64, 3], device=device)[:, None]  # codes of int8 and of uint8
    expected = op(x, scale, zero_point.to(torch.int32), dtype=torch.uint8)
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64):
        assert_bits(quaver.quantize(x, scale, zero_point.to(dtype), dtype=torch.uint8), expected)
    with pytest.raises(RuntimeError, match="quaver::quantize: zero_point must be int32, got float32"):
        quaver.quantize(x, scale, zero_point.float())


@on_each_device
@pytest.mark.parametrize("symmetric", [True, False])
def test_params_stand_for_scale_zero_point_and_range(device, symmetric):
    x = (normal(6, 8) + 1).to(device)
    params = quaver.choose_qparams(x / 2, PerChannel(0), symmetric=symmetric, q_min=-100, q_max=90)  # half saturates
    expected = op(x, params.scale, params.zero_point, q_min=-100, q_max=90)
    assert_bits(quaver.quantize(x, params), expected)
    assert expected.max() == 90


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"zero_point": torch.tensor(0)}, "zero_point must not be given beside QuantizationParams"),
        ({"q_max": 7}, "q_min and q_max must not be given beside QuantizationParams"),
    ],
)
def test_params_bring_their_own(arguments, words):
    params = QuantizationParams(torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), -128, 127)
    with pytest.raises(TypeError, match=f"quaver::quantize: {words}"):
        quaver.quantize(torch.ones(3), params, **arguments)


@on_each_device
@pytest.mark.parametrize(
    ("scale", "zero_point", "words"),
    [
        (0.0, 0, "scale must be positive and finite, got 0.0"),
        (-0.5, 0, "scale must be positive and finite, got -0.5"),
        (inf, 0, "scale must be positive and finite, got inf"),
        (nan, 0, "scale must be positive and finite, got nan"),
        (1.0, 101, "zero_point must lie within -100..100, got 101"),
        (1.0, -128, "zero_point must lie within -100..100, got -128"),
    ],
)
def test_check_reads_the_values(device, scale, zero_point, words):
    """One bad value among good ones. Without check the codes are unspecified, but they come."""
    x = normal(3, 4).to(device)
    scale = torch.tensor([1.0, scale, 1.0], device=device)[:, None]
    zero_point = torch.tensor([0, zero_point, 0], device=device)[:, None]
    with pytest.raises(ValueError, match=f"quaver::quantize: {words}"):
        quaver.quantize(x, scale, zero_point, q_min=-100, q_max=100, check=True)
    codes = quaver.quantize(x, scale, zero_point, q_min=-100, q_max=100)
    good = torch.tensor([0, 2], device=device)
    assert_bits(codes[good], reference.quantize(x[good], scale[good], q_min=-100, q_max=100))
    assert_bits(quaver.quantize(x[good], scale[good], zero_point[good], check=True), op(x[good], scale[good]))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"mode": "half up"}, ValueError, "mode must be 'onnx', 'affine', 'reciprocal' or 'stochastic', got 'half up'"),
        ({"dtype": torch.int16}, ValueError, "dtype must be torch.int8 or torch.uint8, got torch.int16"),
        ({"q_max": 128}, ValueError, "-128 <= q_min < q_max <= 127 for int8, got q_min=-128 and q_max=128"),
        ({"q_min": 5, "q_max": 5}, ValueError, "got q_min=5 and q_max=5"),
        ({"q_min": True}, TypeError, "q_min must be an int or None, got bool"),
        ({"scale": 0.5}, TypeError, "scale must be a tensor or QuantizationParams, got float"),
        ({"zero_point": 3}, TypeError, "zero_point must be a tensor, got int"),
    ],
)
def test_arguments_that_do_not_fit(arguments, error, words):
    with pytest.raises(error, match=f"quaver::quantize: .*{words}"):
        quaver.quantize(torch.ones(4), **{"scale": torch.tensor(1.0), **arguments})


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("mode", MODES[:3])
def test_codes_grow_with_x(device, dtype, mode):
    """Quantization never swaps two numbers: the codes of all sorted finite float16 values never fall."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    x = x[x.isfinite()].sort().values.to(device, dtype)
    for scale in scales(20, seed=3):
        q = op(x, scale.to(device), torch.tensor(-5, dtype=torch.int32, device=device), mode=mode)
        assert (q.to(torch.int32).diff() >= 0).all()
