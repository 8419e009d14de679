"""Calls of quantize, dequantize and dynamic_quantize: small ones that reach every branch of their kernels.

Each kernel is mutated in two instances. float32's vectors have 4 elements and bfloat16's 8; float16's kernels are those
of bfloat16 with other conversions, in which there is nothing to mutate. The modes of quantize differ in arithmetic
alone, and so one of each goes with a type of floats. The type of codes is no part of a kernel but of its arguments.
"""

import torch

from tests.cases import EDGE_VALUES, codes, normal, scales, zero_points

from .cases import OpCase

MODES = {torch.float32: "onnx", torch.bfloat16: "affine"}

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
)
COLUMNS = (((9, 128), (1, 128)), ((40, 132), (1, 132)), ((70, 260), (1, 260)), ((8200, 4), (1, 4)))
ELEMENTS = (((4, 60), (4, 20)), ((3, 40, 5), (1, 40, 1)), ((2, 3, 2, 1, 3, 4), (2, 1, 2, 1, 3, 2)))
# Lengths of rows: parts of a vector, of a warp's, of several warps' and of a whole block's.
ROWS = (1, 7, 201, 300, 401, 700, 900, 2048, 5000, 16384)


def every_case(float_dtypes=MODES):
    for dtype in float_dtypes:
        if dtype in MODES:
            yield from quantize_cases(dtype)
            yield from dequantize_cases(dtype)
            yield from dynamic_cases(dtype)


def quantize_cases(dtype):
    for x, scale, zero_point in operands(lambda *shape: with_nan(normal(*shape, dtype=dtype))):
        yield OpCase("quantize", x, scale, zero_point, mode=MODES[dtype])
    # The last vector is a part, and has its last round's end, in each of a thread's vectors.
    for rows in (4, 12, 21, 30, 38, 47, 56, 90):
        x, scale = near_ties(rows, 65, dtype)
        yield OpCase("quantize", x, scale, mode=MODES[dtype])
    x, scale = near_ties(68, 40, dtype)
    yield OpCase("quantize", x.t().contiguous(), scale.t(), mode=MODES[dtype])
    yield OpCase("quantize", every_second(normal(3, 600, dtype=dtype)), scales(3, 1), mode=MODES[dtype], blocks=2)
    edges = EDGE_VALUES.to(dtype)
    edges = edges[: len(edges) // 4 * 4]
    for scale in (1.0, 0.1, 1e-30, 1e30):
        for view in (edges, edges[::2]):
            for code_dtype in (torch.int8, torch.uint8):
                yield OpCase("quantize", view, torch.tensor(scale), dtype=code_dtype, mode=MODES[dtype])
        yield OpCase("quantize", edges.repeat(2, 1), scale * scales(1, len(edges)), mode=MODES[dtype])
        yield OpCase("quantize", edges, scale * scales(len(edges)), zero_points(len(edges)), mode=MODES[dtype])


def dequantize_cases(dtype):
    for q, scale, zero_point in operands(codes):
        yield OpCase("dequantize", q, scale, zero_point, dtype=dtype)
    yield OpCase("dequantize", every_second(codes(3, 600)), scales(3, 1), dtype=dtype, blocks=2)
    yield OpCase("dequantize", codes(3, 600, dtype=torch.uint8), scales(3, 1), dtype=dtype)


def operands(make):
    """Tensors of runs that are one, many or none, and parameters of every kind."""
    for shape, scale_shape in (*VECTORS, *EACH, *COLUMNS, *ELEMENTS):
        x, scale, zero_point = make(*shape), scales(*scale_shape), zero_points(*scale_shape)
        yield x, scale, zero_point
        if x.numel() < 10000:
            yield padded(x), scale, zero_point
            yield misaligned(x), scale, None
    # Parameters that are neighbours, but not aligned; and those that are not neighbours
    x = make(3, 64)
    for scale in (scales(1, 65)[:, 1:], scales(1, 128)[:, ::2]):
        yield x, scale, None
        yield x, scale.contiguous(), zero_points(1, 128)[:, ::2]
    yield make(5), scales(5), None
    yield make(), scales(), zero_points()


def dynamic_cases(dtype):
    for length in ROWS:
        rows = 2 if length > 2000 else 11
        x = normal(rows, length, dtype=dtype, seed=length)
        yield OpCase("dynamic_quantize", x, (rows, 1), symmetric=True, return_row_sum=True)
        if length < 16384:
            yield OpCase("dynamic_quantize", padded(x), (rows, 1), symmetric=False, return_row_sum=True)
    yield OpCase("dynamic_quantize", normal(40, 96, dtype=dtype), (40, 3), symmetric=False)
    yield OpCase("dynamic_quantize", normal(4, 6, 32, dtype=dtype).transpose(0, 1), (6, 4, 1), symmetric=False)
    yield OpCase("dynamic_quantize", normal(40, 40, dtype=dtype), (40, 1), return_row_sum=True, blocks=2)
    yield OpCase("dynamic_quantize", normal(9, 0, dtype=dtype), (9, 1), symmetric=False, return_row_sum=True)
    edges = EDGE_VALUES.to(dtype).repeat(7, 1)
    for symmetric in (True, False):
        yield OpCase("dynamic_quantize", edges, (7, 1), symmetric=symmetric, return_row_sum=True)
        yield OpCase("dynamic_quantize", torch.zeros(3, 70, dtype=dtype), (3, 1), symmetric=symmetric)


def near_ties(rows, columns, dtype):
    """x and a scale for each row, from the least to the largest: quotients are halves, or next to them."""
    random = torch.Generator().manual_seed(rows)
    exponents = torch.tensor([-126, -100, -61, -59, -30, 0, 40, 59, 61, 100, 122, 126]).repeat(rows)[:rows, None]
    scale = (1 + torch.rand(rows, 1, generator=random)) * torch.exp2(exponents.float())
    halves = torch.randint(-140, 140, (rows, columns), generator=random) + 0.5
    x = (scale * halves).to(dtype)
    return x, (x[:, :1].float() / halves[:, :1]).clamp(2.0**-126, 2.0**127)


def with_nan(x):
    return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.1, float("nan"))


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
