"""int8_linear: dynamic_quantize of each row, then int8_matmul_dequantize with the weight. ARITHMETIC.md (5) to (7)."""

from itertools import product

import pytest
import torch

import quaver
from quaver import reference
from tests.cases import DEVICES, EDGE_VALUES, FLOAT_DTYPES, assert_bits, codes, layouts, normal, scales

ops = torch.ops.quaver

# Everything of x but K, then N and K.
SHAPES = (
    ((), 5, 7),
    ((), 1, 1),
    ((3,), 5, 7),
    ((1,), 64, 128),
    ((257,), 65, 1025),
    ((2, 3), 5, 7),
    ((2, 3, 4), 5, 7),
    ((2, 1, 2, 1, 3), 5, 7),
    ((0,), 5, 7),
    ((2, 0, 3), 5, 7),
    ((3,), 0, 7),
    ((3,), 5, 0),
    ((), 0, 0),
)


def assert_as_defined(*args, **options):
    actual = ops.int8_linear(*args, **options)
    assert_bits(actual, reference.int8_linear(*args, **options))
    return actual


def composed(x, weight_q, weight_scale, bias=None, *, symmetric=True, relu=False, dtype=None):
    """What int8_linear says it is, in public functions."""
    rows = x.view(-1, x.shape[-1])
    q, params = quaver.dynamic_quantize(rows, quaver.PerToken(), symmetric=symmetric)
    y = quaver.int8_matmul_dequantize(
        q, weight_q.t(), params, weight_scale.t(), bias=bias, relu=relu, dtype=x.dtype if dtype is None else dtype
    )
    return y.view(*x.shape[:-1], weight_q.shape[0])


def layer(n, k, device):
    return codes(n, k).to(device), scales(n, 1).to(device), (normal(n, seed=3) * 10).to(device)


# Numbers by hand


def test_by_hand():
    unit = 2.0**-6
    x = torch.tensor([[127 * unit, -0.5, 16.5 * unit], [0.0, 0.0, 0.0]])  # scale 2^-6: codes 127, -32, 16 (a tie)
    weight_q = torch.tensor([[1, 2, 3], [-1, 0, 1]], dtype=torch.int8)  # acc = 127 - 64 + 48 = 111 and -127 + 16 = -111
    weight_scale = torch.tensor([[0.5], [0.25]])
    bias = torch.tensor([1.0, -1.0])
    expected = torch.tensor([[111 * unit / 2 + 1, -111 * unit / 4 - 1], [1.0, -1.0]])
    assert_bits(reference.int8_linear(x, weight_q, weight_scale, bias), expected)
    for device in DEVICES:
        assert_bits(ops.int8_linear(*(tensor.to(device) for tensor in (x, weight_q, weight_scale, bias))), expected)


def test_asymmetric_by_hand():
    unit = 2.0**-6
    x = torch.tensor([255 * unit, 1.0, 0.0])  # scale 2^-6, zero point -128: codes less it are 255, 64, 0
    weight_q = torch.tensor([[1, 2, 3], [-1, 4, 1]], dtype=torch.int8)  # acc = 255 + 128 and -255 + 256
    weight_scale = torch.tensor(0.5)
    expected = torch.tensor([383 * unit / 2, unit / 2])
    assert_bits(reference.int8_linear(x, weight_q, weight_scale, symmetric=False), expected)
    for device in DEVICES:
        args = (tensor.to(device) for tensor in (x, weight_q, weight_scale))
        assert_bits(ops.int8_linear(*args, symmetric=False), expected)


# The op is its definition


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize(("leading", "n", "k"), SHAPES, ids=str)
def test_shapes_and_dtypes(leading, n, k, dtype, symmetric, device):
    x = normal(*leading, k, dtype=dtype).to(device)
    weight_q, weight_scale, bias = layer(n, k, device)
    for scale, given_bias in product((weight_scale, torch.tensor(0.03, device=device)), (None, bias)):
        y = assert_as_defined(x, weight_q, scale, given_bias, symmetric=symmetric)
        assert y.shape == (*leading, n)
        assert y.dtype == dtype
        assert y.is_contiguous()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("x_dtype", "dtype"), list(product(FLOAT_DTYPES, FLOAT_DTYPES)))
def test_is_its_composition(x_dtype, dtype, symmetric, device):
    x = normal(4, 9, 130, dtype=x_dtype).to(device)
    args = layer(70, 130, device)
    assert_bits(
        quaver.int8_linear(x, *args, symmetric=symmetric, dtype=dtype),
        composed(x, *args, symmetric=symmetric, dtype=dtype),
    )
    for relu in (False, True):
        options = {"symmetric": symmetric, "relu": relu}
        assert_bits(quaver.int8_linear(x, *args, **options), composed(x, *args, **options))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_layouts(symmetric, device):
    x = normal(2, 6, 5, 33).to(device)
    weight_q, weight_scale, bias = layer(7, 33, device)
    for (_, x_view), (_, weight_view) in product(layouts(x), layouts(weight_q)):
        assert_as_defined(x_view, weight_view, weight_scale, bias, symmetric=symmetric)
    for (_, scale_view), (_, bias_view) in product(layouts(weight_scale), layouts(bias)):
        assert_as_defined(x, weight_q, scale_view, bias_view, symmetric=symmetric)
    assert_as_defined(x[:1].expand(x.shape), weight_q[:, :1].expand(weight_q.shape), weight_scale, bias[:1].expand(7))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_edge_values(symmetric, device):
    """Rows that hold ties, denormals, the largest numbers, infinities and NaN; every row has its own scale."""
    x = torch.stack([EDGE_VALUES.roll(shift) * 10.0**shift for shift in range(-6, 6)]).to(device)
    x = torch.cat([x, x.clamp(-300, 300), x.nan_to_num(0, 0, 0)])
    y = assert_as_defined(x, *layer(9, x.shape[1], device), symmetric=symmetric)
    assert y.isfinite().any()
    assert_as_defined(x, *layer(9, x.shape[1], device), symmetric=symmetric, relu=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_known_weight_sum(symmetric, device):
    x = normal(5, 64).to(device)
    weight_q, weight_scale, bias = layer(9, 64, device)
    weight_sum = weight_q.sum(1, keepdim=True, dtype=torch.int32)
    assert_bits(
        ops.int8_linear(x, weight_q, weight_scale, bias, weight_sum=weight_sum, symmetric=symmetric),
        reference.int8_linear(x, weight_q, weight_scale, bias, symmetric=symmetric),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_row_is_the_same_alone_and_among_others(symmetric, device):
    x = normal(261, 1030).to(device)
    args = layer(66, 1030, device)
    whole = ops.int8_linear(x, *args, symmetric=symmetric)
    for rows in (0, 255, slice(3, 5), slice(255, 257), slice(7, 200)):
        assert_bits(ops.int8_linear(x[rows], *args, symmetric=symmetric), whole[rows])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("symmetric", "largest"), [(True, 131_071), (False, 33_025)])
def test_largest_k(symmetric, largest, device):
    """The sums of the most extreme codes that rows of x can have, and one code more."""
    if symmetric:
        x = torch.ones(1, largest + 1)  # codes 127
        exact = largest * 127 * -128
    else:
        x = torch.full((1, largest + 1), 255.0)
        x[0, 0] = 0.0  # scale 1, zero point -128: codes less it are 0 and then 255
        exact = (largest - 1) * 255 * -128
    weight_q = torch.full((2, largest + 1), -128, dtype=torch.int8)
    x, weight_q, one = x.to(device), weight_q.to(device), torch.ones((), device=device)
    expected = torch.tensor(exact, dtype=torch.float32) * (1 / torch.tensor(127.0) if symmetric else 1)
    y = ops.int8_linear(x[:, :largest], weight_q[:, :largest], one, symmetric=symmetric)
    assert_bits(y, expected.expand(1, 2))
    with pytest.raises(RuntimeError, match=f"K must be at most {largest} for int8 x int8 .*, got {largest + 1}$"):
        ops.int8_linear(x, weight_q, one, symmetric=symmetric)


# The function over the op


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("granularity", [quaver.PerTensor(), quaver.PerToken(), quaver.PerChannel(0)])
def test_function_takes_quantization_params(granularity, device):
    weight, x = normal(9, 64).to(device), normal(5, 64, seed=1).to(device)
    weight_q, params = quaver.dynamic_quantize(weight, granularity)
    expected = ops.int8_linear(x, weight_q, params.scale)
    assert_bits(quaver.int8_linear(x, weight_q, params, check=True), expected)
    assert_bits(quaver.int8_linear(x, weight_q, params.scale), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_function_widens_the_bias(dtype, device):
    x = normal(5, 64, dtype=dtype).to(device)
    weight_q, weight_scale, bias = layer(9, 64, device)
    half = bias.to(dtype)
    assert_bits(
        quaver.int8_linear(x, weight_q, weight_scale, half),
        ops.int8_linear(x, weight_q, weight_scale, half.to(torch.float32)),
    )
