"""Calls of quantize, dequantize and dynamic_quantize: small ones that reach every branch of their kernels.

Quantize is mutated in an instance for float32, whose vectors have 4 elements, and dequantize in one for bfloat16, whose
have 8; both take them from the same templates. So are, with templates of their own, the stochastic quantize and the
mask of fake_quantize on the one side, and fake_quantize on the other. Other types and modes differ in arithmetic alone,
in which there is nothing to mutate, and the type of codes is no part of a kernel but of its arguments. dynamic_quantize
has its vectors for itself: it is mutated in both.
"""

import torch

from quaver import reference
from tests.cases import EDGE_VALUES, MODES, codes, generator, normal, scales, zero_points

from .cases import OpCase

WIDEST = {torch.float32: 4, torch.bfloat16: 8}  # elements of a vector

# Shapes of x and of the scale, by the kernel that takes them. A block has 4,096 elements of runs, a quarter or half of
# them in each of the vectors that a thread has.
VECTORS = (
    ((3, 700), ()),
    ((1, 5001), ()),
    ((5, 1001), (5, 1)),  # vectors with two rows' parameters
    ((2, 3, 7, 7), (1, 3, 1, 1)),
    ((4, 2, 60, 9), (4, 1, 60, 1)),
    ((4, 2, 15, 40), ()),
    ((3, 2, 90, 9), (3, 1, 90, 1)),
    ((600, 5), ()),  # two vectors serve a run
    ((600, 9), ()),
)
EACH = (
    ((9, 77), (1, 77)),
    ((6, 64), (3, 64)),
    ((3, 4, 2, 9), (1, 4, 1, 9)),
    ((1, 5001), (1, 5001)),
    ((70, 77), (1, 77)),
    ((6, 2, 40, 9), (6, 1, 40, 9)),
    ((600, 5), (1, 5)),
    ((600, 9), (1, 9)),
    *(((rows, 41), (1, 41)) for rows in (36, 60, 82)),  # the last run is in each of a thread's vectors
)
# The last row is in each of the four that a thread reads at once; more than 8,192 rows make it go round again.
COLUMNS = (
    *(((rows, 128), (1, 128)) for rows in (9, 20, 28)),
    ((40, 132), (1, 132)),
    ((70, 260), (1, 260)),
    ((8200, 4), (1, 4)),
)
ELEMENTS = (((4, 60), (4, 20)), ((3, 40, 5), (1, 40, 1)), ((2, 3, 2, 1, 3, 4), (2, 1, 2, 1, 3, 2)))
# Lengths of rows: the last vector, in part, is the first, second, third or fourth of a thread; rows of several warps
# and of a whole block.
ROWS = (1, 7, 202, 302, 402, 702, 902, 2048, 5000, 16384)

# Their quotient is next below 15.5, but 15.5 where products with so small a scale are not raised by a factor. It is the
# scale of codes up to 124 for a row whose largest number is 8 times the other, which is a bfloat16.
NEAR_TIE = 150 * 2.0**-129
SMALL_SCALE = 8 * NEAR_TIE / 124
OF_SMALL_SCALE = {"q_min": -124, "q_max": 124}


def every_case(float_dtypes=(torch.float32, torch.bfloat16)):
    if torch.float32 in float_dtypes:
        yield from quantize_cases(torch.float32)
        yield from numbered_cases("quantize", torch.float32, ("stochastic",))
        yield from numbered_cases("fake_quantize_mask", torch.float32, MODES)
        yield from dynamic_cases(torch.float32)
    if torch.bfloat16 in float_dtypes:
        yield from dequantize_cases(torch.bfloat16)
        yield from numbered_cases("fake_quantize", torch.bfloat16, MODES)
        yield from dynamic_cases(torch.bfloat16)


def quantize_cases(dtype):
    for x, scale, zero_point in operands(lambda *shape: sprinkled(normal(*shape, dtype=dtype), float("nan"))):
        yield OpCase("quantize", x, scale, zero_point)
    # The last vector is a part, and has its last round's end, in each of a thread's vectors.
    for rows in (4, 12, 21, 30, 38, 47, 56, 90):
        x, scale = near_ties(rows, 65, dtype)
        yield OpCase("quantize", x, scale)
    x, scale = near_ties(90, 65, dtype, exponents=(-126, 126))
    yield OpCase("quantize", x, scale)
    for shape, scale_shape in (((90, 65), (90, 1)), ((9, 128), (1, 128))):  # in every vector, in every column
        yield OpCase("quantize", torch.full(shape, NEAR_TIE), torch.full(scale_shape, SMALL_SCALE))
    x, scale = near_ties(128, 40, dtype)
    yield OpCase("quantize", x.t().contiguous(), scale.t())
    yield OpCase("quantize", every_second(normal(3, 600, dtype=dtype)), scales(3, 1), blocks=2)
    edges = EDGE_VALUES.to(dtype)
    edges = edges[: len(edges) // 4 * 4]
    for scale in (0.1, 1.5 * 2.0**-126, 1.5 * 2.0**126):
        yield OpCase("quantize", edges, torch.tensor(scale))
        yield OpCase("quantize", edges[::2], torch.tensor(scale), dtype=torch.uint8)
    for exponent in (-55, 126):
        x, scale = near_ties(1, 700, dtype, exponents=(exponent,))
        yield OpCase("quantize", x, scale)


def dequantize_cases(dtype):
    for q, scale, zero_point in operands(codes):
        yield OpCase("dequantize", q, scale, zero_point, dtype=dtype)
    yield OpCase("dequantize", every_second(codes(3, 600)), scales(3, 1), dtype=dtype, blocks=2)
    yield OpCase("dequantize", codes(3, 600, dtype=torch.uint8), scales(3, 1), dtype=dtype)


def numbered_cases(op, dtype, modes):
    """Of the kernels that take elements in the order of their numbers."""

    def make(*shape):
        return sprinkled(normal(*shape, dtype=dtype) * 9, float("nan"))

    for x, scale, zero_point in operands(make):
        yield OpCase(op, x, scale, zero_point, mode=modes[0])
    for last in range(1, 8):  # elements of the last vector, the tensor's own last ones
        for view in (make(1, 40 + last), misaligned(make(1, 48 + last))):
            yield OpCase(op, view, scales(*view.shape), zero_points(*view.shape), mode=modes[0])
            yield OpCase(op, view, scales(), None, mode=modes[0])
    x = make(40, 60)
    for view in (x, x.t(), every_second(x), misaligned(x)):
        yield OpCase(op, view, scales(*view.shape), zero_points(*view.shape), blocks=2, mode=modes[0])
        yield OpCase(op, view, scales(view.shape[0], 1), zero_points(view.shape[0], 1), blocks=1, mode=modes[0])
    for mode in modes:
        x, scale = near_ties(60, 40, dtype)
        x = sprinkled(x, float("nan"))
        yield OpCase(op, x, scale, zero_points(60, 1), mode=mode)
        yield OpCase(op, x, scale, mode=mode, q_min=1, q_max=100)
        # Ties at the ends of the range, where zero points, even and odd ones, decide what is clamped
        zero_point = torch.arange(-5, 10, dtype=torch.int32)[:, None]
        codes_and_halves = torch.tensor([-6.5, -5.5, -4.5, 0.5, 8.5, 9.5, 10.5]).repeat(20)
        x = (codes_and_halves - zero_point).to(dtype)
        yield OpCase(op, x, torch.ones(15, 1), zero_point, mode=mode, q_min=-5, q_max=9)
    yield OpCase(op, padded(make(5, 3, 2)), scales(), None, mode=modes[0])
    x, scale = near_ties(60, 40, dtype)
    yield OpCase(op, every_second(x), scale, mode="stochastic")
    # Quotients that are just what is drawn, most of them; of codes that are clamped, or not
    drawn = reference.uniforms((40, 60), -3, "cpu")
    ones = torch.ones(40, 60, dtype=dtype)
    for q_max in (0, 1):
        yield OpCase(op, ones, ones / drawn.clamp(1e-6), mode="stochastic", seed=-3, q_min=-1, q_max=q_max)


def operands(make):
    """Tensors of runs that are one, many or none, and parameters of every kind."""
    for shape, scale_shape in (*VECTORS, *EACH, *COLUMNS, *ELEMENTS):
        x, scale, zero_point = make(*shape), scales(*scale_shape), zero_points(*scale_shape)
        yield x, scale, zero_point
        if x.numel() < 10000:
            yield padded(x), scale, None if x.dim() == 2 else zero_point
    for scale_shape in ((), (3, 1), (1, 300)):
        yield misaligned(make(3, 300)), scales(*scale_shape), None
    # A round starts where the second block does, inside of a run that is not aligned, because of the first, the second
    # or the third loop over runs.
    for (*outer, length), parts, strides in (
        ((7, 2, 11, 24), (3, 8), (585, 292, 24)),
        ((7, 2, 11, 24), (3, 8), (584, 267, 24)),
        ((7, 2, 11, 24), (3, 8), (584, 292, 25)),
        ((5, 2, 5, 90), (9, 10), (930, 465, 93)),
    ):
        x = torch.zeros(10000, dtype=make(1).dtype).as_strided((*outer, length), (*strides, 1))
        x = x.copy_(make(*outer, length)).unflatten(-1, parts)
        for scale_shape in ((*outer, parts[0], 1), (*outer, 1, parts[1])):
            yield x, scales(*scale_shape), zero_points(*scale_shape)
    # Parameters that are neighbours, but not aligned; and those that are not neighbours
    x = make(3, 64)
    for scale in (scales(1, 65)[:, 1:], scales(1, 128)[:, ::2]):
        yield x, scale, None
        yield x, scale.contiguous(), zero_points(1, 128)[:, ::2]
    yield make(5, 1001), scales(5, 1), None
    # Scales and zero points that lie in memory each in its own way
    yield make(90, 4, 13), scales(90, 5, 1)[:, 1:], zero_points(90, 4, 1)
    yield make(4, 2, 60, 9), scales(4, 1, 120, 1)[:, :, ::2], zero_points(4, 1, 60, 1)
    yield make(70, 77), scales(70, 79)[:, 1:78], zero_points(70, 77)
    yield make(3, 2, 90, 9), scales(3, 3, 91, 11)[:, 1:, 1:, 1:10], zero_points(3, 2, 90, 9)
    yield make(5, 2, 3)[..., ::2], scales(5, 2, 3)[..., ::2], zero_points(5, 2, 2)
    yield every_second(make(70)), scales(70), None
    yield make(5), scales(5), None
    yield make(), scales(), zero_points()


def dynamic_cases(dtype):
    for length in ROWS:
        rows = 2 if length > 2000 else 9
        x = normal(rows, length, dtype=dtype, seed=length)
        yield OpCase("dynamic_quantize", x, (rows, 1), symmetric=True, return_row_sum=True)
        if length < 16384:
            yield OpCase("dynamic_quantize", padded(x), (rows, 1), symmetric=False, return_row_sum=True)
    yield OpCase("dynamic_quantize", normal(40, 96, dtype=dtype), (40, 3), symmetric=False)
    yield OpCase("dynamic_quantize", normal(4, 6, 32, dtype=dtype).transpose(0, 1), (6, 4, 1), symmetric=False)
    yield OpCase("dynamic_quantize", padded(normal(6, 2, 32, dtype=dtype)), (6, 2, 1), symmetric=False)
    yield OpCase("dynamic_quantize", normal(2, 3, 4, 32, dtype=dtype).transpose(0, 2), (4, 3, 2, 1), symmetric=False)
    yield OpCase("dynamic_quantize", normal(40, 40, dtype=dtype), (40, 1), return_row_sum=True, blocks=2)
    yield OpCase("dynamic_quantize", normal(12, 1100, dtype=dtype), (12, 1), symmetric=False, blocks=1)
    yield OpCase("dynamic_quantize", normal(1, 300, dtype=dtype), (1, 1))
    yield OpCase("dynamic_quantize", normal(9, 0, dtype=dtype), (9, 1), symmetric=False, return_row_sum=True)
    yield OpCase("dynamic_quantize", peaks(dtype), (8 * WIDEST[dtype], 1))
    no_numbers = sprinkled(sprinkled(normal(9, 960, dtype=dtype), float("nan")), float("inf"), seed=4)
    yield OpCase("dynamic_quantize", no_numbers, (9, 1), symmetric=False, return_row_sum=True)
    x, scale = near_ties(24, 130, dtype, most=127)
    x[:, :1] = 127 * scale
    yield OpCase("dynamic_quantize", x, (24, 1), symmetric=True)
    # Quotients that are halves in bfloat16, too
    scale = (1 + torch.arange(8)[:, None] / 8) * torch.tensor([2.0**-126, 2.0**121]).repeat_interleave(4)[:, None]
    x = torch.cat([64 * scale, scale * (torch.arange(-15, 16) / 2)], 1).to(dtype)
    yield OpCase("dynamic_quantize", x, (8, 1), symmetric=True, q_min=-64, q_max=64)
    yield OpCase("dynamic_quantize", torch.tensor([[8 * NEAR_TIE, NEAR_TIE]], dtype=dtype), (1, 1), **OF_SMALL_SCALE)
    largest = torch.finfo(torch.float32).max
    highest = torch.tensor([[2.9e38], [2.2e38], [1.9e38], [1.8e38]])
    for lowest in (highest - largest, -highest):  # the range is the largest float, or no float
        yield OpCase("dynamic_quantize", torch.cat([highest, lowest], 1).to(dtype), (4, 1), symmetric=False)
    highest = largest * torch.rand(16, 1, generator=generator())  # 254 steps do not divide the largest float
    x = torch.cat([highest, highest - largest], 1).to(dtype)
    yield OpCase("dynamic_quantize", x, (16, 1), symmetric=False, q_max=126)
    # The lowest code stands for no float
    row = torch.tensor([[3e38, -3e38, torch.inf, -torch.inf]], dtype=dtype)
    yield OpCase("dynamic_quantize", row, (1, 1), symmetric=False, q_min=-2, q_max=1)
    edges = EDGE_VALUES.to(dtype).repeat(7, 1)
    for symmetric in (True, False):
        yield OpCase("dynamic_quantize", edges, (7, 1), symmetric=symmetric, return_row_sum=True)
        yield OpCase("dynamic_quantize", torch.zeros(3, 70, dtype=dtype), (3, 1), symmetric=symmetric)


def peaks(dtype):
    """Rows whose largest, the largest of all numbers, is in one place after the other of a thread's four vectors."""
    vector = WIDEST[dtype]
    x = normal(8 * vector, 4 * 32 * vector, dtype=dtype)
    for row in range(len(x)):
        number, element = divmod(row % (4 * vector), vector)
        x[row, number * 32 * vector + element] = (1 if row < 4 * vector else -1) * torch.finfo(dtype).max
    return x


def near_ties(rows, columns, dtype, exponents=(-126, -61, -59, -30, 0, 40, 59, 61, 100, 122, 126), most=140):
    """x and a scale for each row, from the least to the largest: quotients are halves, or next to them."""
    random = torch.Generator().manual_seed(rows)
    exponents = torch.tensor(exponents).repeat(rows)[:rows, None]
    scale = (1 + torch.rand(rows, 1, generator=random)) * torch.exp2(exponents.float())
    halves = torch.randint(-most, most, (rows, columns), generator=random) + 0.5
    x = (scale * halves).to(dtype)
    return x, (x[:, :1].float() / halves[:, :1]).clamp(2.0**-126, 2.0**127)


def sprinkled(x, value, seed=3):
    return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.1, value)


def padded(x):
    """x as a part of a tensor that is wider in every dimension: a run for each row, the address of each another."""
    part = tuple(slice(1, 1 + size) for size in x.shape)
    wider = torch.zeros([size + 2 + (dim == x.dim() - 1) for dim, size in enumerate(x.shape)], dtype=x.dtype)
    wider[part] = x
    return wider[part]


def misaligned(x):
    longer = torch.zeros(x.numel() + 1, dtype=x.dtype)
    longer[1:] = x.reshape(-1)
    return longer[1:].view(x.shape)


def every_second(x):
    wider = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wider[..., ::2] = x
    return wider[..., ::2]
