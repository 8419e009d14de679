"""The int8 matmuls: exact products of codes, as int32, as floats and as codes again. ARITHMETIC.md (6), (7) and (8)."""

from itertools import product

import pytest
import torch

import quaver
from quaver import reference
from tests import cases
from tests.cases import CODE_DTYPES, DEVICES, EDGE_SIZES, FLOAT_DTYPES, assert_bits, codes, layouts, normal

ops = torch.ops.quaver

MATMULS = ("int8_matmul", "int8_matmul_dequantize", "int8_matmul_requantize")
SIGNEDNESS = tuple(product(CODE_DTYPES, CODE_DTYPES))

# Around the CPU's tile of 256 rows, 64 columns and 1024 codes.
TILE_ROWS = (255, 256, 257)
TILE_COLUMNS = (63, 64, 65)
TILE_DEPTHS = (1023, 1024, 1025, 2049)

# (shape of a, shape of b): one of them batched, both, and batches that broadcast either way, up to rank 6.
BATCHES = (
    ((3, 4), (4, 6)),
    ((5, 3, 4), (4, 6)),
    ((5, 1, 4), (4, 6)),
    ((3, 4), (5, 4, 6)),
    ((5, 3, 4), (5, 4, 6)),
    ((5, 3, 4), (1, 4, 6)),
    ((1, 3, 4), (5, 4, 6)),
    ((2, 5, 3, 4), (4, 6)),
    ((2, 5, 3, 4), (5, 4, 6)),
    ((2, 1, 3, 4), (5, 4, 6)),
    ((2, 1, 3, 4), (1, 5, 4, 1)),
    ((2, 1, 2, 1, 3, 4), (3, 1, 2, 4, 6)),
    ((2, 3, 1, 2, 3, 4), (4, 6)),
    ((2, 3, 2, 2, 3, 4), (2, 3, 2, 2, 4, 6)),
    ((0, 3, 4), (1, 4, 6)),
    ((5, 0, 4), (4, 6)),
    ((5, 3, 0), (5, 0, 6)),
    ((5, 3, 4), (4, 0)),
)


def int8(*rows):
    return torch.tensor(rows, dtype=torch.int8)


def uint8(*rows):
    return torch.tensor(rows, dtype=torch.uint8)


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


def float32(*values):
    return torch.tensor(values, dtype=torch.float32)


def both(name, *args, **options):
    """The results of the definition and of the op on each device, to hold against one hand-made number."""
    yield getattr(reference, name)(*args, **options)
    for device in DEVICES:
        there = {key: value.to(device) if torch.is_tensor(value) else value for key, value in options.items()}
        yield getattr(ops, name)(*(tensor.to(device) for tensor in args), **there)


def assert_as_defined(name, *args, **options):
    """The op gives its definition's bits."""
    actual = getattr(ops, name)(*args, **options)
    assert_bits(actual, getattr(reference, name)(*args, **options))
    assert actual.is_contiguous()
    return actual


def parameters(name, row, column, device, a_dtype=torch.int8, b_dtype=torch.int8):
    """What the op `name` takes beside its codes: scales and zero points of these shapes."""
    given = {
        "a_zero_point": cases.zero_points(*row, dtype=a_dtype, seed=1),
        "b_zero_point": cases.zero_points(*column, dtype=b_dtype, seed=2),
    }
    if name != "int8_matmul":
        given |= {"a_scale": cases.scales(*row, seed=3), "b_scale": cases.scales(*column, seed=4)}
    if name == "int8_matmul_requantize":  # with an out_scale such that many results are neither 0 nor saturated
        given |= {
            "out_scale": cases.scales(*column, seed=5) * 256,
            "out_zero_point": cases.zero_points(*column, seed=6),
        }
    return {key: tensor.to(device) for key, tensor in given.items()}


def row_shapes(a_shape, b_shape):
    """Every shape in which a row's value may come: one for all, one a row, and one a row of each batch or of some."""
    batch = torch.broadcast_shapes(a_shape[:-2], b_shape[:-2])
    yield from ((), (1,), (1, 1), (a_shape[-2], 1), (*batch, a_shape[-2], 1))
    if batch:
        yield (*batch[1:], a_shape[-2], 1)
        yield (batch[0], *(1 for _ in batch[1:]), a_shape[-2], 1)


def column_shapes(a_shape, b_shape):
    for shape in row_shapes((*a_shape[:-2], b_shape[-1], 1), b_shape):
        yield (*shape[:-2], *reversed(shape[-2:]))


# Numbers by hand


def test_product_by_hand():
    a = int8((1, 2), (-3, 4))
    b = uint8((5, 0, 255), (1, 200, 255))
    for acc in both("int8_matmul", a, b):
        # 1*5 + 2*1, 1*0 + 2*200, 1*255 + 2*255; -3*5 + 4*1, -3*0 + 4*200, -3*255 + 4*255
        assert_bits(acc, int32((7, 400, 765), (-11, 800, 255)))


def test_zero_points_by_hand():
    a = int8((1, 2), (-3, 4))
    b = int8((5, 0), (1, -1))
    for acc in both("int8_matmul", a, b, a_zero_point=int32([1], [-3]), b_zero_point=int32([0, 1])):
        # a - za = [[0, 1], [0, 7]], b - zb = [[5, -1], [1, -2]]
        assert_bits(acc, int32((1, -2), (7, -14)))
    for acc in both("int8_matmul", a, b, a_zero_point=torch.tensor(2, dtype=torch.int32)):
        # a - za = [[-1, 0], [-5, 2]]
        assert_bits(acc, int32((-5, 0), (-23, -2)))
    for acc in both("int8_matmul", a, b, b_zero_point=int32([3])):
        # b - zb = [[2, -3], [-2, -4]]
        assert_bits(acc, int32((-2, -11), (-14, -7)))


def test_bytes_do_not_wrap():
    # -128 - 127 = -255 and 255 - 0 = 255 are no int8; their products no int16.
    for acc in both("int8_matmul", int8([-128]), uint8([255]), a_zero_point=int32(127)):
        assert_bits(acc, int32([-255 * 255]))


def test_scaling_by_hand():
    a, b = int8([3, 5]), int8([2, 4], [10, -20])  # acc = [56, -88]
    for v in both("int8_matmul_dequantize", a, b, float32(0.5), float32([0.25, 4.0]), bias=float32(1.0, 6.0)):
        assert_bits(v, float32([56 * 0.125 + 1, -88 * 2 + 6]))
    for v in both("int8_matmul_dequantize", a, b, float32(0.5), float32([0.25, 4.0]), relu=True):
        assert_bits(v, float32([7.0, 0.0]))


def test_scales_are_multiplied_first():
    one = float32(0.1)
    for v in both("int8_matmul_dequantize", int8([5]), int8([1]), one, one):
        # 0.1f * 0.1f = 0.010000001; 5 times that rounds to 0.050000004, whereas (5 * 0.1f) * 0.1f rounds to 0.05.
        assert_bits(v, float32([0.050000004]))
    for v in both("int8_matmul_dequantize", int8([64]), int8([64]), float32(2.0**-100), float32(2.0**-60)):
        # 2^-160 is 0; (2^12 * 2^-100) * 2^-60 would be 2^-148.
        assert_bits(v, float32([0.0]))


def test_product_rounds_to_float32_half_to_even():
    one = float32(1.0)
    ones = torch.full((1041, 1), 127, dtype=torch.int8)
    # 1041 * 127^2 = 16790289 lies between the floats 16790288 (even) and 16790290; 1043 times between 16822546 and
    # 16822548 (even).
    for v in both("int8_matmul_dequantize", ones.t(), ones, one, one):
        assert_bits(v, float32([16790288.0]))
    ones = torch.full((1043, 1), 127, dtype=torch.int8)
    for v in both("int8_matmul_dequantize", ones.t(), ones, one, one):
        assert_bits(v, float32([16822548.0]))


def test_bias_is_a_rounding_of_its_own():
    # 3 * (1 + 2^-23) = 3 + 3 * 2^-23 rounds to 3 + 2^-21; less 3 that leaves 2^-21. One rounding of both would leave
    # 3 * 2^-23.
    scale = float32(1 + 2.0**-23)
    for v in both("int8_matmul_dequantize", int8([3]), int8([1]), scale, float32(1.0), bias=float32(-3.0)):
        assert_bits(v, float32([2.0**-21]))


def test_signs_of_zero():
    a, b, tiny = int8([-1], [0]), int8([1]), float32(1e-30)
    for v in both("int8_matmul_dequantize", a, b, tiny, tiny):
        assert_bits(v, float32([-0.0], [0.0]))  # float32(-1) * 0; without a bias nothing is added to it
    for v in both("int8_matmul_dequantize", a, b, tiny, tiny, bias=float32(-0.0)):
        assert_bits(v, float32([-0.0], [0.0]))  # -0 + -0 and 0 + -0
    for v in both("int8_matmul_dequantize", a, b, tiny, tiny, bias=float32(0.0)):
        assert_bits(v, float32([0.0], [0.0]))
    for v in both("int8_matmul_dequantize", a, b, tiny, tiny, relu=True):
        assert_bits(v, float32([0.0], [0.0]))


def test_relu_keeps_nan():
    nan, inf = float("nan"), float("inf")
    bias = float32(nan, inf, -inf, -2.0)
    for v in both("int8_matmul_dequantize", int8([1]), int8([1, 1, 1, 1]), *float32(1.0, 1.0), bias=bias, relu=True):
        assert_bits(v, float32([nan, inf, 0.0, 0.0]))


def test_halves_are_rounded_once():
    one = float32(1.0)
    # Half way past the largest float16, 65504, lies 65520; 2049 lies between 2048 (even) and 2050, 2051 between 2050
    # and 2052 (even).
    b_scale = float32([65519.996, 65520.0, -65520.0, 2049.0, 2051.0])
    b = torch.ones(1, 5, dtype=torch.int8)
    inf = float("inf")
    for v in both("int8_matmul_dequantize", int8([1]), b, one, b_scale, dtype=torch.float16):
        assert_bits(v, torch.tensor([[65504, inf, -inf, 2048, 2052]], dtype=torch.float16))
    # bfloat16 holds 8 bits: 257 lies between 256 (even) and 258, 259 between 258 and 260 (even).
    for v in both("int8_matmul_dequantize", int8([1]), b[:, :2], one, float32([257.0, 259.0]), dtype=torch.bfloat16):
        assert_bits(v, torch.tensor([[256, 260]], dtype=torch.bfloat16))


def test_requantize_by_hand():
    a, b = int8([1], [3], [-5], [100]), int8([1, 2])  # acc = [[1, 2], [3, 6], [-5, -10], [100, 200]]
    one, half = float32(1.0), float32(0.5)
    for q in both("int8_matmul_requantize", a, b, one, half, one):
        # v = acc / 2: ties 0.5 -> 0, 1.5 -> 2, -2.5 -> -2
        assert_bits(q, int8((0, 1), (2, 3), (-2, -5), (50, 100)))
    for q in both("int8_matmul_requantize", a, b, one, half, float32([0.5, 0.25]), out_zero_point=int32([10, -10])):
        # v / s_out = [acc, 2 * acc], shifted and saturated
        assert_bits(q, int8((11, -6), (13, 2), (5, -30), (110, 127)))
    for q in both("int8_matmul_requantize", a, b, one, half, one, dtype=torch.uint8):
        assert_bits(q, uint8((0, 1), (2, 3), (0, 0), (50, 100)))
    for q in both("int8_matmul_requantize", a, b, one, half, one, q_min=-2, q_max=60):
        assert_bits(q, int8((0, 1), (2, 3), (-2, -2), (50, 60)))
    for q in both("int8_matmul_requantize", a, b, one, half, one, out_zero_point=int32(7), relu=True):
        assert_bits(q, int8((7, 8), (9, 10), (7, 7), (57, 107)))


def test_requantize_divides():
    # v / s_out = 22.5 / 1.8f = 12.5 and 16.5 / 2.2f = 7.5, ties that go to 12 and 8. Times the rounded reciprocal they
    # would be 12.500001 and 7.4999995 and go to 13 and 7.
    for q in both("int8_matmul_requantize", int8([1]), int8([45, 33]), *float32(0.5, 1.0), float32([1.8, 2.2])):
        assert_bits(q, int8([12, 8]))


def test_requantize_what_is_no_number():
    nan, inf = float("nan"), float("inf")
    bias = float32(nan, inf, -inf)
    options = {"bias": bias, "out_zero_point": int32(9)}
    for q in both("int8_matmul_requantize", int8([1]), int8([1, 1, 1]), *float32(1.0, 1.0, 1.0), **options):
        assert_bits(q, int8([9, 127, -128]))


def test_without_depth_only_the_bias_is_left():
    a, b = torch.empty(2, 0, dtype=torch.int8), torch.empty(0, 3, dtype=torch.int8)
    bias = float32(1.5, -1.5, 0.0)
    for acc in both("int8_matmul", a, b, a_zero_point=int32(3), b_zero_point=int32(5)):
        assert_bits(acc, torch.zeros(2, 3, dtype=torch.int32))
    for v in both("int8_matmul_dequantize", a, b, *float32(1.0, 1.0), bias=bias):
        assert_bits(v, bias.expand(2, 3))
    for q in both("int8_matmul_requantize", a, b, *float32(1.0, 1.0, 0.25), bias=bias, out_zero_point=int32(1)):
        assert_bits(q, int8((7, -5, 1), (7, -5, 1)))


# The bounds on K


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("a_dtype", "a_code", "a_zero", "b_dtype", "b_code", "b_zero", "largest"),
    [
        (torch.int8, -128, None, torch.int8, -128, None, 131_071),
        (torch.uint8, 255, None, torch.int8, -128, None, 65_793),
        (torch.int8, -128, None, torch.uint8, 255, None, 65_793),
        (torch.uint8, 255, None, torch.uint8, 255, None, 33_025),
        (torch.int8, -128, 127, torch.int8, -128, 127, 33_025),
        (torch.int8, 127, -128, torch.int8, -128, 127, 33_025),
        (torch.uint8, 255, 0, torch.int8, -128, 127, 33_025),
    ],
)
def test_largest_k(a_dtype, a_code, a_zero, b_dtype, b_code, b_zero, largest, device):
    def operands(k):
        a = torch.full((1, k), a_code, dtype=a_dtype, device=device)
        b = torch.full((k, 2), b_code, dtype=b_dtype, device=device)
        zero_points = {"a_zero_point": a_zero, "b_zero_point": b_zero}
        given = {name: int32(value).to(device) for name, value in zero_points.items() if value is not None}
        return (a, b), given

    (a, b), given = operands(largest)
    exact = largest * (a_code - (a_zero or 0)) * (b_code - (b_zero or 0))
    assert abs(exact) < 2**31 <= abs(exact) // largest * (largest + 1) + 1
    assert_bits(ops.int8_matmul(a, b, **given), int32([exact, exact]))

    (a, b), given = operands(largest + 1)
    with pytest.raises(RuntimeError, match=f"K must be at most {largest} for .*, got {largest + 1}$"):
        ops.int8_matmul(a, b, **given)


# The op is its definition


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("m", [*EDGE_SIZES, 4, 5, 6])
def test_edge_sizes(m, device):
    for number, (n, k) in enumerate(product(EDGE_SIZES, EDGE_SIZES)):
        a_dtype, b_dtype = SIGNEDNESS[(number + m) % 4]
        a = codes(m, k, dtype=a_dtype).to(device)
        b = codes(k, n, dtype=b_dtype, seed=1).to(device)
        name = MATMULS[number % 3]
        options = parameters(name, (m, 1), (1, n), device, a_dtype, b_dtype)
        assert_as_defined(name, a, b, **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("a_dtype", "b_dtype"), SIGNEDNESS)
def test_tile_edges(a_dtype, b_dtype, device):
    for m, n, k in product(TILE_ROWS, TILE_COLUMNS, TILE_DEPTHS):
        a = codes(m, k, dtype=a_dtype).to(device)
        weight = codes(n, k, dtype=b_dtype, seed=1).to(device)
        zero_points = parameters("int8_matmul", (m, 1), (1, n), device, a_dtype, b_dtype)
        assert_as_defined("int8_matmul", a, weight.t(), **zero_points)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MATMULS)
def test_layouts(name, device):
    m, n, k = 37, 70, 66
    options = parameters(name, (m, 1), (1, n), device)
    a = codes(m, k).to(device)
    b = codes(k, n, seed=1).to(device)
    for (_, a_view), (_, b_view) in product(operand_views(a), operand_views(b)):
        assert_as_defined(name, a_view, b_view, **options)


def operand_views(x):
    """Views under which an operand may come; those that repeat codes have x's shape but not its values."""
    yield from layouts(x)
    yield "rows repeat", x[:1].expand(x.shape)
    yield "columns repeat", x[:, :1].expand(x.shape)
    yield "windows overlap", x.reshape(-1).as_strided(x.shape, (3, 1))
    yield "cut out of more", torch.cat([x, x, x], dim=1).repeat(2, 1)[x.shape[0] :, 1 : x.shape[1] + 1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MATMULS)
@pytest.mark.parametrize(("a_shape", "b_shape"), BATCHES, ids=lambda shape: "x".join(map(str, shape)))
def test_batches_and_granularities(name, a_shape, b_shape, device):
    a = codes(*a_shape).to(device)
    b = codes(*b_shape, seed=1).to(device)
    for row, column in product(row_shapes(a_shape, b_shape), column_shapes(a_shape, b_shape)):
        options = parameters(name, row, column, device)
        out = assert_as_defined(name, a, b, **options)
        assert out.shape == (*torch.broadcast_shapes(a_shape[:-2], b_shape[:-2]), a_shape[-2], b_shape[-1])


def with_other_strides(x):
    return x.transpose(0, -2).contiguous().transpose(0, -2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MATMULS)
def test_batches_that_do_not_fold_into_rows(name, device):
    """A batch of a and one b are a matmul of more rows only where strides and parameters allow it."""
    batches, m, n, k = 4, 3, 6, 5
    b = codes(k, n, seed=1).to(device)
    contiguous = codes(batches, m, k).to(device)
    views = (
        contiguous,
        contiguous.transpose(0, 1).contiguous().transpose(0, 1),
        contiguous.repeat(1, 2, 1)[:, 1 : m + 1],
        contiguous.repeat(2, 1, 1)[::2],
        contiguous[:1].expand(batches, m, k),
        contiguous[:, :1].expand(batches, m, k),
        contiguous.unsqueeze(1).expand(batches, 2, m, k),
        contiguous.unsqueeze(0).expand(2, batches, m, k),
    )
    for a in views:
        innermost = a.shape[-3]
        rows = ((1, 1), (m, 1), (1, m, 1), (innermost, m, 1))
        for row, column in product(rows, ((1, n), (innermost, 1, n))):
            options = parameters(name, row, column, device)
            assert_as_defined(name, a, b, **options)
            options = {key: with_other_strides(tensor) for key, tensor in options.items()}
            assert_as_defined(name, a, b, **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MATMULS)
def test_one_argument_that_varies(name, device):
    """By row or column, by batch or by both, while every other argument is one for all."""
    batches, m, n = 4, 3, 6
    a, b = codes(batches, m, 5).to(device), codes(5, n, seed=1).to(device)
    constant = parameters(name, (), (), device)
    for row, column in (((m, 1), (1, n)), ((batches, 1, 1), (batches, 1, 1)), ((batches, m, 1), (batches, 1, n))):
        for key, varying in parameters(name, row, column, device).items():
            whole = (batches, m, 1) if key.startswith("a_") else (batches, 1, n)
            assert_as_defined(name, a, b, **{**constant, key: varying.expand(whole)})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MATMULS)
@pytest.mark.parametrize(("a_shape", "b_shape"), [((5, 7), (7, 9)), ((2, 5, 7), (7, 9)), ((2, 5, 7), (3, 1, 7, 9))])
def test_known_sums(name, a_shape, b_shape, device):
    a, b = codes(*a_shape, dtype=torch.uint8).to(device), codes(*b_shape, seed=1).to(device)
    options = parameters(name, (5, 1), (1, 9), device, torch.uint8)
    expected = getattr(ops, name)(a, b, **options)
    sums = {"a_sum": a.sum(-1, keepdim=True, dtype=torch.int32), "b_sum": b.sum(-2, keepdim=True, dtype=torch.int32)}
    for given in (["a_sum"], ["b_sum"], ["a_sum", "b_sum"]):
        some = {key: sums[key] for key in given}
        assert_bits(getattr(ops, name)(a, b, **options, **some), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("given", ["a_zero_point", "b_zero_point", "neither"])
def test_one_zero_point(given, device):
    a, b = codes(6, 33).to(device), codes(33, 5, seed=1).to(device)
    zero_points = parameters("int8_matmul", (6, 1), (1, 5), device)
    assert_as_defined("int8_matmul", a, b, **{key: value for key, value in zero_points.items() if key == given})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_dequantize_epilogue(dtype, device):
    m, n, k = 9, 67, 130
    a, b = codes(m, k).to(device), codes(k, n, seed=1).to(device)
    every_other = (normal(2 * n) * 1000).to(device)[::2]
    options = parameters("int8_matmul_dequantize", (m, 1), (1, n), device)
    a_scale, b_scale = options.pop("a_scale"), options.pop("b_scale")
    for bias, relu in product((None, every_other.contiguous(), every_other, every_other[:1].expand(n)), (False, True)):
        for rows, columns in product((a_scale, a_scale[0], a_scale.expand(m, 2)[:, 1:]), (b_scale, b_scale[0, 0])):
            assert_as_defined(
                "int8_matmul_dequantize", a, b, rows, columns, bias=bias, relu=relu, dtype=dtype, **options
            )
    negative = ops.int8_matmul_dequantize(a, b, a_scale, b_scale, dtype=dtype)
    rectified = ops.int8_matmul_dequantize(a, b, a_scale, b_scale, dtype=dtype, relu=True)
    assert (negative < 0).any()
    assert_bits(rectified, negative.clamp(min=0))


@pytest.mark.parametrize("device", DEVICES)
def test_dequantize_overflows_to_infinity(device):
    a, b = codes(9, 64).to(device), codes(64, 9, seed=1).to(device)
    scale = torch.tensor(3e33, device=device)
    for dtype, b_scale in ((torch.float16, 1e-33), (torch.float32, 2.0), (torch.bfloat16, 2.0)):
        v = assert_as_defined("int8_matmul_dequantize", a, b, scale, torch.tensor(b_scale, device=device), dtype=dtype)
        assert v.isinf().any()
        assert v.isfinite().any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("relu", [False, True])
def test_requantize_epilogue(dtype, relu, device):
    m, n, k = 9, 67, 130
    a, b = codes(m, k).to(device), codes(k, n, seed=1).to(device)
    bias = (normal(2 * n) * 1000).to(device)[::2]
    options = parameters("int8_matmul_requantize", (m, 1), (1, n), device)
    out_scale = options.pop("out_scale")
    out_zero_points = (None, options.pop("out_zero_point").clamp(0), int32(3).to(device))
    for q_range in ({}, {"q_min": 3, "q_max": 90}, {"q_min": 0}, {"q_max": 99}):
        for scale, zero_point in product((out_scale, out_scale[:, :1], out_scale[0, 0]), out_zero_points):
            if zero_point is not None and zero_point.shape != scale.shape and zero_point.numel() * scale.numel() > 1:
                continue
            out = {"out_scale": scale, "out_zero_point": zero_point, "dtype": dtype, **q_range}
            q = assert_as_defined("int8_matmul_requantize", a, b, bias=bias, relu=relu, **options, **out)
            limits = torch.iinfo(dtype)
            assert q.min() >= q_range.get("q_min", limits.min)
            assert q.max() == q_range.get("q_max", limits.max)  # some saturate


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_requantize_is_quantize_of_dequantize(dtype, batch, device):
    m, n, k = 33, 70, 200
    a, b = codes(*batch, m, k).to(device), codes(k, n, seed=1).to(device)
    options = {**parameters("int8_matmul_requantize", (m, 1), (1, n), device), "bias": normal(n).to(device)}
    out_scale, out_zero_point = options.pop("out_scale"), options.pop("out_zero_point").clamp(0)
    v = ops.int8_matmul_dequantize(a, b, **options)
    whole = (*(1 for _ in batch), 1, n)
    expected = ops.quantize(v, out_scale.view(whole), out_zero_point.view(whole), dtype=dtype)
    out = {"out_scale": out_scale, "out_zero_point": out_zero_point, "dtype": dtype}
    assert_bits(ops.int8_matmul_requantize(a, b, **options, **out), expected)
    limits = torch.iinfo(dtype)
    assert 0.2 < ((expected > limits.min) & (expected < limits.max)).float().mean() < 1  # some saturate, some do not


# Beside the definition


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("a_dtype", "b_dtype"), SIGNEDNESS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (3, 5, 7), (31, 65, 33), (2, 3, 4097)])
def test_product_in_int64(m, n, k, a_dtype, b_dtype, device):
    a, b = codes(m, k, dtype=a_dtype), codes(k, n, dtype=b_dtype, seed=1)
    zero_points = parameters("int8_matmul", (m, 1), (1, n), "cpu", a_dtype, b_dtype)
    acc = (a.long() - zero_points["a_zero_point"]) @ (b.long() - zero_points["b_zero_point"])
    there = {key: value.to(device) for key, value in zero_points.items()}
    assert_bits(ops.int8_matmul(a.to(device), b.to(device), **there).long(), acc)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MATMULS)
def test_a_row_is_the_same_alone_and_among_others(name, device):
    batch, m, n, k = 2, 261, 66, 1030
    a, b = codes(batch, m, k).to(device), codes(k, n, seed=1).to(device)
    options = parameters(name, (m, 1), (1, n), device)
    whole = getattr(ops, name)(a, b, **options)

    def of_rows(tensor, rows):
        return tensor[rows] if tensor.shape == (m, 1) else tensor

    for rows in (slice(0, 1), slice(3, 5), slice(255, 257), slice(260, 261), slice(7, 200)):
        row_options = {key: of_rows(tensor, rows) for key, tensor in options.items()}
        assert_bits(getattr(ops, name)(a[1, rows], b, **row_options), whole[1, rows])


@pytest.mark.parametrize("name", MATMULS)
def test_threads_change_nothing(name):
    a, b = codes(600, 300), codes(300, 200, seed=1)
    options = parameters(name, (600, 1), (1, 200), "cpu")
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(getattr(ops, name)(a, b, **options))
    finally:
        torch.set_num_threads(threads)
    assert_bits(results[1], results[0])
    assert_bits(results[2], results[0])


# The functions over the ops


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_functions_take_quantization_params(symmetric, device):
    x, weight, y = normal(5, 32).to(device), normal(8, 32, seed=1).to(device), normal(5, 8, seed=2).to(device) * 6
    a, a_params = quaver.dynamic_quantize(x, symmetric=symmetric)
    b, b_params = quaver.dynamic_quantize(weight.t(), quaver.PerChannel(1), symmetric=symmetric)
    out_params = quaver.choose_qparams(y, quaver.PerChannel(1), symmetric=symmetric, dtype=torch.int8)
    zero_points = {"a_zero_point": a_params.zero_point, "b_zero_point": b_params.zero_point}
    assert_bits(
        quaver.int8_matmul_dequantize(a, b, a_params, b_params),
        ops.int8_matmul_dequantize(a, b, a_params.scale, b_params.scale, **zero_points),
    )
    assert_bits(
        quaver.int8_matmul_requantize(a, b, a_params, b_params, out_params, check=True),
        ops.int8_matmul_requantize(
            *(a, b, a_params.scale, b_params.scale, out_params.scale),
            **{**zero_points, "out_zero_point": out_params.zero_point},
            q_min=out_params.q_min,
            q_max=out_params.q_max,
        ),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64])
def test_functions_take_zero_points_of_any_integer_type(dtype, device):
    a, b = codes(5, 7, dtype=torch.uint8).to(device), codes(7, 9, dtype=torch.uint8, seed=1).to(device)
    one = torch.tensor(0.01, device=device)
    zero_points = {"a_zero_point": cases.zero_points(5, 1).clamp(0), "b_zero_point": cases.zero_points(1, 9).clamp(0)}
    given = {key: value.to(device, dtype) for key, value in zero_points.items()}
    wanted = {key: value.to(device) for key, value in zero_points.items()}
    assert_bits(quaver.int8_matmul(a, b, **given), ops.int8_matmul(a, b, **wanted))
    assert_bits(
        quaver.int8_matmul_dequantize(a, b, one, one, **given), ops.int8_matmul_dequantize(a, b, one, one, **wanted)
    )
    given["out_zero_point"], wanted["out_zero_point"] = given["b_zero_point"], wanted["b_zero_point"]
    out_scale = torch.full((1, 9), 0.1, device=device)
    assert_bits(
        quaver.int8_matmul_requantize(a, b, one, one, out_scale, **given),
        ops.int8_matmul_requantize(a, b, one, one, out_scale, **wanted),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_functions_widen_the_bias(dtype, device):
    a, b = codes(5, 7).to(device), codes(7, 9, seed=1).to(device)
    one, bias = torch.tensor(0.01, device=device), normal(9, dtype=dtype).to(device)
    wide = bias.to(torch.float32)
    assert_bits(
        quaver.int8_matmul_dequantize(a, b, one, one, bias=bias), ops.int8_matmul_dequantize(a, b, one, one, bias=wide)
    )
    assert_bits(
        quaver.int8_matmul_requantize(a, b, one, one, one, bias=bias),
        ops.int8_matmul_requantize(a, b, one, one, one, bias=wide),
    )
