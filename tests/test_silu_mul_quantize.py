"""silu_mul_quantize: rows of silu(gate) * up to codes, their parameters and sums. ARITHMETIC.md (12)."""

from itertools import product
from math import inf, nan

import pytest
import torch

import quaver
from quaver import reference
from tests.cases import DEVICES, EDGE_SIZES, EDGE_VALUES, FLOAT_DTYPES, assert_bits, layouts, normal
from tests.test_rms_norm_quantize import WITHOUT_EPS

op = torch.ops.quaver.silu_mul_quantize

on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
for_each_kind = pytest.mark.parametrize("kind", WITHOUT_EPS.values(), ids=WITHOUT_EPS)
by_each = pytest.mark.parametrize("implementation", [reference.silu_mul_quantize, op], ids=["reference", "op"])


def check(gate, up, **options):
    """Every result is the reference's, and contiguous."""
    actual = op(gate, up, return_row_sum=True, **options)
    expected = reference.silu_mul_quantize(gate, up, return_row_sum=True, **options)
    for got, wanted in zip(actual, expected, strict=True):
        assert_bits(got, wanted)
        assert got.is_contiguous()
    return actual


# Hand numbers.


@on_each_device
@by_each
@pytest.mark.parametrize(
    ("gate", "up", "kind", "codes", "scale", "zero_point", "row_sum"),
    [
        # From 17 on exp(-g) is less than half of what 1 has below it in float32: silu(g) = g. From -89 on exp(-g) is
        # infinite and silu(g) is -0.
        ([127.0, 64.0, 20.0, -200.0, 0.0], [1.0, 0.5, -1.0, 3.0, 5.0], {}, [127, 32, -20, 0, 0], 1.0, 0, 139),
        (
            *([20.0, 20.0, 101.0, 0.0], [-0.5, 25.0, 1.0, 9.0], {"symmetric": False}),
            *([-128, 127, -73, -123], 2.0, -123, -197),
        ),
        ([-0.0, -200.0], [1.0, -1.0], {"symmetric": False, "dtype": torch.uint8}, [0, 0], 1.0, 0, 0),
        # The range is that of finite products. Minus infinity over infinity is no number.
        (
            [127.0, inf, inf, -inf, nan, inf],
            [1.0, 1.0, -1.0, 1.0, 1.0, 0.0],
            {},
            [127, 127, -127, 0, 0, 0],
            1.0,
            0,
            127,
        ),
        ([127.0, 20.0], [1.0, nan], {"symmetric": False, "q_min": 0}, [127, 0], 1.0, 0, 127),
        ([], [], {"symmetric": False}, [], 1.0, -128, 0),
    ],
)
def test_hand_numbers(device, implementation, gate, up, kind, codes, scale, zero_point, row_sum):
    gate, up = torch.tensor(gate, device=device), torch.tensor(up, device=device)
    actual = implementation(gate, up, **kind, return_row_sum=True)
    expected = (
        torch.tensor(codes, dtype=kind.get("dtype", torch.int8)),
        torch.tensor([scale]),
        torch.tensor([zero_point], dtype=torch.int32),
        torch.tensor([row_sum], dtype=torch.int32),
    )
    for got, wanted in zip(actual, expected, strict=True):
        assert_bits(got, wanted)


# The exponential.


@on_each_device
def test_ends_of_the_exponential(device):
    """Exact powers, the last finite and the first infinite, denormals, the last number that is not 0, and no number."""
    x = torch.tensor([0.0, -0.0, 88.72283, 88.722839, inf, -103.97208, -103.97209, -104.0, -inf, nan], device=device)
    largest = reference.exponential(x[2:3]).item()
    assert 3.4027e38 < largest < 3.4028236e38
    expected = torch.tensor([1.0, 1.0, largest, inf, inf, 1e-45, 0.0, 0.0, 0.0, nan])
    assert_bits(reference.exponential(x), expected)


def error_of_the_exponential(x):
    """The largest error in units of the last place of the exact result, that of denormals being 2^-149."""
    exact = torch.exp(x.double())
    _, exponent = torch.frexp(exact)
    unit = torch.exp2((exponent - 24).clamp(min=-149).double())
    return ((reference.exponential(x).double() - exact).abs() / unit).max().item()


LARGEST_ERROR = 0.97
LOWEST, HIGHEST = -104.0, 88.72283


def test_the_exponential_is_within_a_unit_in_the_last_place():
    """float64's own exponential errs by 2^-28 of such a unit."""
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.rand(2**20, generator=generator) * (HIGHEST - LOWEST) + LOWEST
    near_one = torch.randn(2**20, generator=generator)
    small = torch.exp2(torch.rand(2**18, generator=generator) * -40) * torch.tensor([1.0, -1.0]).repeat(2**17)
    # Where the reduction goes from one power of 2 to the next, r is largest.
    halves = ((torch.arange(-150, 128) + 0.5) * 0.6931471805599453).clamp(LOWEST, HIGHEST)
    steps = torch.arange(-500, 500, dtype=torch.int32)
    seams = (halves.view(torch.int32)[:, None] + steps).view(torch.float32).flatten().clamp(LOWEST, HIGHEST)
    for x in (everywhere, near_one, small, seams):
        assert error_of_the_exponential(x) <= LARGEST_ERROR


@pytest.mark.deep
def test_the_exponential_of_every_number():
    """Of every float32 from -104 to the last with a finite result, save those next to 0, whose result is 1."""
    worst = 0.0
    for sign, end in ((0, HIGHEST), (-(2**31), -LOWEST)):
        first, last = (torch.tensor(value).view(torch.int32).item() for value in (2.0**-26, end))
        for begin in range(first, last + 1, 2**24):
            bits = torch.arange(begin, min(begin + 2**24, last + 1), dtype=torch.int64) + sign
            worst = max(worst, error_of_the_exponential(bits.to(torch.int32).view(torch.float32)))
    assert 0.9 < worst <= LARGEST_ERROR


# The op is the reference, bit for bit.


@on_each_device
@for_each_dtype
@for_each_kind
def test_edge_values(device, dtype, kind):
    near = torch.cat([EDGE_VALUES, torch.linspace(-110, 110, 4000), -torch.exp2(torch.linspace(-30, 7, 400))])
    gate = near.to(device, dtype)
    up = EDGE_VALUES.to(device, dtype)
    check(gate.expand(len(up), -1), up[:, None].expand(-1, len(gate)), **kind)
    check(up.expand(len(up), -1), up[:, None].expand(-1, len(up)), **kind)


@on_each_device
@for_each_dtype
def test_layouts(device, dtype):
    for shape in ((67,), (7, 13), (6, 72), (2, 3, 4, 5)):
        gates = [view.to(device) for _, view in layouts(3 * normal(*shape, dtype=dtype))]
        ups = [view.to(device) for _, view in layouts(normal(*shape, dtype=dtype, seed=1))]
        for gate, up in product(gates, ups):
            check(gate, up, symmetric=False)
    for shape in ((5, 1), (1, 40), (1, 1)):  # repeated by strides of 0
        gate = normal(*shape, dtype=dtype).to(device).expand(5, 40)
        check(gate, gate)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("size", [*EDGE_SIZES, 1000, 4096, 16383, 16384])
def test_halves_of_one_tensor(device, dtype, size):
    both = (4 * normal(5, 2 * size)).to(device, dtype)
    gate, up = both.chunk(2, -1) if size else (both, both)
    check(gate, up, symmetric=False, dtype=torch.uint8)
    check(gate[:0], up[:0])
    check(gate[0], up[1])


@on_each_device
@pytest.mark.parametrize("shape", [(1001, 97), (7, 11, 1003), (1, 2, 1, 3, 4, 500)], ids=str)
def test_more_than_one_thread(device, shape):
    gate = normal(*shape).to(device)
    check(gate, gate.flip(0), symmetric=False)


# What a user relies on.


@on_each_device
@for_each_dtype
def test_the_function_gives_what_was_asked_for(device, dtype):
    gate, up = normal(2, 7, 80, dtype=dtype).to(device).chunk(2, -1)
    q, scale, zero_point, row_sum = op(gate, up, symmetric=False, return_row_sum=True)
    assert_bits(row_sum, q.to(torch.int32).sum(-1, keepdim=True, dtype=torch.int32))
    for with_sum in (False, True):
        got_q, params, *rest = quaver.silu_mul_quantize(gate, up, symmetric=False, return_row_sum=with_sum)
        for got, wanted in ((got_q, q), (params.scale, scale), (params.zero_point, zero_point)):
            assert_bits(got, wanted)
        assert (params.q_min, params.q_max, params.symmetric) == (-128, 127, False)
        for got, wanted in zip(rest, [row_sum] * with_sum, strict=True):
            assert_bits(got, wanted)


@on_each_device
@for_each_dtype
def test_near_the_exact_product(device, dtype):
    """|dequantize(q) - y| <= scale * (1/2 + 2^-11) for the exact y.

    In shares of y, with u = 2^-24: exp errs by 2u, its sum with 1, the division and the product by u each: less than
    6u, and |y| is at most 127 (1 + 3u) scales, so this is less than 2^-13 of one; (5)'s half a step is within 2^-12.
    """
    gate, up = (3 * normal(200, 1024)).to(device, dtype).chunk(2, -1)
    q, params = quaver.silu_mul_quantize(gate, up)
    exact = torch.nn.functional.silu(gate.double()) * up.double()
    error = (quaver.dequantize(q, params).double() - exact).abs()
    assert (error <= params.scale.double() * (0.5 + 2**-11)).all()
