"""Calls of quaver's ops: small, with tails, odd sizes and misaligned pointers, to reach every branch of the kernels.

Each gives the reference's bits when its kernels are right; what it reaches is measured, and what nothing reaches is
reported.
"""

from functools import cached_property

import torch

from quaver import reference
from quaver.library import as_tuple
from tests.cases import (
    CODE_DTYPES,
    FLOAT_DTYPES,
    assert_bits,
    codes,
    normal,
    products,
    scales,
    zero_points,
)
from tests.emulator import emulated

DEVICE = "sm_80"


class OpCase:
    """One call of an op, compared with the reference. With `blocks`, its grids are cut to so many: kernels stride."""

    def __init__(self, op, *args, blocks=None, **kwargs):
        self.op, self.args, self.blocks, self.kwargs = op, args, blocks, kwargs

    @cached_property
    def expected(self):
        return as_tuple(getattr(reference, self.op)(*self.args, **self.kwargs))

    def run(self, launch, seed):
        """Raises what a test would: a report, different bits, an op's error. Kernels run as `launch` has it."""

        def cut(module, name, *, grid, **how):
            if self.blocks is not None:
                grid = (min(grid[0], self.blocks), *grid[1:])
            return launch(module, name, grid=grid, **how)

        with emulated.launched_by(cut), emulated.device(DEVICE, seed=seed):
            actual = getattr(emulated.ops(), self.op)(*self.args, **self.kwargs)
        for got, wanted in zip(as_tuple(actual), self.expected, strict=True):
            assert_bits(got, wanted)


def every_case(float_dtypes=FLOAT_DTYPES, code_dtypes=CODE_DTYPES):
    for dtype in code_dtypes:
        for b_dtype in code_dtypes:
            yield from matmul_cases(dtype, b_dtype)


def matmul_cases(a_dtype, b_dtype):
    """Parts of tiles in every direction, both layouts of each side, every result, every argument given or not."""

    def operands(m, n, k, b_is_weight=True, a_rows=True):
        a = codes(m, k, dtype=a_dtype) if a_rows else codes(k, m, dtype=a_dtype).t()
        return a, codes(n, k, dtype=b_dtype, seed=1).t() if b_is_weight else codes(k, n, dtype=b_dtype, seed=1)

    yield OpCase("int8_matmul", *operands(1, 1, 1))
    yield OpCase("int8_matmul", *operands(5, 2, 0))
    # A thread has four rows and four columns, 16 apart: a tile's last row and column fall to each of them in turn.
    for m in (10, 20, 40, 52):
        for n in (10, 20, 40, 52):
            yield OpCase("int8_matmul", *operands(m, n, 3))
    yield OpCase("int8_matmul", *operands(100, 99, 3))
    for k in (5, 6, 7, 8):
        yield OpCase("int8_matmul", *operands(20, 50, k))
        yield OpCase("int8_matmul", *operands(50, 20, k))
    yield OpCase("int8_matmul", *operands(65, 63, 33))
    yield OpCase("int8_matmul", *operands(63, 66, 35, b_is_weight=False, a_rows=False))
    yield OpCase("int8_matmul", *operands(66, 65, 34), blocks=2)
    yield from signs_of_zero(*operands(52, 54, 3))
    yield from fixed_multipliers(*operands(64, 64, 1))
    yield from epilogue_cases((), 50, 54, a_dtype, b_dtype)
    yield from epilogue_cases((2,), 51, 52, a_dtype, b_dtype)
    for dims in (2, 3, 4):
        yield from epilogue_cases((2,) * dims, 3, 2, a_dtype, b_dtype)


def signs_of_zero(a, b):
    """Products that vanish keep their sign, but not through a bias or ReLU; and a bias that is no number."""
    tiny = torch.tensor(1e-30)
    bias = torch.tensor([float("nan"), 0.5, float("inf")]).repeat(b.shape[1])[: b.shape[1]]
    for relu in (False, True):
        yield OpCase("int8_matmul_dequantize", a, b, tiny, tiny, relu=relu)
        yield OpCase("int8_matmul_requantize", a, b, scales(), scales(), scales(), relu=relu, bias=bias)


def fixed_multipliers(a, b):
    """Every multiplier, of a row, meets every product, of a column's bias, in each of a thread's rows and columns."""
    powers = torch.exp2(torch.tensor([-40.0, -33, -32, -31, -20, -8, -2, -1, 0, 1, 2, 7, 20, 29, 30, 40]))
    near = [0, 1, -1, 3, -3, 5, 100, -100, 2**20, -(2**20), 2**30, -(2**30)]
    bias = torch.tensor([-(2**31), 1 - 2**31, 2**31 - 1, 2**31 - 2, *near], dtype=torch.int32).repeat(4)
    one = torch.tensor(1.0)
    for relu in (False, True):
        options = {"bias": bias, "relu": relu, "mode": "fixed"}
        yield OpCase("int8_matmul_requantize", 0 * a, b, powers.repeat(4)[:, None], one, one, **options)
        next_power = (torch.tensor(1 - 2.0**-17), torch.tensor(1 + 2.0**-17), torch.tensor(2.0))
        yield OpCase("int8_matmul_requantize", 0 * a, b, *next_power, **options)


def epilogue_cases(batch, m, n, a_dtype, b_dtype, k=5):
    a, b = codes(*batch, m, k, dtype=a_dtype), codes(*batch, k, n, dtype=b_dtype)
    a_zero_point, b_zero_point = zero_points(*batch, m, 1, dtype=a_dtype), zero_points(*batch, 1, n, dtype=b_dtype)
    a_sum, b_sum = a.sum(-1, True, dtype=torch.int32), b.sum(-2, True, dtype=torch.int32)
    a_scale, b_scale = scales(*batch, m, 1), scales(*batch, 1, n)
    bias = normal(2 * n)[::2]
    points = {"a_zero_point": a_zero_point, "b_zero_point": b_zero_point, "a_sum": a_sum, "b_sum": b_sum}
    yield OpCase("int8_matmul", a, b, **points)
    for dtype in FLOAT_DTYPES:
        yield OpCase("int8_matmul_dequantize", a, b, a_scale, b_scale, bias=bias, dtype=dtype)
    yield OpCase("int8_matmul_dequantize", a, b, a_scale, b_scale, relu=True, **points)
    for dtype in CODE_DTYPES:
        out = {"out_zero_point": zero_points(*batch, 1, n, dtype=dtype), "dtype": dtype}
        out_scale = 64 * scales(*batch, 1, n, seed=5)
        yield OpCase("int8_matmul_requantize", a, b, a_scale, b_scale, out_scale, bias=bias, **out, **points)
        fixed = {"bias": products(2 * n, most=2**12)[::2], "mode": "fixed", **out, **points}
        yield OpCase("int8_matmul_requantize", a, b, a_scale, b_scale, out_scale, **fixed)
    yield OpCase("int8_matmul_requantize", a, b, a_scale, b_scale, scales(), q_min=-5, q_max=5)
