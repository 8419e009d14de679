"""What the compiler is told of each op is true: shapes, dtypes and strides, for fixed sizes and for symbolic ones."""

import pytest
import torch
from torch._prims_common import suggest_memory_format
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import quaver
from quaver.library import as_tuple
from tests.cases import (
    DEVICES,
    FLOAT_DTYPES,
    GRANULARITIES,
    assert_bits,
    codes,
    layouts,
    normal,
    products,
    scales,
    zero_points,
)

ops = torch.ops.quaver

MATMULS = ("int8_matmul", "int8_matmul_dequantize", "int8_matmul_requantize")

# (shape of a, shape of b)
PRODUCTS = (
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (7, 1, 4, 5)),
    ((1, 2, 1, 2, 3, 4), (2, 1, 4, 5)),
    ((0, 4), (4, 5)),
    ((3, 0), (0, 5)),
    ((0, 3, 4), (1, 4, 5)),
)


def one(value=1.0):
    return torch.tensor(value)


def linear_layer(n, k):
    return codes(n, k), scales(n, 1), normal(n)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


# (op, arguments, options)
CALLS = (
    ("choose_qparams", (normal(4, 6), [4, 1]), {}),
    ("choose_qparams", (normal(2, 3, 8, dtype=torch.float16), [2, 1, 4]), {"symmetric": False, "dtype": torch.uint8}),
    ("choose_qparams", (normal(0, 6), [0, 1]), {"eps": 1e-8}),
    ("quantize", (normal(4, 6), one()), {}),
    ("quantize", (normal(4, 6).t(), scales(6, 1), zero_points(6, 1)), {"dtype": torch.uint8, "q_max": 9}),
    ("quantize", (normal(2, 3, 8, dtype=torch.bfloat16)[..., ::2], scales(1, 3, 2)), {"mode": "affine"}),
    ("quantize", (normal(4, 6), scales(4, 1)), {"mode": "reciprocal"}),
    ("quantize", (normal(4, 6).t(), scales(6, 1), zero_points(6, 1)), {"mode": "stochastic", "seed": 2**40}),
    ("dynamic_quantize", (normal(4, 6), [4, 1]), {}),
    ("dynamic_quantize", (normal(4, 6), [1, 1]), {"symmetric": False, "return_row_sum": True}),
    ("dynamic_quantize", (normal(2, 4, 6).transpose(0, 2), [6, 4, 1]), {"dtype": torch.uint8, "symmetric": False}),
    ("rms_norm_quantize", (normal(4, 6), normal(6)), {}),
    (
        *("rms_norm_quantize", (normal(2, 4, 6, dtype=torch.float16).transpose(0, 2), normal(2, dtype=torch.bfloat16))),
        {"residual": normal(6, 4, 2, dtype=torch.float16), "symmetric": False, "return_row_sum": True, "eps": 0.1},
    ),
    ("silu_mul_quantize", normal(4, 12).chunk(2, -1), {}),
    (
        *("silu_mul_quantize", (normal(4, 6).t(), normal(6, 4))),
        {"symmetric": False, "dtype": torch.uint8, "return_row_sum": True, "q_max": 9},
    ),
    ("int8_matmul", (codes(3, 4), codes(4, 5)), {}),
    (
        *("int8_matmul", (codes(2, 3, 4), codes(5, 4, dtype=torch.uint8).t())),
        {"a_zero_point": zero_points(3, 1), "b_zero_point": zero_points(1, 5), "b_sum": zero_points(1, 5)},
    ),
    ("int8_matmul_dequantize", (codes(3, 4), codes(4, 5), scales(3, 1), scales(1, 5)), {"dtype": torch.float16}),
    (
        *("int8_matmul_dequantize", (codes(2, 3, 4), codes(7, 1, 4, 5), scales(2, 3, 1), one())),
        {"bias": normal(5), "relu": True, "a_zero_point": zero_points(1)},
    ),
    ("int8_matmul_requantize", (codes(3, 4), codes(4, 5), scales(3, 1), one(), scales(1, 5)), {"q_min": -9}),
    (
        *("int8_matmul_requantize", (codes(2, 3, 4), codes(2, 4, 5), one(), scales(2, 1, 5), one())),
        {"out_zero_point": zero_points(1), "bias": normal(5), "dtype": torch.uint8},
    ),
    (
        *("int8_matmul_requantize", (codes(3, 4), codes(4, 5), scales(3, 1), one(), scales(1, 5))),
        {"bias": products(5), "mode": "fixed"},
    ),
    ("rescale", (products(3, 4), scales(3, 1), scales(1, 4)), {"bias": normal(4), "dtype": torch.bfloat16}),
    ("rescale", (products(2, 5, 3).transpose(0, 2), one(), scales(3, 1, 2)), {"relu": True, "dtype": torch.float16}),
    ("rescale", (products(4), one(), scales(1, 4)), {}),
    ("requantize", (products(3, 4), scales(3, 1), scales(1, 4), one()), {"bias": normal(4), "relu": True}),
    (
        *("requantize", (products(2, 5, 3).transpose(0, 2), one(), scales(1, 2), scales(3, 1, 2))),
        {"out_zero_point": zero_points(1), "bias": products(2), "dtype": torch.uint8, "q_max": 9, "mode": "fixed"},
    ),
    ("requantize", (products(4), one(), scales(1, 4), one()), {}),
    ("dequantize", (codes(4, 6), one()), {"dtype": torch.bfloat16}),
    ("dequantize", (codes(4, 6).t(), scales(3, 2), zero_points(3, 2)), {}),
    ("fake_quantize", (normal(4, 6), one()), {}),
    ("fake_quantize", (normal(4, 6).requires_grad_(), one(0.01)), {"mode": "stochastic", "seed": 3}),
    ("fake_quantize", (normal(4, 6, dtype=torch.float16).t().requires_grad_(), scales(6, 1), zero_points(6, 1)), {}),
    ("fake_quantize_mask", (normal(4, 6, dtype=torch.bfloat16), one(0.01)), {"mode": "affine", "q_min": 3}),
    ("int8_linear", (normal(3, 4), *linear_layer(5, 4)), {}),
    ("int8_linear", (normal(4), *linear_layer(5, 4)), {"symmetric": False, "relu": True, "dtype": torch.bfloat16}),
    ("int8_linear", (normal(2, 3, 4, dtype=torch.float16), codes(5, 4), one()), {"weight_sum": zero_points(5, 1)}),
    (
        "int8_conv2d",
        (codes(2, 4, 5, 6), codes(6, 4, 3, 3), one(), scales(6, 1, 1, 1)),
        {"bias": normal(6), "padding": [1, 1]},
    ),
    (
        "int8_conv2d",
        (channels_last(codes(2, 4, 5, 6)), channels_last(codes(6, 2, 3, 2)), one(), one(), one()),
        {"groups": 2, "stride": [2, 1], "dilation": [1, 3], "dtype": torch.uint8, "x_zero_point": zero_points(1)},
    ),
    (
        *("int8_conv2d", (channels_last(codes(1, 6, 7, 1, dtype=torch.uint8)), codes(6, 1, 5, 1), one(), one())),
        {"groups": 6, "dtype": torch.float16},
    ),
)


def on(device, arguments):
    """The same arguments elsewhere, with the same strides where they are dense."""

    def moved(tensor):
        return tensor.detach().to(device).requires_grad_(tensor.requires_grad)

    return torch.utils._pytree.tree_map_only(torch.Tensor, moved, arguments)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "args", "options"), CALLS, ids=[name for name, *_ in CALLS])
def test_opcheck(name, args, options, device):
    opcheck(getattr(ops, name).default, on(device, args), on(device, options))


def test_every_op_is_checked():
    assert {name for name, *_ in CALLS} == set(quaver.library.OPS)


def assert_fake_is_true(name, args, **options):
    fake = FakeTensorMode()
    promised = torch.utils._pytree.tree_map_only(torch.Tensor, fake.from_tensor, (args, options))
    with fake:
        expected = getattr(ops, name)(*promised[0], **promised[1])
    actual = getattr(ops, name)(*args, **options)
    for real, told in zip(as_tuple(actual), as_tuple(expected), strict=True):
        assert (told.shape, told.dtype, told.device) == (real.shape, real.dtype, real.device)
        assert strides_that_matter(told) == strides_that_matter(real)


def strides_that_matter(x):
    """Those over which memory is walked. In the others torch.empty_like itself differs from its fake."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1] if x.numel() else []


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "scale_shape"), GRANULARITIES, ids=str)
def test_elementwise_layouts(shape, scale_shape, device):
    x = torch.randn(shape, device=device)
    scale = torch.ones(scale_shape, device=device)
    whole_shape = scale_shape if len(scale_shape) == len(shape) else [1] * len(shape)
    views = [view for _, view in layouts(x)]
    if x.dim() > 1:
        views += [x[:1].expand(shape), x.permute(*range(1, x.dim()), 0), x.unsqueeze(0).movedim(0, -1).squeeze(-1)]
    for view in views:
        if view.shape == x.shape:
            assert_fake_is_true("choose_qparams", (view, whole_shape), symmetric=False)
            assert_fake_is_true("quantize", (view, scale), dtype=torch.uint8)
            assert_fake_is_true("dynamic_quantize", (view, whole_shape), return_row_sum=x.dim() > 0)
            if x.dim() > 0:
                weight = torch.ones(x.shape[-1], device=device)
                assert_fake_is_true("rms_norm_quantize", (view, weight), residual=x, return_row_sum=True)
                assert_fake_is_true("silu_mul_quantize", (view, x), symmetric=False, dtype=torch.uint8)
            assert_fake_is_true("dequantize", (view.to(torch.int8), scale), dtype=torch.float16)
            assert_fake_is_true("fake_quantize", (view.to(torch.bfloat16), scale))
            assert_fake_is_true("fake_quantize_mask", (view, scale))
        else:
            assert_fake_is_true("quantize", (view, torch.ones((), device=device)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("a_shape", "b_shape"), PRODUCTS, ids=str)
def test_products(a_shape, b_shape, device):
    a, b = codes(*a_shape).to(device), codes(*b_shape).to(device)
    unit = torch.ones((), device=device)
    for a_view, b_view in ((a, b), (a.mT.contiguous().mT, b), (a, b.mT.contiguous().mT)):
        assert_fake_is_true("int8_matmul", (a_view, b_view))
        for dtype in FLOAT_DTYPES:
            assert_fake_is_true("int8_matmul_dequantize", (a_view, b_view, unit, unit), dtype=dtype)
        assert_fake_is_true("int8_matmul_requantize", (a_view, b_view, unit, unit, unit), dtype=torch.uint8)
        acc = ops.int8_matmul(a_view, b_view)
        for view in (acc, acc.mT, acc[..., ::2], acc[..., 0]):
            assert_fake_is_true("rescale", (view, unit, unit), dtype=torch.float16)
            assert_fake_is_true("requantize", (view, unit, unit, unit), dtype=torch.uint8, mode="fixed")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (1, 4), (0, 4), (2, 3, 4), (1, 1, 1, 1, 1, 4), (3, 0)], ids=str)
def test_linear(shape, device):
    x = torch.randn(shape, device=device)
    for n in (0, 1, 5):
        layer = (codes(n, shape[-1]).to(device), torch.ones(n, 1, device=device))
        for view in (x, x.mT.contiguous().mT if x.dim() > 1 else x):
            assert_fake_is_true("int8_linear", (view, *layer))
            assert_fake_is_true("int8_linear", (view, *layer), dtype=torch.bfloat16)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (1, 1, 5, 6), (3, 4, 1, 1), (1, 4, 1, 6), (0, 4, 5, 6), (2, 0, 5, 6)])
def test_images(shape, device):
    """Every order in memory, and what looks like several of them."""
    x = torch.ones(shape, dtype=torch.int8, device=device)
    unit = torch.ones((), device=device)
    views = [view for _, view in layouts(x)]
    views += [x[:, :1].expand(shape), x.expand(2, *shape)[0], x.new_ones(shape[::-1]).permute(3, 2, 1, 0)]
    for view in views:
        for out in (0, 1, 5):
            weight = torch.ones(out, shape[1], 1, 1, dtype=torch.int8, device=device)
            result = ops.int8_conv2d(view, weight, unit, unit)
            assert_fake_is_true("int8_conv2d", (view, weight, unit, unit))
            if result.numel():
                assert result.is_contiguous(memory_format=suggest_memory_format(view))


# Symbolic sizes: functions compiled once serve every size, with the bits of eager mode.


def stages(x, weight):
    """The data's way: parameters, codes, product, floats, codes and floats again."""
    params = quaver.choose_qparams(x, quaver.PerToken(), symmetric=False)
    a = quaver.quantize(x, params)
    b, b_params = quaver.dynamic_quantize(weight.t(), quaver.PerChannel(1))
    y = quaver.int8_matmul_dequantize(a, b, params, b_params, relu=True)
    y_params = quaver.choose_qparams(y, quaver.PerTensor(), symmetric=False)
    q = quaver.int8_matmul_requantize(a, b, params, b_params, y_params)
    acc = quaver.int8_matmul(a, b)
    return (
        acc,
        y,
        q,
        quaver.requantize(acc, params, b_params, y_params, mode="fixed"),
        quaver.dequantize(q, y_params, dtype=torch.float16),
    )


def linear(x, weight):
    weight_q, params, weight_sum = quaver.dynamic_quantize(weight, return_row_sum=True)
    return (quaver.int8_linear(torch.tanh(x), weight_q, params, weight_sum=weight_sum, symmetric=False) * 2,)


def fused(x, weight):
    q, params, h = quaver.rms_norm_quantize(x, weight[0], residual=torch.relu(x))
    gate, up = torch.cat([h, x], -1).chunk(2, -1)
    return q, params.scale, *quaver.silu_mul_quantize(gate, up)[:1]


def grouped(x, weight):
    q, params = quaver.dynamic_quantize(torch.cat([x, x]), quaver.PerGroup(4))
    return q, quaver.dequantize(q, params), weight


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("function", [stages, linear, fused, grouped])
def test_compiled_once_for_every_size(function, device):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for m, n, k in ((6, 5, 16), (9, 3, 32), (2, 70, 8)):
        x, weight = normal(m, k).to(device), normal(n, k, seed=1).to(device)
        with torch._dynamo.config.patch(error_on_recompile=m != 6):
            results = compiled(x, weight)
        for actual, expected in zip(results, function(x, weight), strict=True):
            assert_bits(actual, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_convolution_compiled_once_for_every_size(memory_format, device):
    def convolved(x, weight):
        y = quaver.int8_conv2d(x, weight, x_scale, x_scale, stride=2, padding=(1, 2), dtype=torch.bfloat16)
        return torch.relu(y), y.shape[2]

    torch._dynamo.reset()
    x_scale = torch.tensor(0.25, device=device)
    compiled = torch.compile(convolved, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, c, height, width in ((2, 4, 9, 10), (3, 5, 12, 7), (5, 16, 3, 40)):
        x = codes(n, c, height, width).contiguous(memory_format=memory_format).to(device)
        weight = codes(6, c, 3, 3, seed=1).to(device)
        with torch._dynamo.config.patch(error_on_recompile=n != 2):
            y, rows = compiled(x, weight)
        expected, expected_rows = convolved(x, weight)
        assert rows == expected_rows
        assert y.stride() == expected.stride()
        assert_bits(y, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_compiled_module(device):
    layer = quaver.QuantLinear.from_float(torch.nn.Linear(16, 5)).to(device)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for m in (6, 1, 0):
        x = normal(m, 16).to(device)
        assert_bits(compiled(x), layer(x))
