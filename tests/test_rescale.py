"""rescale: int32 products to floats. ARITHMETIC.md (7)."""

import random
from itertools import product

import pytest
import torch

import quaver
from quaver import reference
from tests import oracle
from tests.cases import (
    DEVICES,
    EDGE_SIZES,
    FLOAT_DTYPES,
    assert_bits,
    codes,
    layouts,
    normal,
    products,
    scales,
    zero_points,
)
from tests.test_matmul import BATCHES, both, column_shapes, float32, int32, row_shapes

ops = torch.ops.quaver

ONE = torch.tensor(1.0)


def assert_as_defined(acc, a_scale, b_scale, **options):
    actual = ops.rescale(acc, a_scale, b_scale, **options)
    assert_bits(actual, reference.rescale(acc, a_scale, b_scale, **options))
    return actual


def test_by_hand():
    acc = int32([1, 3, -5], [100, 5, 1000])
    for y in both("rescale", acc, float32([1.0], [0.5]), float32(0.5)):
        assert_bits(y, float32([0.5, 1.5, -2.5], [25.0, 1.25, 250.0]))
    options = {"bias": float32(1.0, 0.0, 2.5), "relu": True}
    for y in both("rescale", acc, ONE, float32([0.5, -1.0, 0.5]), **options):
        assert_bits(y, float32([1.5, 0.0, 0.0], [51.0, 0.0, 502.5]))


def test_each_type_rounds_once_to_even():
    acc = int32([2**24 + 1, 2**24 + 3, 257, 259, 2049, 2051, 65519, 65520])
    rounded = {
        torch.float32: (2**24, 2**24 + 4, 257, 259, 2049, 2051, 65519, 65520),
        torch.bfloat16: (2**24, 2**24, 256, 260, 2048, 2048, 65536, 65536),
        torch.float16: (float("inf"), float("inf"), 257, 259, 2048, 2052, 65504, float("inf")),
    }
    for dtype, expected in rounded.items():
        for y in both("rescale", acc, ONE, ONE, dtype=dtype):
            assert_bits(y, torch.tensor([expected], dtype=dtype))


def test_zeros_keep_their_signs_without_a_bias():
    for y in both("rescale", int32(0, 0), -ONE, ONE):
        assert_bits(y, float32(-0.0, -0.0))
    for y in both("rescale", int32(0, 0), -ONE, ONE, bias=float32(0.0, -0.0)):
        assert_bits(y, float32(0.0, -0.0))
    for y in both("rescale", int32(0, 0), -ONE, ONE, bias=float32(float("nan"), -0.0), relu=True):
        assert_bits(y, float32(float("nan"), 0.0))


def test_it_is_the_oracles():
    draw = random.Random(2)
    rows = [[draw.randint(-(2**31), 2**31 - 1) >> draw.randrange(31) for _ in range(40)] for _ in range(20)]
    a_scale, b_scale, bias = scales(20, 1, seed=1), scales(1, 40), normal(40)
    columns = list(zip(b_scale.flatten().tolist(), bias.tolist(), strict=True))
    expected = [
        [oracle.scale_product(acc, a, b, shift) for acc, (b, shift) in zip(row, columns, strict=True)]
        for row, a in zip(rows, a_scale.flatten().tolist(), strict=True)
    ]
    for y in both("rescale", int32(*rows), a_scale, b_scale, bias=bias):
        assert_bits(y, torch.tensor(expected))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_it_is_the_matmuls_last_stage(dtype):
    for number, (a_shape, b_shape) in enumerate(BATCHES):
        a, b = codes(*a_shape), codes(*b_shape, seed=1)
        for row, column in zip(row_shapes(a_shape, b_shape), column_shapes(a_shape, b_shape), strict=True):
            points = {"a_zero_point": zero_points(*row), "b_zero_point": zero_points(*column, seed=2)}
            factors = (scales(*row, seed=3), scales(*column, seed=4))
            last = {"bias": normal(b_shape[-1]), "relu": number % 2 == 1, "dtype": dtype}
            fused = ops.int8_matmul_dequantize(a, b, *factors, **points, **last)
            assert_bits(ops.rescale(ops.int8_matmul(a, b, **points), *factors, **last), fused)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_edge_sizes(dtype, device):
    for m, n in product(EDGE_SIZES, (*EDGE_SIZES, 300)):
        given = (products(m, n), scales(m, 1, seed=3), scales(1, n, seed=4))
        assert_as_defined(*(tensor.to(device) for tensor in given), bias=normal(n).to(device), dtype=dtype)


def test_layouts():
    for shape in ((37, 70), (2, 3, 5, 8), (2, 1, 2, 3, 4, 12)):
        row, column = (*shape[:-1], 1), (*shape[:-2], 1, shape[-1])
        for _, acc in layouts(products(*shape)):
            assert_as_defined(acc, scales(*row), scales(*column), bias=normal(shape[-1]))
            assert_as_defined(acc, scales(), scales(1, shape[-1]), relu=True, dtype=torch.bfloat16)
            assert_as_defined(acc, scales(shape[-2], 1), scales(), dtype=torch.float16)
    acc = products(3, 40)
    assert_as_defined(acc[:1].expand(6, 40), scales(6, 1), scales(1, 40))
    assert_as_defined(acc, scales(3, 2)[:, :1], scales(1, 80)[:, ::2], bias=normal(80)[::2])


def test_ranks():
    for rank in range(7):
        assert_as_defined(products(*(2, 3, 2, 1, 3, 4)[:rank]), scales(), scales(), relu=True)


def test_results_lie_in_memory_as_products_do():
    acc = products(2, 8, 5, 7).movedim(1, -1)
    y = assert_as_defined(acc, scales(), scales(1, 8), bias=normal(8))
    assert y.stride() == acc.stride()


def test_parts_of_k_are_added_before():
    """What the op is for: each part's sums are integers, which add up in any order."""
    a, b, factors = codes(6, 40), codes(40, 12), (scales(6, 1), scales(1, 12))
    points = {"a_zero_point": zero_points(6, 1)}
    parts = [ops.int8_matmul(a[:, part], b[part], **points) for part in (slice(0, 9), slice(9, 33), slice(33, 40))]
    whole = ops.int8_matmul_dequantize(a, b, *factors, **points, bias=normal(12))
    assert_bits(ops.rescale(parts[2] + parts[0] + parts[1], *factors, bias=normal(12)), whole)


def test_function_unpacks_params_and_widens():
    acc = products(6, 12, most=2**14)
    a = quaver.choose_qparams(normal(6, 5), quaver.PerToken(), symmetric=False)
    b = quaver.choose_qparams(normal(5, 12), quaver.PerChannel(1))
    half = normal(12, dtype=torch.float16)
    expected = reference.rescale(acc, a.scale, b.scale, bias=half.float(), dtype=torch.float16)
    assert_bits(quaver.rescale(acc, a, b, bias=half, dtype=torch.float16, check=True), expected)


def test_function_refuses_in_words():
    acc = products(6, 12)
    with pytest.raises(ValueError, match=r"^quaver::rescale: dtype must be torch.float32, torch.float16 or"):
        quaver.rescale(acc, ONE, ONE, dtype=torch.int8)
    with pytest.raises(TypeError, match=r"^quaver::rescale: acc must be a tensor, got list$"):
        quaver.rescale([1], ONE, ONE)
    with pytest.raises(ValueError, match=r"^quaver::rescale: b_scale .* -1.0$"):
        quaver.rescale(acc, ONE, -ONE, check=True)
    with pytest.raises(NotImplementedError, match=r"^quaver::rescale: a_scale"):
        quaver.rescale(acc, torch.ones(6, 2), ONE)
