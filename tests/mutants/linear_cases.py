"""Calls of int8_linear with few rows, which one kernel computes: every number of rows, parts of tiles and of turns."""

import torch

from tests.cases import EDGE_VALUES, FLOAT_DTYPES, codes, layouts, normal, scales

from .cases import OpCase

ROWS = (1, 2, 3, 4)
EXPONENTS = (-130, -120, -115, -62, -58, 58, 62, 100, 119)  # of whole rows


def linear_cases(float_dtypes=FLOAT_DTYPES, _code_dtypes=()):
    for dtype in float_dtypes:
        yield from product_cases(dtype)
        yield from range_cases(dtype)
        yield from argument_cases(dtype)


def case(x, n, *args, blocks=None, weight=None, **options):
    weight = codes(n, x.shape[-1], seed=1) if weight is None else weight
    return OpCase("int8_linear", x, weight, scales(n, 1), *args, blocks=blocks, **options)


def product_cases(dtype):
    for m in ROWS:
        yield case(normal(m, 80, dtype=dtype), 33)
        yield case(normal(m, 512, dtype=dtype), 3, symmetric=False)
    for n in (1, 7, 8, 9, 15, 16, 17):
        yield case(normal(2, 48, dtype=dtype), n)
    for k in (16, 32, 64, 256, 1024, 1040, 2064):
        yield case(normal(1, k, dtype=dtype), 12, symmetric=False)
        yield case(normal(4, k, dtype=dtype), 12, symmetric=False)
    for symmetric in (False, True):
        yield case(normal(3, 64, dtype=dtype), 70, blocks=2, symmetric=symmetric)
    # Scales whose product is 0: results of either sign are zeros of either sign, and ReLU makes all of them +0
    for relu in (False, True):
        x = normal(2, 64, dtype=dtype)
        yield OpCase("int8_linear", x, codes(9, 64), torch.full((9, 1), 2.0**-148), relu=relu, dtype=torch.float32)


def range_cases(dtype):
    """The largest and the smallest number of a row fall to every warp, every lane and every place of a vector."""
    for m in ROWS:
        threads = 256 // (4 if m == 3 else m)
        k = 16 * threads
        for step in (1, 3, 8, 4 * 32 + 5, 8 * 32 + 6):
            x = normal(m, k, dtype=dtype)
            for row in range(m):
                x[row, (step * (row + 1) + row) % k] = 9 + step
                x[row, -(step * (row + 2)) % k] = -20 - step
            yield case(x, 2, symmetric=False, dtype=torch.float32)
        x = normal(m, k + 16, dtype=dtype)
        x[:, ::3], x[:, 1::7], x[:, 2::11] = float("nan"), float("inf"), float("-inf")
        yield case(x, 2, symmetric=False)
        yield case(-normal(m, k, dtype=dtype).abs(), 2, symmetric=False)
        yield case(normal(m, k, dtype=dtype).abs(), 2, symmetric=False)
    vector = 16 // dtype.itemsize
    for place in range(vector):
        for most in (40.0, torch.finfo(dtype).max):
            for first in (place, 256 * vector + place):  # in a thread's first turn, and in its second
                x = normal(1, 512 * vector, dtype=dtype)
                x[0, first] = most
                yield case(x, 2, symmetric=False)
                wider = torch.zeros(1, 2 * x.shape[1], dtype=dtype)
                wider[:, ::2] = x
                yield case(wider[:, ::2], 2, symmetric=False)
    values = torch.cat([EDGE_VALUES, torch.zeros(-len(EDGE_VALUES) % 16)])
    largest = torch.finfo(dtype).max
    for symmetric in (False, True):
        yield case(torch.stack([values, 0 * values, values.clamp(-1e30, 1e30)]).to(dtype), 4, symmetric=symmetric)
        for value in (0.0, float("nan"), float("inf"), largest, 1e-40, 2.0):
            yield case(torch.full((1, 16), value).to(dtype), 3, symmetric=symmetric)
        widest = torch.tensor([[largest, -largest, float("inf"), -float("inf")] * 4]).to(dtype)
        yield OpCase("int8_linear", widest, codes(3, 16), torch.tensor(1e-6), symmetric=symmetric)
        halves = torch.arange(-31.5, 32.0)  # ties, and beside them
        rows = torch.stack([halves, halves * (1 + 2.0**-7), halves * (1 - 2.0**-7), normal(64)])
        rows[:, 0], rows[:, 1] = -100.0, 127.0
        for exponent in EXPONENTS:
            yield case((rows * 2.0**exponent).to(dtype), 3, symmetric=symmetric, dtype=torch.float32)
    # Odd x, and scales 2 / 3, 2 / 5, 2 / 15 and 2 / 17 that are rounded: quotients are ties, or as near as can be.
    rows = torch.arange(-63.0, 64.0, 2).repeat(4, 1)
    for row, most in zip(rows, (85.0, 51.0, 17.0, 15.0), strict=True):
        row.clamp_(-most, most)
        row[0], row[-1] = -most, most
    for exponent in EXPONENTS:
        yield case((rows * 2.0**exponent).to(dtype), 3, symmetric=False, dtype=torch.float32)
    tie = torch.tensor([[209.0, -22.625, *[6.8125, -6.8125] * 7]]) * 2.0**-125  # if nothing raised the scale
    yield case(tie.to(dtype), 3, symmetric=False, dtype=torch.float32)


def argument_cases(dtype):
    x = normal(4, 48, dtype=dtype) + 1
    for _, view in layouts(x):
        yield case(view, 18, symmetric=False)
    yield case(x[0].expand(3, 48), 18)
    yield case(x[:, :32], 18, weight=codes(18, 96, seed=1)[:, 32:64])
    bias = torch.tensor([float("nan"), 0.5, float("inf"), -0.25, 3.0]).repeat(8)[:38][::2]
    for result in FLOAT_DTYPES:
        yield case(x, 19, bias, dtype=result)
        yield case(x, 19, dtype=result, symmetric=False)
        yield case(x, 19, bias, dtype=result, relu=True)
    weight = codes(19, 48, seed=1)
    yield case(x, 19, bias, weight=weight, weight_sum=weight.sum(1, True, dtype=torch.int32), symmetric=False)
    yield OpCase("int8_linear", x, codes(9, 48), scales(), symmetric=False)
    yield OpCase("int8_linear", x * 1e-6, codes(9, 48), torch.tensor(1e-40))  # products that vanish keep their sign
