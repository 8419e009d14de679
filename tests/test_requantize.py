"""requantize, and both modes of requantization: int32 products to codes. ARITHMETIC.md (7), (8) and (10)."""

import random
from fractions import Fraction
from itertools import product

import pytest
import torch

import quaver
from quaver import reference
from tests import cases, oracle
from tests.cases import (
    CODE_DTYPES,
    DEVICES,
    EDGE_SIZES,
    assert_bits,
    codes,
    layouts,
    normal,
    products,
    scales,
    zero_points,
)
from tests.test_matmul import BATCHES, both, column_shapes, float32, int8, int32, row_shapes, uint8

ops = torch.ops.quaver

MODES = ("float", "fixed")
ONE = torch.tensor(1.0)
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def bias_of(mode, n, seed=7):
    return normal(n, seed=seed) if mode == "float" else products(n, seed=seed, most=2**16)


def parameters(row, column, mode="float", n=None):
    """Scales for products up to 2^20, such that many codes are neither 0 nor saturated; a bias where n is given."""
    given = {
        "a_scale": cases.scales(*row, seed=3),
        "b_scale": cases.scales(*column, seed=4),
        "out_scale": cases.scales(*column, seed=5) * 2.0**12,
        "out_zero_point": zero_points(*column, seed=6),
        "mode": mode,
    }
    return given if n is None else {**given, "bias": bias_of(mode, n)}


def assert_as_defined(acc, **options):
    actual = ops.requantize(acc, **options)
    assert_bits(actual, reference.requantize(acc, **options))
    return actual


# Numbers by hand


def test_by_hand():
    acc, half = int32([1, 3, -5], [100, 5, 1000]), float32(0.5)
    for q in both("requantize", acc, ONE, half, ONE):
        # v = acc / 2: ties 0.5 -> 0, 1.5 -> 2, -2.5 -> -2, 2.5 -> 2
        assert_bits(q, int8((0, 2, -2), (50, 2, 127)))
    options = {"bias": float32(1.0, 0.0, 4.0), "out_zero_point": int32([10, 0, -1]), "relu": True}
    for q in both("requantize", acc, float32([1.0], [2.0]), half, float32([0.25, 1.0, 2.0]), **options):
        # v = (0.5 + 1, 1.5, -2.5 + 4), (100 + 1, 5, 1000 + 4); v / s_out = (6, 1.5, 0.75), (404, 5, 502)
        assert_bits(q, int8((16, 2, 0), (127, 5, 127)))
    for q in both("requantize", acc, ONE, half, ONE, dtype=torch.uint8, q_min=1, q_max=200):
        assert_bits(q, uint8((1, 2, 1), (50, 2, 200)))


def test_a_vector_is_a_row():
    for q in both("requantize", int32(3, -4, 6), float32([0.5]), float32([1.0, 2.0, 4.0]), ONE, bias=float32(1, 2, 3)):
        assert_bits(q, torch.tensor([2, -2, 15], dtype=torch.int8))  # 2.5, -2, 15
    twelve = torch.tensor(12, dtype=torch.int32)
    for q in both("requantize", twelve, ONE, ONE, float32([2.0]), out_zero_point=int32(1), bias=float32(3.0)):
        assert_bits(q, torch.tensor(9, dtype=torch.int8))  # 7.5 -> 8, and 1


def fixed(acc, multiplier, **options):
    """Of a multiplier that float32 holds."""
    return both("requantize", acc, ONE, float32(multiplier), ONE, mode="fixed", **options)


def test_fixed_ties_by_hand():
    # M = 1/2: one rounding, of ties up. 0.5 -> 1, -0.5 -> 0, 1.5 -> 2, -1.5 -> -1
    for q in fixed(int32([1, -1, 3, -3, 0, 200]), 0.5):
        assert_bits(q, int8([1, 0, 2, -1, 0, 100]))
    # M = 1/4 = 2^30 * 2^-31 * 2^-1: halves first, ties up, then half of that, ties away from zero.
    # 1: 0.5 -> 1, 0.5 -> 1. 2: 1, 0.5 -> 1. -1: -0.5 -> 0. -2: -1, -0.5 -> -1. 5: 2.5 -> 3, 1.5 -> 2. -5: -2.5 -> -2,
    # -1. 6: 3, 1.5 -> 2. -6: -3, -1.5 -> -2
    for q in fixed(int32([1, 2, -1, -2, 5, -5, 6, -6]), 0.25):
        assert_bits(q, int8([1, 1, 0, -1, 2, -1, 2, -2]))
    # M = 2: a shift to the left by 2 of 2^30 * 2^-31.
    for q in fixed(int32([3, -3, 63, 64, -64, -65, INT32_MAX, INT32_MIN]), 2.0):
        assert_bits(q, int8([6, -6, 126, 127, -128, -128, 127, -128]))


def test_fixed_multipliers_by_hand():
    def multiplier(a_scale, b_scale=1.0, out_scale=1.0):
        significand, shift = reference.fixed_multiplier(*(float32(scale) for scale in (a_scale, b_scale, out_scale)))
        return significand.item(), shift.item()

    assert multiplier(1.0) == (2**30, 1)
    assert multiplier(0.75) == (3 * 2**29, 0)
    assert multiplier(0.1) == (Fraction(float32(0.1).item()) * 2**34, -3)
    # (1 - 2^-17) * (1 + 2^-17) = 1 - 2^-34 rounds to 2^31, which is 2^30 with another shift.
    assert multiplier(1 - 2.0**-17, 1 + 2.0**-17) == (2**30, 1)
    # (1 + 2^-10) * (1 + 2^-21) = 1 + 2^-10 + 2^-21 + 2^-31: half of the last place, which rounds away from zero.
    assert multiplier(1 + 2.0**-10, 1 + 2.0**-21) == (2**30 + 2**20 + 2**9 + 1, 1)
    # Beyond int32's bits: nothing is left, or everything saturates.
    assert multiplier(2.0**-32) == (2**30, -31)
    assert multiplier(2.0**-33) == (0, 0)
    assert multiplier(2.0**-149, 2.0**-149, 2.0**127) == (0, 0)
    assert multiplier(2.0**29) == (2**30, 30)
    assert multiplier(2.0**30) == (INT32_MAX, 30)
    assert multiplier(2.0**127, 2.0**127, 2.0**-149) == (INT32_MAX, 30)


def test_fixed_bias_is_a_part_of_the_product_and_wraps():
    for q in fixed(int32([10, 10, -7]), 0.5, bias=int32(1, -11, 7)):
        assert_bits(q, int8([6, 0, 0]))  # 5.5 -> 6, -0.5 -> 0
    for q in fixed(int32([INT32_MAX, INT32_MIN]), 2.0**-25, bias=int32(1, -1)):
        assert_bits(q, int8([-64, 64]))


def test_fixed_relu_ends_at_the_zero_point():
    for q in fixed(int32([-9, 9, 400]), 1.0, relu=True, out_zero_point=int32(-20)):
        assert_bits(q, int8([-20, -11, 127]))
    for q in fixed(int32([-9, 9]), 1.0, relu=True, out_zero_point=int32(-20), q_min=-15, q_max=-12):
        assert_bits(q, int8([-15, -12]))


# The definitions against the oracle


def test_oracle_knows_both_roundings():
    """Numbers of the oracle's own steps, worked out from gemmlowp's definitions."""
    high, divide = oracle.saturating_rounding_doubling_high_mul, oracle.rounding_divide_by_pot
    assert [high(x, 2**30) for x in (1, -1, 3, -3)] == [1, 0, 2, -1]
    assert (high(INT32_MIN, INT32_MIN), high(INT32_MIN, INT32_MAX)) == (INT32_MAX, -INT32_MAX)
    assert [divide(x, 1) for x in (1, -1, 3, -3, 2, -2)] == [1, -1, 2, -2, 1, -1]
    ends = (INT32_MAX, INT32_MIN, 2**30, 2**30 - 1, -(2**30), 1 - 2**30)
    assert [divide(x, 31) for x in ends] == [1, -1, 1, 0, -1, 0]
    assert [divide(x, 0) for x in (5, -5)] == [5, -5]


def hard_scales(draw, count):
    """Triples of scales: multipliers of every magnitude about int32's, with random, short and extreme significands."""

    def significand():
        return draw.choice((1.0, 1.5, 2 - 2.0**-23, 1 + 2.0**-23, 1 + draw.randrange(2**23) * 2.0**-23))

    for _ in range(count):
        exponents = [draw.randint(-20, 20), draw.randint(-20, 20)]
        exponents.append(sum(exponents) + draw.randint(-34, 34))
        yield [significand() * 2.0**exponent for exponent in exponents]
    yield from product((2.0**-149, 2.0**-126, 1.0, 3.4028234663852886e38), repeat=3)


def hard_products(draw, multiplier, shift, count):
    """Ends of int32, small numbers, and those whose result is near a code and half or a quarter of one."""
    yield from (0, 1, -1, 2, -2, 3, -3, INT32_MIN, INT32_MIN + 1, INT32_MAX, INT32_MAX - 1, 2**30, -(2**30))
    for _ in range(count):
        code = Fraction(draw.randint(-300, 300), draw.choice((1, 2, 4)))
        real = Fraction(max(multiplier, 1), 2**31) * Fraction(2) ** shift
        yield max(INT32_MIN, min(round(code / real) + draw.randint(-1, 1), INT32_MAX))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_fixed_is_tflites(device, code_dtype, relu):
    """A batch for each triple of scales, a column for each of its products."""
    draw = random.Random(1)
    limits = torch.iinfo(code_dtype)
    triples = list(hard_scales(draw, 500))
    rows = [list(hard_products(draw, *oracle.quantize_multiplier(*triple), 20)) for triple in triples]
    zeros = [draw.randint(limits.min, limits.max) for _ in triples]
    biases = [draw.choice((0, 0, 1, -1, draw.randint(INT32_MIN, INT32_MAX))) for _ in rows[0]]
    expected = [
        [
            oracle.requantize_fixed(acc, *triple, zero, limits.min, limits.max, bias, relu)
            for acc, bias in zip(row, biases, strict=True)
        ]
        for triple, row, zero in zip(triples, rows, zeros, strict=True)
    ]
    count, n = len(rows), len(rows[0])
    a_scale, b_scale, out_scale = (torch.tensor(scale)[:, None, None] for scale in zip(*triples, strict=True))
    arguments = (torch.tensor(rows, dtype=torch.int32)[:, None], a_scale, b_scale.expand(-1, 1, n))
    arguments = [tensor.to(device) for tensor in (*arguments, out_scale.expand(-1, 1, n))]
    options = {
        "out_zero_point": int32(*zeros)[:, None, None].expand(-1, 1, n).to(device),
        "bias": int32(*biases).to(device),
        "relu": relu,
        "dtype": code_dtype,
        "mode": "fixed",
    }
    expected = torch.tensor(expected, dtype=code_dtype).reshape(count, 1, n)
    assert_bits(reference.requantize(*arguments, **options), expected)
    assert_bits(ops.requantize(*arguments, **options), expected)


def test_float_is_a_product_scaled_and_quantized():
    draw = random.Random(2)
    rows = [[draw.randint(INT32_MIN, INT32_MAX) >> draw.randrange(31) for _ in range(40)] for _ in range(20)]
    a_scale, b_scale, out_scale, bias = scales(20, 1, seed=1), scales(1, 40), 64 * scales(1, 40, seed=3), normal(40)
    columns = list(zip(*(tensor.flatten().tolist() for tensor in (b_scale, bias, out_scale)), strict=True))
    expected = [
        [
            oracle.quantize(oracle.scale_product(acc, a, b, shift), out, 5, -128, 127)
            for acc, (b, shift, out) in zip(row, columns, strict=True)
        ]
        for row, a in zip(rows, a_scale.flatten().tolist(), strict=True)
    ]
    given = (int32(*rows), a_scale, b_scale, out_scale)
    for q in both("requantize", *given, bias=bias, out_zero_point=int32(5)):
        assert_bits(q, torch.tensor(expected, dtype=torch.int8))


# The op is its definition, and the matmul's last stage


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", CODE_DTYPES, ids=str)
def test_it_is_the_matmuls_last_stage(mode, dtype):
    for number, (a_shape, b_shape) in enumerate(BATCHES):
        a, b = codes(*a_shape), codes(*b_shape, seed=1)
        n = b_shape[-1]
        for row, column in zip(row_shapes(a_shape, b_shape), column_shapes(a_shape, b_shape), strict=True):
            points = {"a_zero_point": zero_points(*row), "b_zero_point": zero_points(*column, seed=2)}
            last = {**parameters(row, column, mode, n), "relu": number % 2 == 1, "dtype": dtype}
            last["out_scale"] = last["out_scale"] / 64
            fused = ops.int8_matmul_requantize(a, b, **points, **last)
            assert_bits(fused, reference.int8_matmul_requantize(a, b, **points, **last))
            assert_bits(ops.requantize(ops.int8_matmul(a, b, **points), **last), fused)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("device", DEVICES)
def test_edge_sizes(mode, device):
    for m, n in product(EDGE_SIZES, (*EDGE_SIZES, 300)):
        options = parameters((m, 1), (1, n), mode, n)
        there = {key: value.to(device) if torch.is_tensor(value) else value for key, value in options.items()}
        assert_as_defined(products(m, n).to(device), **there)


@pytest.mark.parametrize("mode", MODES)
def test_layouts(mode):
    for shape in ((37, 70), (2, 3, 5, 8), (2, 1, 2, 3, 4, 12)):
        row, column = (*shape[:-1], 1), (*shape[:-2], 1, shape[-1])
        for _, acc in layouts(products(*shape)):
            assert_as_defined(acc, **parameters(row, column, mode, shape[-1]))
            assert_as_defined(acc, **parameters((), (1, shape[-1]), mode, shape[-1]), relu=True)
            assert_as_defined(acc, **parameters((shape[-2], 1), (), mode))
    acc = products(3, 40)
    assert_as_defined(acc[:1].expand(6, 40), **parameters((6, 1), (1, 40), mode))
    every_second = {
        key: value.repeat_interleave(2, -1)[..., ::2] if torch.is_tensor(value) else value
        for key, value in parameters((3, 1), (1, 40), mode, 40).items()
    }
    every_second["a_scale"] = scales(3, 2)[:, :1]
    assert_as_defined(acc, **every_second)


def test_ranks():
    for rank in range(7):
        acc = products(*(2, 3, 2, 1, 3, 4)[:rank])
        for mode in MODES:
            assert_as_defined(acc, **parameters((), (), mode), relu=True)


def test_codes_lie_in_memory_as_products_do():
    """A convolution's result with its channels moved last is requantized where it is."""
    acc = products(2, 8, 5, 7).movedim(1, -1)
    q = assert_as_defined(acc, **parameters((), (1, 8), "fixed", 8))
    assert q.stride() == acc.stride()
    assert q.movedim(-1, 1).is_contiguous()


@pytest.mark.parametrize("mode", MODES)
def test_functions_unpack_params(mode):
    acc = products(6, 12, most=2**14)
    a = quaver.choose_qparams(normal(6, 5), quaver.PerToken(), symmetric=False)
    b = quaver.choose_qparams(normal(5, 12), quaver.PerChannel(1))
    out = quaver.choose_qparams(normal(6, 12) * 30, symmetric=False)
    options = {"mode": mode, "bias": bias_of(mode, 12)}
    expected = reference.requantize(acc, a.scale, b.scale, out.scale, out_zero_point=out.zero_point, **options)
    assert_bits(quaver.requantize(acc, a, b, out, **options), expected)


def test_biases_of_halves():
    acc, half = products(6, 12, most=2**10), normal(12, dtype=torch.float16)
    assert_bits(
        quaver.requantize(acc, ONE, ONE, ONE, bias=half), quaver.requantize(acc, ONE, ONE, ONE, bias=half.float())
    )
    with pytest.raises(RuntimeError, match=r"requantize: bias must be int32, got float16$"):
        quaver.requantize(acc, ONE, ONE, ONE, bias=half, mode="fixed")
    with pytest.raises(RuntimeError, match=r"int8_matmul_requantize: bias must be int32, got float16$"):
        quaver.int8_matmul_requantize(codes(6, 5), codes(5, 12), ONE, ONE, ONE, bias=half, mode="fixed")


def test_modes_differ_by_one_at_most():
    """Their roundings differ near ties, and a product's float32 is not the product."""
    acc = products(300, 64)
    options = parameters((300, 1), (1, 64))
    floating = ops.requantize(acc, **options).to(torch.int32)
    integer = ops.requantize(acc, **{**options, "mode": "fixed"}).to(torch.int32)
    differs = (floating - integer).abs()
    assert differs.max() == 1
    assert (differs > 0).float().mean() < 0.1
