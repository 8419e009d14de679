"""rms_norm_quantize: float rows, normalized, to codes, their parameters and sums, and the sum with a residual.
ARITHMETIC.md (11)."""

from itertools import product
from math import inf, nan

import pytest
import torch

import quaver
from quaver import reference
from tests.cases import DEVICES, EDGE_SIZES, EDGE_VALUES, FLOAT_DTYPES, assert_bits, layouts, normal
from tests.test_qparams import KINDS

op = torch.ops.quaver.rms_norm_quantize

WITHOUT_EPS = {name: {k: v for k, v in kind.items() if k != "eps"} for name, kind in KINDS.items()}
on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
for_each_kind = pytest.mark.parametrize("kind", WITHOUT_EPS.values(), ids=WITHOUT_EPS)
by_each = pytest.mark.parametrize("implementation", [reference.rms_norm_quantize, op], ids=["reference", "op"])


def check(x, weight, **options):
    """Every result is the reference's, and contiguous."""
    actual = op(x, weight, return_row_sum=True, **options)
    expected = reference.rms_norm_quantize(x, weight, return_row_sum=True, **options)
    for got, wanted in zip(actual, expected, strict=True):
        assert_bits(got, wanted)
        assert got.is_contiguous()
    return actual


# Hand numbers.


@on_each_device
@by_each
@pytest.mark.parametrize(
    ("x", "weight", "kind", "codes", "scale", "zero_point", "row_sum"),
    [
        # The mean of squares is 12.5; with 3.5 it is 16, whose root is 4. 3 / 4 * 4 = 3, 4 / 4 * 127 = 127.
        ([3.0, 4.0], [4.0, 127.0], {"eps": 3.5}, [3, 127], 1.0, 0, 130),
        # A mean of 1, a root of 2; y = [-10, 500, 101, 0], whose codes dynamic_quantize's hand numbers know.
        (
            *([1.0, 1.0, -1.0, 1.0], [-20.0, 1000.0, -202.0, 0.0], {"eps": 3.0, "symmetric": False}),
            *([-128, 127, -73, -123], 2.0, -123, -197),
        ),
        ([0.0, -0.0], [1.0, 2.0], {"symmetric": False, "dtype": torch.uint8}, [0, 0], 1.0, 0, 0),
        # An infinity makes the factor 0, and itself NaN. So do squares that overflow, but for the NaN.
        ([nan, 1.0], [1.0, 1.0], {"symmetric": False}, [-128, -128], 1.0, -128, -256),
        ([inf, 1.0, -1.0], [1.0, 1.0, 1.0], {}, [0, 0, 0], 1.0, 0, 0),
        ([1e20, -1e20], [1.0, 1.0], {}, [0, 0], 1.0, 0, 0),
        # What the weight makes infinite saturates; NaN becomes the zero point.
        ([1.0, 1.0, 1.0], [inf, 254.0, nan], {"eps": 3.0}, [127, 127, 0], 1.0, 0, 254),
        ([], [], {}, [], 1.0, 0, 0),
        ([], [], {"symmetric": False}, [], 1.0, -128, 0),
    ],
)
def test_hand_numbers(device, implementation, x, weight, kind, codes, scale, zero_point, row_sum):
    x, weight = torch.tensor(x, device=device), torch.tensor(weight, device=device)
    actual = implementation(x, weight, **kind, return_row_sum=True)
    expected = (
        torch.tensor(codes, dtype=kind.get("dtype", torch.int8)),
        torch.tensor([scale]),
        torch.tensor([zero_point], dtype=torch.int32),
        torch.tensor([row_sum], dtype=torch.int32),
        torch.empty(0),
    )
    for got, wanted in zip(actual, expected, strict=True):
        assert_bits(got, wanted)


@on_each_device
@by_each
def test_the_sum_with_the_residual_is_rounded_once_and_then_normalized(device, implementation):
    """256 + 1 is half way between bfloat16's 256 and 258, 256 + 3 between 258 and 260; the even ones are taken."""
    x = torch.tensor([256.0, 256.0], dtype=torch.bfloat16, device=device)
    residual = torch.tensor([1.0, 3.0], dtype=torch.bfloat16, device=device)
    weight = torch.tensor([2.0, 0.0], device=device)
    eps = 2.0**18 - (256**2 + 260**2) / 2  # so that the root is 512 and y = [256 / 512 * 2, 0]
    *_, scale, _, _, residual_out = implementation(x, weight, residual=residual, eps=eps)
    assert_bits(residual_out, torch.tensor([256.0, 260.0], dtype=torch.bfloat16))
    assert_bits(scale, torch.tensor([1.0]) / torch.tensor([127.0]))


@on_each_device
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([4096.0, 1.0, 1.0, 1.0], 2**24 + 2),  # 2^24 + 1 is 2^24, and 1 + 1 comes to it
        ([1.0, 4096.0, 1.0, 1.0], 2**24 + 2),
        ([4096.0, 0.0, 1.0, 0.0], 2**24),
        ([4096.0, 1.0, 0.0, 1.0], 2**24 + 2),  # not the neighbours first
        ([4096.0, 1.0, 1.0], 2**24),
        ([4096.0, 0.0, 0.0, 0.0, 1.0, 1.0], 2**24),  # 0 and 4, then 1 and 5
        ([4096.0, 1.0, 0.0, 1.0, 0.0, 0.0], 2**24 + 2),
        ([3.0], 9),
    ],
)
def test_squares_are_summed_by_halving(device, row, expected):
    assert_bits(reference.sum_of_squares(torch.tensor([row], device=device)), torch.tensor([[float(expected)]]))
    # The op too: the scale shows the sum, as far as the root does.
    check(torch.tensor([row], device=device), torch.ones(len(row), device=device))


def test_the_references_square_root_is_the_nearest():
    """For torch.sqrt 16256.5 is a hard one; here exact squares and their neighbours are, and numbers between."""
    roots = torch.cat([torch.arange(4097.0), 1 + torch.rand(10000, generator=torch.Generator().manual_seed(0))])
    values = torch.cat([roots**2, torch.nextafter(roots**2, roots + 1e9), torch.tensor([16256.5, 1e-45, inf])])
    actual = reference.square_root(values).double()
    below, above = (torch.nextafter(actual.float(), torch.tensor(to)).double() for to in (-inf, inf))
    # m^2 of a midpoint m with 25 bits has 50: exact in float64.
    finite = values.isfinite() & (values > 0)
    assert (((actual + below) / 2)[finite] ** 2 <= values[finite].double()).all()
    assert (((actual + above) / 2)[finite] ** 2 >= values[finite].double()).all()
    assert actual[~finite].tolist() == [0.0, inf]


# The op is the reference, bit for bit.


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("weight_dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("with_residual", [False, True])
def test_dtypes(device, dtype, weight_dtype, with_residual):
    x = (3 * normal(19, 300)).to(device, dtype)
    residual = {"residual": normal(19, 300, seed=1, dtype=dtype).to(device)} if with_residual else {}
    weight = normal(300, dtype=weight_dtype, seed=2).to(device)
    check(x, weight, **residual)
    check(x, weight.repeat_interleave(2)[::2], symmetric=False, eps=0.1, **residual)


@on_each_device
@for_each_dtype
@for_each_kind
def test_edge_values(device, dtype, kind):
    x = EDGE_VALUES.repeat(8).reshape(-1, 8).to(device, dtype)
    for weight in (torch.ones(8), EDGE_VALUES[-8:], 1e38 * torch.ones(8), 1e-38 * torch.ones(8)):
        check(x, weight.to(device), **kind)
        check(x, weight.to(device), residual=x.flip(0), eps=1e-46, **kind)
    check(x * 0, torch.ones(8, device=device), eps=1e-46, **kind)


@on_each_device
@for_each_dtype
def test_layouts(device, dtype):
    for shape in ((67,), (7, 13), (6, 72), (2, 3, 4, 5)):
        weight = normal(shape[-1]).to(device)
        views = [view.to(device) for _, view in layouts(normal(*shape, dtype=dtype))]
        others = [view.to(device) for _, view in layouts(normal(*shape, dtype=dtype, seed=1))]
        for x, residual in product(views, [None, *others]):
            check(x, weight, residual=residual)
    for shape in ((5, 1), (1, 40), (1, 1)):  # repeated by strides of 0
        x = normal(*shape, dtype=dtype).to(device).expand(5, 40)
        check(x, normal(1).to(device).expand(40), residual=x)


@on_each_device
@for_each_dtype
@pytest.mark.parametrize("size", [*EDGE_SIZES, 1000, 1024, 4096, 16383, 16384])
def test_sizes(device, dtype, size):
    x, weight = normal(5, size, dtype=dtype).to(device), normal(size, seed=1).to(device)
    check(x, weight, symmetric=False, dtype=torch.uint8)
    check(x[:0], weight)
    check(x[0], weight, residual=x[1])


@on_each_device
@pytest.mark.parametrize("shape", [(1001, 97), (7, 11, 1003), (1, 2, 1, 3, 4, 500)], ids=str)
def test_more_than_one_thread(device, shape):
    x = normal(*shape).to(device)
    check(x, normal(shape[-1]).to(device), residual=x.flip(0), symmetric=False)


# What a user relies on.


@on_each_device
@for_each_dtype
def test_the_function_gives_what_was_asked_for(device, dtype):
    x, weight = normal(2, 7, 40, dtype=dtype).to(device), normal(40).to(device)
    q, scale, zero_point, row_sum, h = op(x, weight, residual=x, symmetric=False, return_row_sum=True)
    assert_bits(row_sum, q.to(torch.int32).sum(-1, keepdim=True, dtype=torch.int32))
    assert_bits(h, x + x)
    for with_sum, residual in product((False, True), (None, x)):
        got_q, params, *rest = quaver.rms_norm_quantize(
            x if residual is not None else h, weight, residual=residual, symmetric=False, return_row_sum=with_sum
        )
        for got, wanted in ((got_q, q), (params.scale, scale), (params.zero_point, zero_point)):
            assert_bits(got, wanted)
        assert (params.q_min, params.q_max, params.symmetric) == (-128, 127, False)
        wanted = [row_sum] * with_sum + [h] * (residual is not None)
        for got, want in zip(rest, wanted, strict=True):
            assert_bits(got, want)


@on_each_device
@for_each_dtype
def test_near_the_exact_norm(device, dtype):
    """|dequantize(q) - y| <= scale * (1/2 + 2^-11) for the exact y.

    In shares of y, with u = 2^-24: the 10 halvings of 1024 squares, each rounded too, the mean and the sum with eps err
    by at most 13u together, half of it after the root; the root, the division and two products by 4u: less than 11u.
    |y| is at most 127 (1 + 3u) scales, so this is less than 2^-13 of one; (5)'s half a step is within 2^-12.
    """
    x = (normal(200, 1024) * torch.exp2(torch.linspace(-6, 6, 200))[:, None]).to(device, dtype)
    weight = normal(1024, seed=1).to(device)
    q, params = quaver.rms_norm_quantize(x, weight)
    wide = x.double()
    exact = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    error = (quaver.dequantize(q, params).double() - exact).abs()
    assert (error <= params.scale.double() * (0.5 + 2**-11)).all()


@on_each_device
def test_a_layer_of_a_transformer(device):
    """Norm, quantization and product, against the same in floats."""
    x, weight = normal(9, 256).to(device), normal(30, 256, seed=1).to(device)
    gain = 1 + normal(256, seed=2).to(device) / 4
    weight_q, weight_params = quaver.dynamic_quantize(weight)
    q, params, row_sum = quaver.rms_norm_quantize(x, gain, symmetric=False, return_row_sum=True)
    y = quaver.int8_matmul_dequantize(q, weight_q.t(), params, weight_params.t(), a_sum=row_sum)
    assert_bits(y, quaver.int8_matmul_dequantize(q, weight_q.t(), params, weight_params.t()))
    exact = torch.nn.functional.rms_norm(x, (256,), gain, 1e-6) @ weight.t()
    assert torch.dist(y, exact) <= 0.02 * exact.norm()
