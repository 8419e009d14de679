"""The law itself: quaver.reference against exact rationals (tests/oracle.py) on values chosen to round badly.

Every other test trusts the reference. This one does not: about 4 * 10^5 of its results are computed again without
floating-point arithmetic.
"""

import random
import struct
from fractions import Fraction
from math import inf, isfinite, nan

import pytest
import torch

from quaver import reference
from tests import oracle
from tests.cases import CODE_DTYPES, DEVICES, EDGE_SCALES, EDGE_VALUES, MODES, codes, zero_points

FORMATS = {torch.float32: oracle.FLOAT32, torch.float16: oracle.FLOAT16, torch.bfloat16: oracle.BFLOAT16}
LARGEST = oracle.rounded(Fraction(2) ** 128 - Fraction(2) ** 104)
SCALES = [oracle.rounded(Fraction(scale)) for scale in EDGE_SCALES]
EDGES = EDGE_VALUES.tolist()

on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_float = pytest.mark.parametrize("dtype", FORMATS, ids=str)


def assert_exact(actual, expected, dtype):
    """The same values, -0 apart from 0 and NaN equal to NaN: compared outside torch."""
    assert actual.dtype == dtype
    pairs = enumerate(zip(actual.flatten().tolist(), expected, strict=True))
    wrong = [(index, got, wanted) for index, (got, wanted) in pairs if repr(got) != repr(wanted)]
    assert not wrong, f"{len(wrong)} of {len(expected)} differ, first (index, reference, exact): {wrong[:3]}"


def random_scales(draw, count, low=-140, high=120):
    """Positive float32 numbers of all magnitudes, denormal ones too."""
    return [
        oracle.rounded(draw.randrange(2**23, 2**24) * oracle.power_of_two(draw.randint(low, high) - 23))
        for _ in range(count)
    ]


# The oracle.


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (1 + Fraction(1, 2**24), oracle.FLOAT32, 1.0),  # half way between 1 and 1 + 2^-23: 1 is even
        (1 + Fraction(3, 2**24), oracle.FLOAT32, 1 + 2.0**-22),  # half way again: the odd one is below now
        (1 + Fraction(1, 2**24) + Fraction(1, 2**99), oracle.FLOAT32, 1 + 2.0**-23),  # hardly more than half way
        (2 - Fraction(1, 2**25), oracle.FLOAT32, 2.0),  # carries into the next exponent
        (Fraction(1, 2**150), oracle.FLOAT32, 0.0),  # half the smallest denormal
        (Fraction(-3, 2**150), oracle.FLOAT32, -(2.0**-148)),
        (Fraction(2**128 - 2**103), oracle.FLOAT32, inf),  # half a unit above the largest number
        (Fraction(2**128 - 2**103) - Fraction(1, 2**99), oracle.FLOAT32, LARGEST),
        (Fraction(65520), oracle.FLOAT16, inf),
        (Fraction(65519), oracle.FLOAT16, 65504.0),
        (Fraction(3, 2**25), oracle.FLOAT16, 2.0**-23),  # 1.5 denormals
        (1 + Fraction(3, 2**8), oracle.BFLOAT16, 1 + 2.0**-6),
    ],
)
def test_rounded_by_hand(value, form, expected):
    assert repr(oracle.rounded(value, form)) == repr(expected)


@pytest.mark.parametrize(("form", "code"), [(oracle.FLOAT32, "<f"), (oracle.FLOAT16, "<e")])
def test_rounded_as_the_interpreter_packs_floats(form, code):
    draw = random.Random(0)
    for _ in range(2000):
        value = draw.uniform(-2, 2) * 2.0 ** draw.randint(form.smallest - 2, form.limit - 2)
        packed = struct.unpack(code, struct.pack(code, value))[0]
        assert repr(oracle.convert(value, form)) == repr(packed)


# (4)


@on_each_device
@pytest.mark.parametrize(
    ("symmetric", "code_dtype", "q_min", "q_max"),
    [
        (True, torch.int8, -127, 127),
        (True, torch.int8, -7, 7),
        (True, torch.uint8, 0, 255),
        (False, torch.int8, -128, 127),
        (False, torch.uint8, 0, 255),
        (False, torch.uint8, 16, 235),
        (False, torch.int8, -1, 1),
    ],
)
@pytest.mark.parametrize("eps", [None, 1e-8, 0.75])
def test_choose_qparams(device, symmetric, code_dtype, q_min, q_max, eps):
    draw = random.Random(q_max)
    edges = [[low, high] for low in EDGES[::3] for high in EDGES[::2]]
    anywhere = [[-low, high] for low, high in zip(random_scales(draw, 200), random_scales(draw, 200), strict=True)]
    # With a scale of exactly 2^e the zero point's quotient is a tie.
    ties = [[-(k + 0.5) * 2.0**e, (q_max - q_min - k - 0.5) * 2.0**e] for k in range(q_max - q_min) for e in (-60, 0)]
    blocks = edges + anywhere + ties
    blocks += [[-3e38, 3e38], [-LARGEST, LARGEST], [0.0, LARGEST], [nan, inf], [-inf, -1e38], [2.0**-149, 0.0]]
    blocks = [[oracle.rounded(Fraction(v)) if isfinite(v) else v for v in block] for block in blocks]

    scale, zero_point = reference.choose_qparams(
        torch.tensor(blocks, device=device),
        (len(blocks), 1),
        symmetric=symmetric,
        dtype=code_dtype,
        q_min=q_min,
        q_max=q_max,
        eps=eps,
    )
    expected = [
        oracle.choose_qparams(block, symmetric=symmetric, q_min=q_min, q_max=q_max, eps=eps or 0.0) for block in blocks
    ]
    assert_exact(scale, [scale for scale, _ in expected], torch.float32)
    assert_exact(zero_point, [zero_point for _, zero_point in expected], torch.int32)


# (2)


def check_quantize(rows, scales, zero_points, dtype, code_dtype, mode, device):
    """One row of x for each scale and zero point: quantize, and with its codes (9)."""
    limits = torch.iinfo(code_dtype)
    seed = -(2**40) - len(rows)
    arguments = [
        torch.tensor(rows, dtype=dtype, device=device),
        torch.tensor(scales, device=device)[:, None],
        torch.tensor(zero_points, dtype=torch.int32, device=device)[:, None],
    ]
    options = {"dtype": code_dtype, "mode": mode, "seed": seed}
    of_rows = [[scale, zero] for row, scale, zero in zip(rows, scales, zero_points, strict=True) for _ in row]
    xs = [x for row in rows for x in row]
    drawn = [oracle.uniform(i, seed) if mode == "stochastic" else None for i in range(len(xs))]
    expected = [
        oracle.quantize(x, *of_row, limits.min, limits.max, mode, u)
        for x, of_row, u in zip(xs, of_rows, drawn, strict=True)
    ]
    assert_exact(reference.quantize(*arguments, **options), expected, code_dtype)
    real = [oracle.dequantize(code, *of_row, FORMATS[dtype]) for code, of_row in zip(expected, of_rows, strict=True)]
    assert_exact(reference.fake_quantize(*arguments, **options), real, dtype)
    unclamped = [oracle.unclamped_code(x, *of_row, mode, u) for x, of_row, u in zip(xs, of_rows, drawn, strict=True)]
    within = [code is not None and limits.min <= code <= limits.max for code in unclamped]
    assert_exact(reference.fake_quantize_mask(*arguments, **options), within, torch.bool)


@on_each_device
@for_each_float
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_quantize_around_ties(device, dtype, code_dtype, mode):
    """x on (k + 1/2) * scale and a unit in the last place beside it, for scales of all magnitudes."""
    draw = random.Random(len(mode))
    limits = torch.iinfo(code_dtype)
    scales = SCALES + random_scales(draw, 40)
    offsets = [draw.randint(limits.min, limits.max) for _ in scales]
    rows = []
    for scale in scales:
        halves = [0, 1, 2, 3, 126, 127, 128, 254, 255, *(draw.randrange(260) for _ in range(11))]
        ties = [x for k in halves for x in oracle.neighbours((k + Fraction(1, 2)) * Fraction(scale), FORMATS[dtype])]
        rows.append([draw.choice((1, -1)) * x for x in ties])
    check_quantize(rows, scales, offsets, dtype, code_dtype, mode, device)


@on_each_device
@for_each_float
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("zero_point", [-128, 0, 3, 127])
def test_quantize_edges(device, dtype, mode, zero_point):
    row = [oracle.convert(x, FORMATS[dtype]) for x in EDGES]
    check_quantize([row] * len(SCALES), SCALES, [zero_point] * len(SCALES), dtype, torch.int8, mode, device)


# (5)


@on_each_device
@pytest.mark.parametrize("symmetric", [True, False])
def test_dynamic_quantize(device, symmetric):
    draw = random.Random(1)
    rows = [[draw.uniform(-3, 2) * scale for _ in range(16)] for scale in random_scales(draw, 50)]
    rows = [[oracle.convert(x, oracle.FLOAT32) for x in row] for row in rows]
    q_min, q_max = (-127, 127) if symmetric else (-128, 127)
    q, scale, zero_point, row_sum = reference.dynamic_quantize(
        torch.tensor(rows, device=device), (len(rows), 1), symmetric=symmetric, return_row_sum=True
    )
    params = [oracle.choose_qparams(row, symmetric=symmetric, q_min=q_min, q_max=q_max) for row in rows]
    expected = [
        [oracle.quantize(x, *chosen, q_min, q_max) for x in row] for row, chosen in zip(rows, params, strict=True)
    ]
    assert_exact(scale, [scale for scale, _ in params], torch.float32)
    assert_exact(zero_point, [zero_point for _, zero_point in params], torch.int32)
    assert_exact(q, [code for row in expected for code in row], torch.int8)
    assert_exact(row_sum, [sum(row) for row in expected], torch.int32)


# (11) and (12), by their codes and scales


def check_rows_to_codes(actual, ys, symmetric):
    q_min, q_max = (-127, 127) if symmetric else (-128, 127)
    params = [oracle.choose_qparams(y, symmetric=symmetric, q_min=q_min, q_max=q_max) for y in ys]
    expected = [[oracle.quantize(v, *chosen, q_min, q_max) for v in y] for y, chosen in zip(ys, params, strict=True)]
    q, scale, zero_point, row_sum = actual[:4]
    assert_exact(scale, [scale for scale, _ in params], torch.float32)
    assert_exact(zero_point, [zero_point for _, zero_point in params], torch.int32)
    assert_exact(q, [code for row in expected for code in row], torch.int8)
    assert_exact(row_sum, [sum(row) for row in expected], torch.int32)


@on_each_device
@for_each_float
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("length", [1, 3, 8, 21])
def test_rms_norm_quantize(device, dtype, symmetric, length):
    draw = random.Random(length)
    form = FORMATS[dtype]
    low, high = (-20, 10) if dtype == torch.float16 else (-100, 60)
    sizes = random_scales(draw, 30, low, high)

    def rows():
        return [[oracle.convert(draw.gauss(0, 1) * size, form) for _ in range(length)] for size in sizes]

    xs, residuals = rows(), rows()
    weight = [oracle.convert(draw.gauss(0, 1), oracle.BFLOAT16) for _ in range(length)]
    sums = [
        [oracle.convert(oracle.add(a, b), form) for a, b in zip(x, residual, strict=True)]
        for x, residual in zip(xs, residuals, strict=True)
    ]
    for residual, hs, eps in ((None, xs, 1e-6), (residuals, sums, 1e-30)):
        actual = reference.rms_norm_quantize(
            torch.tensor(xs, dtype=dtype, device=device),
            torch.tensor(weight, dtype=torch.bfloat16, device=device),
            residual=None if residual is None else torch.tensor(residual, dtype=dtype, device=device),
            eps=eps,
            symmetric=symmetric,
            return_row_sum=True,
        )
        check_rows_to_codes(actual, [oracle.rms_norm(h, weight, eps) for h in hs], symmetric)
        assert_exact(actual[4], [] if residual is None else [h for row in sums for h in row], dtype)


@on_each_device
@pytest.mark.parametrize("value", [2.0, 0.25, 0.0, 1e-45, 16256.5, 1.0000001, 3.4028235e38])
def test_square_root(device, value):
    value = oracle.rounded(Fraction(value))
    root = oracle.square_root(value)
    half = oracle.power_of_two(oracle.unit_exponent(Fraction(root), oracle.FLOAT32)) / 2 if root else 0
    assert (Fraction(root) - half) ** 2 <= Fraction(value) <= (Fraction(root) + half) ** 2
    assert_exact(reference.square_root(torch.tensor([value], device=device)), [root], torch.float32)


def hard_exponents(draw):
    """Of all sizes, around the seams of the reduction, where results overflow, are denormal and vanish."""
    usual = [draw.uniform(-104, 89) for _ in range(600)] + [draw.gauss(0, 1) for _ in range(300)]
    tiny = [draw.choice((1, -1)) * size for size in random_scales(draw, 200, -149, 2)]
    seams = [(n + 0.5) * 0.6931471805599453 for n in range(-151, 130)]
    ends = [88.72283, 88.722839, 89.0, 1e30, LARGEST, -87.3, -103.97208, -103.97209, -104.0, -1e30]
    return [oracle.rounded(Fraction(x)) for x in usual + tiny + seams + ends] + [0.0, -0.0, inf, -inf, nan]


@on_each_device
def test_exponential_and_silu(device):
    xs = hard_exponents(random.Random(2))
    xs += [-x for x in xs]
    on_device = torch.tensor(xs, device=device)
    assert_exact(reference.exponential(on_device), [oracle.exponential(x) for x in xs], torch.float32)
    assert_exact(reference.silu(on_device), [oracle.silu(x) for x in xs], torch.float32)


@on_each_device
@for_each_float
@pytest.mark.parametrize("symmetric", [True, False])
def test_silu_mul_quantize(device, dtype, symmetric):
    draw = random.Random(3)
    form = FORMATS[dtype]
    gates = [[oracle.convert(draw.gauss(0, 6), form) for _ in range(16)] for _ in range(60)]
    ups = [[oracle.convert(draw.gauss(0, 1), form) for _ in range(16)] for _ in range(60)]
    actual = reference.silu_mul_quantize(
        torch.tensor(gates, dtype=dtype, device=device),
        torch.tensor(ups, dtype=dtype, device=device),
        symmetric=symmetric,
        return_row_sum=True,
    )
    ys = [
        [oracle.multiply(oracle.silu(g), u) for g, u in zip(gate, up, strict=True)]
        for gate, up in zip(gates, ups, strict=True)
    ]
    check_rows_to_codes(actual, ys, symmetric)


# (6)


@on_each_device
@pytest.mark.parametrize("a_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("b_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize(("a_zero", "b_zero"), [(False, False), (True, False), (False, True), (True, True)])
def test_int8_matmul(device, a_dtype, b_dtype, a_zero, b_zero):
    a, b = codes(5, 33, dtype=a_dtype), codes(33, 7, dtype=b_dtype, seed=1)
    a_zero_point = zero_points(5, 1, dtype=a_dtype) if a_zero else torch.zeros(5, 1, dtype=torch.int32)
    b_zero_point = zero_points(1, 7, dtype=b_dtype) if b_zero else torch.zeros(1, 7, dtype=torch.int32)
    actual = reference.int8_matmul(
        a.to(device),
        b.to(device),
        a_zero_point=a_zero_point.to(device) if a_zero else None,
        b_zero_point=b_zero_point.to(device) if b_zero else None,
    )
    expected = oracle.product(
        a.tolist(), b.t().tolist(), a_zero_point.flatten().tolist(), b_zero_point.flatten().tolist()
    )
    assert_exact(actual, [acc for row in expected for acc in row], torch.int32)


@on_each_device
@pytest.mark.parametrize(
    ("a", "b", "a_zero_point", "b_zero_point", "k"),
    [
        (-128, -128, 0, 0, 131_071),
        (255, -128, 0, 0, 65_793),
        (255, 255, 0, 0, 33_025),
        (255, -128, 0, 127, 33_025),
    ],
)
def test_int8_matmul_at_the_largest_k(device, a, b, a_zero_point, b_zero_point, k):
    """The largest products that (6) admits; a float32 product would be off by one from K = 1041 on."""

    def filled(value, *shape):
        return torch.full(shape, value, dtype=torch.uint8 if value > 127 else torch.int8, device=device)

    one, other = (torch.tensor(zero, dtype=torch.int32, device=device) for zero in (a_zero_point, b_zero_point))
    acc = reference.int8_matmul(filled(a, 2, k), filled(b, k, 1), a_zero_point=one, b_zero_point=other)
    assert_exact(acc, [k * (a - a_zero_point) * (b - b_zero_point)] * 2, torch.int32)


# (7) and (8)


def hard_products(draw):
    """(acc, a_scale, b_scale, bias): accumulators that float32 must round, scales whose product is inexact, vanishes or
    overflows, and biases that are zero of either sign, small, cancelling or large."""
    accs = [0, 1, -1, 2**24 + 1, 2**24 + 3, -(2**25) - 2, -(2**25) - 6, 2**31 - 1, -(2**31), 33_025 * 255**2]
    accs += [draw.randint(-(2**31), 2**31 - 1) for _ in range(20)]
    scales = random_scales(draw, 60) + random_scales(draw, 60, -12, -2)
    for acc in accs:
        for a_scale, b_scale in zip(scales[::2], scales[1::2], strict=True):
            v = oracle.scale_product(acc, a_scale, b_scale)
            beside = oracle.neighbours(Fraction(v))[0] if isfinite(v) and v > 0 else 1.0
            yield acc, a_scale, b_scale, draw.choice((0.0, -0.0, 2.0**-10, -beside, beside, -LARGEST))


@on_each_device
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_scaling(device, relu, with_bias):
    """Scaling called by itself: no small product of codes reaches the accumulators that float32 must round."""
    columns = [*zip(*hard_products(random.Random(2)), strict=True)]
    acc, a_scale, b_scale, bias = (torch.tensor(column, device=device) for column in columns)
    actual = reference.scale_product(acc, a_scale, b_scale, bias if with_bias else None, relu)
    biases = columns[3] if with_bias else [None] * len(acc)
    expected = [oracle.scale_product(*case, relu) for case in zip(*columns[:3], biases, strict=True)]
    assert_exact(actual, expected, torch.float32)


@on_each_device
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("per_column", [False, True])
def test_int8_matmul_dequantize_and_requantize(device, code_dtype, relu, per_column):
    draw = random.Random(3)
    limits = torch.iinfo(code_dtype)
    m, k, n = 6, 9, 40
    a, b = codes(m, k), codes(k, n, seed=1)
    a_zeros, b_zeros = zero_points(m, 1), zero_points(1, n, seed=2)
    a_scales, b_scales = random_scales(draw, m, -8, 0), random_scales(draw, n, -8, 0)
    bias = [draw.choice((1, -1)) * value for value in random_scales(draw, n, -4, 8)]
    acc = oracle.product(a.tolist(), b.t().tolist(), a_zeros.flatten().tolist(), b_zeros.flatten().tolist())
    v = [[oracle.scale_product(acc[i][j], a_scales[i], b_scales[j], bias[j], relu) for j in range(n)] for i in range(m)]
    # Half of the output scales put row 0's result on a tie.
    out_scales = [
        oracle.divide(abs(v[0][j]) or 1.0, draw.randrange(1, 200) + 0.5) if j % 2 else draw.uniform(0.5, 4)
        for j in range(n if per_column else 1)
    ]
    out_scales = [oracle.rounded(Fraction(scale)) for scale in out_scales]
    out_zeros = [draw.randint(limits.min, limits.max) for _ in out_scales]

    def tensor(values, *shape, dtype=torch.float32):
        return torch.tensor(values, dtype=dtype, device=device).reshape(shape)

    arguments = [a.to(device), b.to(device), tensor(a_scales, m, 1), tensor(b_scales, 1, n)]
    options = {
        "a_zero_point": a_zeros.to(device),
        "b_zero_point": b_zeros.to(device),
        "bias": tensor(bias, n),
        "relu": relu,
    }
    for dtype, form in FORMATS.items():
        actual = reference.int8_matmul_dequantize(*arguments, **options, dtype=dtype)
        assert_exact(actual, [oracle.convert(value, form) for row in v for value in row], dtype)
    actual = reference.int8_matmul_requantize(
        *arguments,
        tensor(out_scales, 1, -1),
        out_zero_point=tensor(out_zeros, 1, -1, dtype=torch.int32),
        dtype=code_dtype,
        **options,
    )
    expected = [
        oracle.quantize(row[j], out_scales[j % len(out_scales)], out_zeros[j % len(out_zeros)], limits.min, limits.max)
        for row in v
        for j in range(n)
    ]
    assert_exact(actual, expected, code_dtype)


@on_each_device
@pytest.mark.parametrize("symmetric", [True, False])
def test_int8_linear(device, symmetric):
    """(5), (6) and (7) in a row: the activations' codes and scales are the ones that dynamic_quantize emits."""
    draw = random.Random(4)
    x = [[oracle.rounded(Fraction(draw.uniform(-1, 4))) for _ in range(12)] for _ in range(20)]
    weight = codes(30, 12)
    weight_scales = random_scales(draw, 30, -9, -5)
    bias = random_scales(draw, 30, -3, 1)
    q_min, q_max = (-127, 127) if symmetric else (-128, 127)
    expected = []
    for row in x:
        scale, zero = oracle.choose_qparams(row, symmetric=symmetric, q_min=q_min, q_max=q_max)
        q = [oracle.quantize(value, scale, zero, q_min, q_max) for value in row]
        acc = oracle.product([q], weight.tolist(), [zero], [0] * 30)[0]
        expected += [oracle.scale_product(acc[n], scale, weight_scales[n], bias[n]) for n in range(30)]
    actual = reference.int8_linear(
        torch.tensor(x, device=device),
        weight.to(device),
        torch.tensor(weight_scales, device=device)[:, None],
        torch.tensor(bias, device=device),
        symmetric=symmetric,
    )
    assert_exact(actual, expected, torch.float32)


# (3)


def twice_rounded_scales(draw, count, form):
    """Scales of which a multiple up to 127 lies so near to half way between two numbers of the format that the float32
    product falls on it: (3) then rounds to even, wherever the exact product lies."""
    for _ in range(count):
        half_way = 1 + Fraction(2 * draw.randrange(2 ** (form.precision - 1)) + 1, 2**form.precision)
        yield oracle.rounded(half_way / draw.randrange(3, 128, 2))


@on_each_device
@for_each_float
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
def test_dequantize(device, dtype, code_dtype):
    """All codes under scales of all magnitudes: products that are inexact, denormal, zero of either sign, infinite."""
    form = FORMATS[dtype]
    limits = torch.iinfo(code_dtype)
    draw = random.Random(5)
    scales = SCALES + random_scales(draw, 20) + random_scales(draw, 20, -24, 12)
    offsets = [draw.randint(limits.min, limits.max) for _ in scales]
    scales += twice_rounded_scales(draw, 20, form)
    offsets += [0] * 20
    every_code = range(limits.min, limits.max + 1)
    actual = reference.dequantize(
        torch.tensor([list(every_code)] * len(scales), dtype=code_dtype, device=device),
        torch.tensor(scales, device=device)[:, None],
        torch.tensor(offsets, dtype=torch.int32, device=device)[:, None],
        dtype=dtype,
    )
    expected = [
        oracle.dequantize(code, scale, offset, form)
        for scale, offset in zip(scales, offsets, strict=True)
        for code in every_code
    ]
    assert_exact(actual, expected, dtype)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_dequantize_rounds_every_tie_once(device, dtype):
    """Code 1 under the scales half way between neighbours of the smaller type, and a float32 unit beside: all of them,
    from the denormals (which a processor's own bfloat16 conversion would flush) to the step to infinity."""
    largest = int(torch.tensor(torch.finfo(dtype).max, dtype=dtype).view(torch.int16))
    below = torch.arange(largest + 1, dtype=torch.int16).view(dtype).to(torch.float64)
    half_units = torch.diff(below, append=2 * below[-1:] - below[-2:-1]) / 2
    ties = (below + half_units).to(torch.float32)
    bits = ties.view(torch.int32)
    scale = torch.cat([(bits + step).view(torch.float32) for step in (-1, 0, 1)])
    q = torch.ones(scale.shape, dtype=torch.int8)
    actual = reference.dequantize(q.to(device), scale.to(device), dtype=dtype)
    expected = [oracle.rounded(Fraction(value), FORMATS[dtype]) for value in scale.tolist()]
    assert_exact(actual, expected, dtype)
