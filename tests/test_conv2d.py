"""int8_conv2d: the exact sums of what a kernel lies over, then the matmuls' epilogue. ARITHMETIC.md (13), (7), (8)."""

import contextlib
from fractions import Fraction
from itertools import product

import pytest
import torch
from torch._prims_common import suggest_memory_format

import quaver
from quaver import reference
from tests.cases import (
    CODE_DTYPES,
    DEVICES,
    FLOAT_DTYPES,
    assert_bits,
    codes,
    layouts,
    normal,
    scales,
    zero_points,
)

ops = torch.ops.quaver
FORMATS = (torch.contiguous_format, torch.channels_last)

# (N, C, H, W), O, groups, (kH, kW), stride, padding, dilation
SHAPES = (
    ((1, 1, 1, 1), 1, 1, (1, 1), 1, 0, 1),
    ((2, 3, 7, 9), 5, 1, (3, 3), 1, 1, 1),
    ((2, 3, 23, 21), 40, 1, (7, 7), 2, 3, 1),
    ((1, 64, 9, 8), 33, 1, (1, 1), 1, 0, 1),
    ((3, 65, 5, 7), 34, 1, (1, 1), 1, 0, 1),
    ((2, 16, 8, 8), 8, 1, (1, 1), 2, 0, 1),
    ((2, 16, 8, 8), 8, 1, (1, 1), 1, 1, 1),
    ((3, 64, 1, 1), 70, 1, (1, 1), 1, 0, 1),
    ((1, 5, 13, 6), 7, 1, (5, 2), (2, 1), (0, 3), (1, 2)),
    ((2, 32, 14, 14), 64, 1, (3, 3), 1, 1, 1),
    ((2, 17, 12, 11), 31, 1, (3, 2), (3, 2), (2, 1), (2, 3)),
    ((1, 4, 2, 3), 6, 1, (5, 5), 1, 2, 1),  # x is smaller than the kernel
    ((1, 4, 1, 1), 6, 1, (3, 3), 1, 1, 1),
    ((2, 3, 4, 5), 4, 1, (3, 3), 1, (3, 4), 1),  # some pixels see nothing but padding
    ((1, 12, 6, 7), 18, 3, (3, 3), 1, 1, 1),
    ((2, 8, 6, 5), 64, 2, (1, 1), 1, 0, 1),
    ((2, 128, 5, 5), 128, 2, (1, 3), 1, (0, 1), 1),
    ((2, 9, 8, 7), 9, 9, (3, 3), 1, 1, 1),
    ((1, 32, 9, 40), 32, 32, (3, 3), (2, 1), 1, 1),
    ((1, 70, 5, 33), 70, 70, (5, 2), 1, (2, 0), (1, 3)),
    ((2, 5, 6, 7), 15, 5, (3, 3), 2, 2, 2),
    ((1, 3, 4, 4), 96, 3, (2, 2), 1, 0, 1),
    ((1, 1, 9, 9), 3, 1, (3, 3), 1, 1, 1),
    ((0, 3, 7, 9), 5, 1, (3, 3), 1, 1, 1),
    ((2, 3, 7, 9), 0, 1, (3, 3), 1, 1, 1),
    ((2, 0, 7, 9), 4, 1, (3, 3), 1, 1, 1),
    ((2, 3, 0, 5), 4, 1, (2, 2), 1, 1, 1),
    ((2, 4, 0, 5), 4, 4, (1, 1), 1, 1, 1),
)
COLUMNS = ("shape", "out", "groups", "kernel", "stride", "padding", "dilation")


def case(shape, out, groups, kernel, stride, padding, dilation, *, dtype=torch.int8, device="cpu"):
    """(x, weight, x_scale, weight_scale), and where the kernel goes."""
    x, weight = codes(*shape, dtype=dtype), codes(out, shape[1] // groups, *kernel, seed=1)
    where = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return tuple(tensor.to(device) for tensor in (x, weight, scales(1, seed=4), scales(out, 1, 1, 1))), where


def assert_as_defined(*args, **options):
    actual = quaver.int8_conv2d(*args, **options)
    assert_bits(actual, reference.int8_conv2d(*args, **options))
    return actual


# Numbers by hand


X = torch.tensor([[[[1, 2, 3], [4, 5, 6]], [[-1, 0, 1], [2, -2, 0]]]], dtype=torch.int8)  # [1, 2, 2, 3]
WEIGHT = torch.tensor([[[[1, 2]], [[3, -1]]], [[[0, -1]], [[1, 1]]]], dtype=torch.int8)  # [2, 2, 1, 2]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_by_hand(memory_format, device):
    """acc[0, 0, 0, 0] = 1 * 1 + 2 * 2 + 3 * -1 - 1 * 0 = 2, and so on."""
    acc = [[[2.0, 7.0], [22.0, 11.0]], [[-3.0, -2.0], [-5.0, -8.0]]]
    expected = torch.tensor([acc]) * torch.tensor([0.25, 0.5]).view(2, 1, 1) + torch.tensor([1.0, -2.0]).view(2, 1, 1)
    x = X.contiguous(memory_format=memory_format)
    args = (x, WEIGHT, torch.tensor(0.5), torch.tensor([0.5, 1.0]).view(2, 1, 1, 1))
    options = {"bias": torch.tensor([1.0, -2.0])}
    assert_bits(reference.int8_conv2d(*args, **options), expected)
    args, options = (tensor.to(device) for tensor in args), {"bias": options["bias"].to(device)}
    assert_bits(quaver.int8_conv2d(*args, **options), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_padding_by_hand(device):
    """With the zero point, so that it adds nothing: of codes 10 one tap of two is left at each end."""
    x = torch.full((1, 1, 1, 2), 10, dtype=torch.uint8)
    weight = torch.tensor([[[[3, 5]]]], dtype=torch.int8)
    one = torch.tensor(1.0)
    options = {"x_zero_point": torch.tensor([7], dtype=torch.int32), "padding": (0, 1)}
    expected = torch.tensor([[[[15.0, 24.0, 9.0]]]])
    assert_bits(reference.int8_conv2d(x, weight, one, one, **options), expected)
    options["x_zero_point"] = options["x_zero_point"].to(device)
    assert_bits(quaver.int8_conv2d(*(tensor.to(device) for tensor in (x, weight, one, one)), **options), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_codes_by_hand(device):
    """Of the sums by hand 2, 7, 22, 11, halved and rounded to even: 1, 4 (3.5), 11, 6 (5.5), less 1, up to 9."""
    one = torch.tensor(1.0)
    args = (X, WEIGHT[:1], one, one, torch.tensor(2.0))
    options = {"out_zero_point": torch.tensor(-1, dtype=torch.int32)}
    expected = torch.tensor([[[[0, 3], [9, 5]]]], dtype=torch.int8)
    rest = {"dtype": torch.int8, "q_max": 9}
    assert_bits(reference.int8_conv2d(*args, **options, **rest), expected)
    options = {name: value.to(device) for name, value in options.items()}
    assert_bits(quaver.int8_conv2d(*(tensor.to(device) for tensor in args), **options, **rest), expected)


# The reference itself


@pytest.mark.parametrize("dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize(COLUMNS, [row for row in SHAPES if min(*row[0], row[1]) > 0])
def test_the_reference_is_torchs_convolution_of_integers(dtype, shape, out, groups, kernel, stride, padding, dilation):
    (x, weight, *_), where = case(shape, out, groups, kernel, stride, padding, dilation, dtype=dtype)
    one = torch.tensor(1.0)
    for zero_point in (None, torch.tensor([3], dtype=torch.int32), zero_points(1, dtype=dtype)):
        centred = x.to(torch.int64) - (0 if zero_point is None else zero_point.to(torch.int64))
        acc = torch.nn.functional.conv2d(centred, weight.to(torch.int64), **where)
        actual = reference.int8_conv2d(x, weight, one, one, x_zero_point=zero_point, **where)
        assert_bits(actual, acc.to(torch.float32))


def test_the_reference_by_fractions():
    """Every sum, tap by tap, and its result, which these scales leave exact until the division."""
    (n, c, h, w), out, groups, (kh, kw), stride, padding, dilation = (2, 4, 5, 6), 6, 2, (3, 2), (2, 1), (1, 2), (1, 3)
    x, weight, bias = codes(n, c, h, w), codes(out, c // groups, kh, kw, seed=1), torch.arange(-3.0, out - 3) / 4
    z, x_scale, out_scale = 5, Fraction(1, 8), Fraction(5, 2)
    weight_scale = [Fraction(1, 2 ** (o % 3)) for o in range(out)]
    actual = reference.int8_conv2d(
        *(x, weight, torch.tensor(float(x_scale)), torch.tensor(list(map(float, weight_scale))).view(out, 1, 1, 1)),
        torch.tensor(float(out_scale)),
        x_zero_point=torch.tensor([z], dtype=torch.int32),
        out_zero_point=torch.tensor([-2], dtype=torch.int32),
        bias=bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        relu=True,
        dtype=torch.int8,
    )
    height = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    width = (w + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    assert actual.shape == (n, out, height, width)
    for image, o, y, x_out in product(range(n), range(out), range(height), range(width)):
        acc = 0
        for i, j, channel in product(range(kh), range(kw), range(c // groups)):
            row, column = y * stride[0] - padding[0] + i * dilation[0], x_out * stride[1] - padding[1] + j * dilation[1]
            if 0 <= row < h and 0 <= column < w:
                code = x[image, o // (out // groups) * (c // groups) + channel, row, column].item()
                acc += (code - z) * weight[o, channel, i, j].item()
        v = max(acc * x_scale * weight_scale[o] + Fraction(bias[o].item()), Fraction(0))
        assert actual[image, o, y, x_out] == min(max(round(v / out_scale) - 2, -128), 127)


# The op is its definition


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize(COLUMNS, SHAPES)
def test_shapes(dtype, device, shape, out, groups, kernel, stride, padding, dilation):
    (x, *others), where = case(shape, out, groups, kernel, stride, padding, dilation, dtype=dtype, device=device)
    bias = (normal(out, seed=3) * 10).to(device)
    limits = torch.iinfo(dtype)
    for memory_format, zero in product(FORMATS, (None, limits.min, limits.max, 3)):
        image = x.contiguous(memory_format=memory_format)
        rest = {} if zero is None else {"x_zero_point": torch.tensor([zero], dtype=torch.int32, device=device)}
        y = assert_as_defined(image, *others, bias=bias, **where, **rest)
        assert y.is_contiguous(memory_format=suggest_memory_format(image) if y.numel() else torch.contiguous_format)
        out_scale = torch.tensor(20.0, device=device)
        for code_dtype in CODE_DTYPES:
            assert_as_defined(image, *others, out_scale, **where, **rest, dtype=code_dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 12])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_results(memory_format, groups, relu, device):
    """Every dtype, scale and bias; a bias that is no number, and one that is more than every number."""
    (x, weight, x_scale, weight_scale), where = case((2, 12, 9, 8), 36, groups, (3, 3), 1, 1, 1, device=device)
    x = x.contiguous(memory_format=memory_format)
    hard = normal(36, seed=3).to(device)
    hard[:7] = torch.tensor([float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1e-45, 3.4e38])
    zero = torch.tensor([9], dtype=torch.int32, device=device)
    for scale, bias, zero_point in product((weight_scale, weight_scale[:1]), (None, hard), (None, zero)):
        args, rest = (x, weight, x_scale, scale), {"bias": bias, "x_zero_point": zero_point, "relu": relu, **where}
        for dtype in FLOAT_DTYPES:
            assert assert_as_defined(*args, **rest, dtype=dtype).dtype == dtype
        for dtype in CODE_DTYPES:
            out_zero_point = zero_points(1, dtype=dtype).to(device)
            span = {"q_min": 3, "q_max": 100}
            for options in ({}, {"out_zero_point": out_zero_point}, span):
                q = assert_as_defined(*args, 50 * x_scale, **rest, **options, dtype=dtype)
                assert q.unique().numel() > 2
            of_floats = quaver.quantize(quaver.int8_conv2d(*args, **rest), 50 * x_scale, out_zero_point, dtype=dtype)
            assert_bits(
                quaver.int8_conv2d(*args, 50 * x_scale, out_zero_point=out_zero_point, **rest, dtype=dtype), of_floats
            )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("channels", "out", "groups", "kernel"), [(7, 9, 1, 3), (64, 9, 1, 1), (8, 8, 8, 3), (8, 6, 2, 2)]
)
def test_layouts(channels, out, groups, kernel, device):
    """Of x, of the weight and of what has a value for each channel: the results are the same."""
    args, where = case((2, channels, 6, 7), out, groups, (kernel, kernel), 1, 0, 1, device=device)
    x, weight, x_scale, weight_scale = args
    bias = normal(out).to(device)
    expected = reference.int8_conv2d(*args, bias=bias, **where)
    for (_, x_view), (_, weight_view) in product(layouts(x), layouts(weight)):
        assert_bits(quaver.int8_conv2d(x_view, weight_view, x_scale, weight_scale, bias=bias, **where), expected)
    for (_, scale_view), (_, bias_view) in product(layouts(weight_scale), layouts(bias)):
        assert_bits(quaver.int8_conv2d(x, weight, x_scale, scale_view, bias=bias_view, **where), expected)
    cut = torch.zeros(3, channels + 5, 9, 11, dtype=torch.int8, device=device)
    for memory_format in FORMATS:
        part = cut.contiguous(memory_format=memory_format)[1:, 2 : 2 + channels, 1:7, 3:10].copy_(x)
        assert_bits(quaver.int8_conv2d(part, weight, x_scale, weight_scale, bias=bias, **where), expected)
    assert_as_defined(x[:1, :1].expand(x.shape), weight[:1].expand(weight.shape), x_scale, weight_scale, **where)
    assert_as_defined(x.flip(2).transpose(2, 3), weight, x_scale, weight_scale, **where)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("channels", [16, 33, 70])
@pytest.mark.parametrize("groups", ["one", "each"])
def test_more_channels_and_pixels_than_vectors_hold(groups, channels, dtype, device):
    """What is moved from planes to pixels, and back, in squares: whole ones, and what is left beside them."""
    groups = 1 if groups == "one" else channels
    args, where = case((2, channels, 5, 35), channels, groups, (2, 3), 1, 1, 1, device=device)
    x, *others = args
    options = {**where, "dtype": dtype} | ({"out_scale": 50 * args[2]} if dtype == torch.int8 else {})
    expected = reference.int8_conv2d(*args, **options)
    wide = torch.zeros(2, channels, 5, 40, dtype=torch.int8, device=device)
    for image in (x, wide[..., 2:37].copy_(x), x.contiguous(memory_format=torch.channels_last)):
        assert_bits(quaver.int8_conv2d(image, *others, **options), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8], ids=str)
def test_a_given_result_has_a_format_of_its_own(dtype, groups, device):
    args, where = case((2, 8, 6, 7), 16, groups, (3, 3), 1, 1, 1, device=device)
    options = {**where, "dtype": dtype}
    if dtype == torch.uint8:
        options["out_scale"] = 50 * args[2]
    expected = reference.int8_conv2d(*args, **options)
    for x_format, out_format in product(FORMATS, FORMATS):
        x = args[0].contiguous(memory_format=x_format)
        out = torch.empty(expected.shape, dtype=dtype, device=device, memory_format=out_format)
        assert quaver.int8_conv2d(x, *args[1:], **options, out=out) is out
        assert_bits(out, expected)
    whole = torch.full((4, *expected.shape[1:]), 7, dtype=dtype, device=device)
    assert_bits(quaver.int8_conv2d(*args, **options, out=whole[1:3]), expected)
    assert bool((whole[0] == 7).all() & (whole[3] == 7).all())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_an_image_is_the_same_alone_and_among_others(memory_format, device):
    """Nor does it matter how many threads share the work."""
    args, where = case((9, 32, 30, 30), 64, 1, (3, 3), 1, 1, 1, device=device)
    x = args[0].contiguous(memory_format=memory_format)
    whole = quaver.int8_conv2d(x, *args[1:], **where)
    assert_bits(whole, reference.int8_conv2d(x, *args[1:], **where))
    for image in (0, 4, 8):
        alone = x[image : image + 1].contiguous(memory_format=memory_format)
        assert_bits(quaver.int8_conv2d(alone, *args[1:], **where), whole[image : image + 1])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert_bits(quaver.int8_conv2d(x, *args[1:], **where), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "code", "zero_point", "largest"),
    [
        (torch.int8, -128, None, 131_071),
        (torch.uint8, 255, None, 65_793),
        (torch.int8, -128, 127, 33_025),
        (torch.uint8, 0, 255, 33_025),
    ],
    ids=str,
)
def test_largest_k(dtype, code, zero_point, largest, device):
    """The sums of the most extreme codes, and one code more."""
    x = torch.full((1, 1, 1, largest + 1), code, dtype=dtype, device=device)
    weight = torch.full((2, 1, 1, largest + 1), -128, dtype=torch.int8, device=device)
    one = torch.ones((), device=device)
    rest = {} if zero_point is None else {"x_zero_point": torch.tensor(zero_point, dtype=torch.int32, device=device)}
    y = quaver.int8_conv2d(x[..., :largest], weight[..., :largest], one, one, **rest)
    exact = largest * (code - (zero_point or 0)) * -128
    assert abs(exact) < 2**31
    assert_bits(y, torch.full((1, 2, 1, 1), exact, dtype=torch.int64).to(torch.float32))
    with pytest.raises(RuntimeError, match=f"K must be at most {largest} for .* x int8 .*, got {largest + 1}$"):
        quaver.int8_conv2d(x, weight, one, one, **rest)


def test_zero_points_that_are_no_codes_do_no_harm():
    args, where = case((2, 8, 6, 7), 16, 1, (3, 3), 1, 1, 1)
    depthwise, of_channels = case((2, 8, 6, 7), 8, 8, (3, 3), 1, 1, 1)
    for zero in (2**31 - 1, -(2**31), 1000):
        point = torch.tensor([zero], dtype=torch.int32)
        for tensors, options in ((args, where), (depthwise, of_channels)):
            y = quaver.int8_conv2d(*tensors, 20 * args[2], **options, x_zero_point=point, dtype=torch.int8, q_min=-9)
            assert int(y.min()) >= -9


# A packed weight


def packed(weight):
    return quaver.int8_prepack(weight.permute(2, 3, 1, 0).flatten(0, 2))


@pytest.mark.parametrize(COLUMNS, [row for row in SHAPES if row[2] == 1])
def test_a_packed_weight_changes_no_bit(shape, out, groups, kernel, stride, padding, dilation):
    for dtype, memory_format in product(CODE_DTYPES, FORMATS):
        (x, *others), where = case(shape, out, groups, kernel, stride, padding, dilation, dtype=dtype)
        x, weight_packed = x.contiguous(memory_format=memory_format), packed(others[0])
        options = {**where, "x_zero_point": torch.tensor([5], dtype=torch.int32)}
        actual = quaver.int8_conv2d(x, *others, **options, weight_packed=weight_packed)
        assert_bits(actual, reference.int8_conv2d(x, *others, **options))


def test_a_packed_weight_is_what_is_read():
    args, where = case((1, 8, 6, 7), 16, 1, (3, 3), 1, 1, 1)
    other = quaver.int8_conv2d(*args, **where, weight_packed=packed(args[1].flip(0)))
    assert_bits(other, reference.int8_conv2d(args[0], args[1].flip(0), *args[2:], **where))


@pytest.mark.parametrize("fake", [False, True])
def test_other_packed_weights_are_refused(fake):
    args, where = case((1, 8, 6, 7), 16, 1, (3, 3), 1, 1, 1)
    grouped, of_groups = case((1, 8, 6, 7), 16, 2, (3, 3), 1, 1, 1)
    calls = (
        (args, where, packed(args[1])[:, 1:], r"must be int8_prepack's, contiguous \[1, 4224\] for K = 72 and N = 16"),
        (args, where, packed(args[1]).view(torch.uint8), "must be int8, got uint8"),
        (grouped, of_groups, packed(grouped[1]), "needs groups=1, since .*, got groups=2"),
    )
    for tensors, options, weight_packed, words in calls:
        mode = torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) if fake else contextlib.nullcontext()
        with mode, pytest.raises(RuntimeError, match=f"^quaver::int8_conv2d: weight_packed {words}"):
            quaver.int8_conv2d(*tensors, weight_packed=weight_packed, **options)


# The function over the op


@pytest.mark.parametrize("device", DEVICES)
def test_function_takes_quantization_params(device):
    x, weight = normal(2, 6, 7, 8).to(device), normal(9, 6, 3, 3, seed=1).to(device)
    q, params = quaver.dynamic_quantize(x, quaver.PerTensor(), symmetric=False)
    weight_q, weight_params = quaver.dynamic_quantize(weight, quaver.PerChannel(0))
    assert weight_params.scale.shape == (9, 1, 1, 1)
    y = quaver.int8_conv2d(q, weight_q, params, weight_params, padding=1, check=True)
    expected = ops.int8_conv2d(
        q, weight_q, params.scale, weight_params.scale, x_zero_point=params.zero_point, padding=[1, 1]
    )
    assert_bits(y, expected)
    exact = torch.nn.functional.conv2d(x, weight, padding=1)
    assert float((y - exact).abs().max()) < 0.02 * float(exact.abs().max())
    out_params = quaver.choose_qparams(y, symmetric=False, dtype=torch.uint8, q_max=200)
    codes_of_y = quaver.int8_conv2d(q, weight_q, params, weight_params, out_params, padding=1, dtype=torch.uint8)
    assert_bits(codes_of_y, quaver.quantize(y, out_params, dtype=torch.uint8))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_function_widens_the_bias(dtype, device):
    args, where = case((2, 8, 6, 7), 16, 1, (3, 3), 1, 1, 1, device=device)
    half = normal(16).to(dtype).to(device)
    expected = quaver.int8_conv2d(*args, **where, bias=half.to(torch.float32))
    assert_bits(quaver.int8_conv2d(*args, **where, bias=half), expected)


def test_a_number_stands_for_a_pair():
    args, _ = case((2, 8, 9, 9), 16, 1, (3, 3), 1, 1, 1)
    by_pair = quaver.int8_conv2d(*args, stride=(2, 2), padding=[1, 1], dilation=(2, 2))
    assert_bits(quaver.int8_conv2d(*args, stride=2, padding=1, dilation=2), by_pair)
    assert_bits(reference.int8_conv2d(*args, stride=2, padding=1, dilation=2), by_pair)
