"""Calls of the int8 matmuls, on the smallest of the tensor cores' kernels of each kind: parts of tiles in every
direction, every layout, every result, every argument given or not.

The larger tiles are the same code with more fragments, in which there is nothing new to mutate.
"""

import torch

from tests.cases import CODE_DTYPES, FLOAT_DTYPES, codes, normal, products, scales, zero_points

from .cases import OpCase, PlacedCase

SMALL, ANY_SMALL, GEMV = 2, 5, 6  # in csrc/cuda/plan.h


def matmul_cases(float_dtypes=FLOAT_DTYPES, code_dtypes=CODE_DTYPES):
    for a_dtype in code_dtypes:
        for b_dtype in code_dtypes:
            yield from small_cases(a_dtype, b_dtype)
            yield from any_small_cases(a_dtype, b_dtype)
            yield from gemv_cases(a_dtype, b_dtype)
            yield from join_cases(a_dtype, b_dtype)


def in_chunks(lines, k, dtype, seed=0):
    """Codes [lines, k] whose lines begin at multiples of 16 bytes."""
    return codes(lines, max(-(-k // 16), 1) * 16, dtype=dtype, seed=seed)[:, :k]


def small_cases(a_dtype, b_dtype):
    def operands(m, n, k):
        return in_chunks(m, k, a_dtype), in_chunks(n, k, b_dtype, seed=1).t()

    plan = (SMALL, 1)
    yield OpCase("int8_matmul", *operands(1, 1, 1), plan=plan)
    yield OpCase("int8_matmul", *operands(5, 2, 0), plan=plan)
    # A thread copies lines 32 apart, and a lane has rows 8 apart and pairs of columns: the last row and column fall to
    # each of them in turn.
    for m in (9, 24, 40, 63):
        for n in (10, 20, 41, 64):
            yield OpCase("int8_matmul", *operands(m, n, 20), plan=plan)
    yield OpCase("int8_matmul", *operands(100, 99, 3), plan=plan)
    for k in (15, 16, 17, 31, 33, 47, 48, 63, 64, 65, 128, 200, 9 * 64, 9 * 64 + 17):
        yield OpCase("int8_matmul", *operands(20, 34, k), plan=plan)
    yield OpCase("int8_matmul", *operands(64, 64, 9 * 64 + 17), plan=plan)
    # Lines far apart: what stands behind the last one is no other tensor's memory, wherever these happen to lie.
    far_a, far_b = codes(20, 4096, dtype=a_dtype)[:, :320], codes(20, 4096, dtype=b_dtype, seed=1)[:, :320]
    yield OpCase("int8_matmul", far_a, far_b.t(), plan=plan)
    yield OpCase("int8_matmul", *operands(130, 70, 70), plan=plan, blocks=2)
    yield OpCase("int8_matmul", *operands(9 * 64 + 1, 65, 16), plan=plan)  # a second group of rows of tiles
    yield from epilogue_cases(plan, (), 34, 52, a_dtype, b_dtype)
    yield from epilogue_cases(plan, (), 34, 50, a_dtype, b_dtype)
    for batch in ((2,), (2, 2), (2, 2, 2), (2, 2, 2, 2)):
        yield from epilogue_cases(plan, batch, 3, 4, a_dtype, b_dtype, whole=False)


def any_small_cases(a_dtype, b_dtype):
    plan = (ANY_SMALL, 1)
    for m, n, k in ((20, 36, 7 * 64 + 3), (76, 84, 3 * 64 + 8), (9, 11, 33)):
        for a in layouts(m, k, a_dtype):
            yield OpCase("int8_matmul", a, codes(n, k, dtype=b_dtype, seed=1).t(), plan=plan)
        for b in layouts(n, k, b_dtype):
            yield OpCase("int8_matmul", codes(m, k, dtype=a_dtype), b.t(), plan=plan)
    a, b = codes(70, 20, dtype=a_dtype), codes(20, 130, dtype=b_dtype)
    yield OpCase("int8_matmul", a, b, plan=plan, blocks=2)
    yield OpCase("int8_matmul", a, b, plan=plan, a_zero_point=zero_points(70, 1), b_zero_point=zero_points(1, 130))

    # The codes end at each place of a chunk, and with them the memory: in a stage that is loaded ahead, and in one of
    # the loop.
    for k in (*range(64, 80), *range(128, 144)):
        for at_the_end in ENDINGS:
            for m, n in ((9, 12), (36, 20)):
                yield OpCase("int8_matmul", at_the_end(m, k, a_dtype), at_the_end(n, k, b_dtype).t(), plan=plan)
    yield OpCase("int8_matmul", codes(9 * 64 + 1, 16, dtype=a_dtype), codes(16, 65, dtype=b_dtype), plan=plan)
    yield from epilogue_cases(plan, (), 34, 52, a_dtype, b_dtype)
    yield from epilogue_cases(plan, (), 34, 50, a_dtype, b_dtype)
    for batch in ((2,), (2, 2), (2, 2, 2), (2, 2, 2, 2)):
        yield from epilogue_cases(plan, batch, 3, 4, a_dtype, b_dtype, whole=False)


ENDINGS = (
    lambda lines, k, dtype: in_chunks(lines, k, dtype),
    lambda lines, k, dtype: codes(lines, (k + 3) // 4 * 4 + 4, dtype=dtype)[:, 4 : 4 + k],
    lambda lines, k, dtype: codes(lines, k + 5, dtype=dtype)[:, 5:],
    lambda lines, k, dtype: codes(k, lines + 3, dtype=dtype)[:, 3:].t(),
    lambda lines, k, dtype: codes(k, (lines + 3) // 4 * 4, dtype=dtype).t(),
)


def layouts(lines, k, dtype):
    yield in_chunks(lines, k, dtype)
    yield codes(lines, -(-k // 4) * 4 + 4, dtype=dtype)[:, 4 : 4 + k]
    yield codes(lines, k + 3, dtype=dtype)[:, 1 : 1 + k]
    yield codes(k, -(-lines // 4) * 4 + 4, dtype=dtype)[:, 4 : 4 + lines].t()
    yield codes(k, lines + 1, dtype=dtype)[:, 1:].t()


def gemv_cases(a_dtype, b_dtype):
    plan = (GEMV, 1)

    def operands(m, n, k):
        return codes(m, k, dtype=a_dtype), codes(n, k, dtype=b_dtype, seed=1).t()

    for m in (1, 2, 7, 8, 9, 15, 16):
        yield OpCase("int8_matmul", *operands(m, 33, 80), plan=plan)
    for n in (1, 7, 8, 9, 15, 16, 17, 40):
        yield OpCase("int8_matmul", *operands(11, n, 48), plan=plan)
    for k in (0, 16, 64, 512, 1024, 1040, 2064):
        yield OpCase("int8_matmul", *operands(12, 20, k), plan=plan)
    yield OpCase("int8_matmul", *operands(16, 40, 64), plan=plan, blocks=2)
    yield from epilogue_cases(plan, (), 11, 20, a_dtype, b_dtype, k=32)
    for batch in ((2,), (2, 2), (2, 2, 2), (2, 2, 2, 2)):
        yield from epilogue_cases(plan, batch, 3, 4, a_dtype, b_dtype, k=32, whole=False)


def join_cases(a_dtype, b_dtype):
    for kernel, m, n in ((SMALL, 33, 70), (GEMV, 5, 300)):
        for splits in (2, 3, 4, 5, 8, 9):
            k = 64 * splits
            a, b = codes(m, k, dtype=a_dtype), codes(n, k, dtype=b_dtype, seed=1).t()
            points = {
                "a_zero_point": zero_points(m, 1, dtype=a_dtype),
                "b_zero_point": zero_points(1, n, dtype=b_dtype),
            }
            yield OpCase("int8_matmul", a, b, plan=(kernel, splits), blocks=1 if splits == 5 else None, **points)
        given = (a, b, scales(m, 1), scales(1, n), 256 * scales(1, n))
        yield OpCase("int8_matmul_requantize", *given, plan=(kernel, 2), blocks=2, **points)
    yield from epilogue_cases((GEMV, 2), (), 11, 20, a_dtype, b_dtype, k=128)
    for batch in ((2,), (2, 2), (2, 2, 2), (2, 2, 2, 2)):
        yield from epilogue_cases((GEMV, 2), batch, 3, 4, a_dtype, b_dtype, k=128, whole=False)


def signs_of_zero(plan, a, b):
    """Products that vanish keep their sign, but not through a bias or ReLU; and a bias that is no number."""
    tiny = torch.tensor(1e-30)
    bias = torch.tensor([float("nan"), 0.5, float("inf")]).repeat(b.shape[1])[: b.shape[1]]
    for relu in (False, True):
        yield OpCase("int8_matmul_dequantize", a, b, tiny, tiny, relu=relu, plan=plan)
        yield OpCase("int8_matmul_requantize", a, b, scales(), scales(), scales(), relu=relu, bias=bias, plan=plan)


def fixed_multipliers(plan, a, b):
    """Every multiplier, of a row, meets every product, of a column's bias, in each of a thread's rows and columns."""
    powers = torch.exp2(torch.tensor([-40.0, -33, -32, -31, -20, -8, -2, -1, 0, 1, 2, 7, 20, 29, 30, 40]))
    near = [0, 1, -1, 3, -3, 5, 100, -100, 2**20, -(2**20), 2**30, -(2**30)]
    bias = torch.tensor([-(2**31), 1 - 2**31, 2**31 - 1, 2**31 - 2, *near], dtype=torch.int32).repeat(4)
    one = torch.tensor(1.0)
    for relu in (False, True):
        options = {"bias": bias, "relu": relu, "mode": "fixed", "plan": plan}
        yield OpCase(
            "int8_matmul_requantize", 0 * a, b, powers.repeat(a.shape[0] // len(powers))[:, None], one, one, **options
        )
        next_power = (torch.tensor(1 - 2.0**-17), torch.tensor(1 + 2.0**-17), torch.tensor(2.0))
        yield OpCase("int8_matmul_requantize", 0 * a, b, *next_power, **options)


def epilogue_cases(plan, batch, m, n, a_dtype, b_dtype, k=16, whole=True):
    """Every argument given or not; with `whole`, every type of result and what is special about it."""
    a = codes(*batch, m, k, dtype=a_dtype)
    b = codes(*batch, n, k, dtype=b_dtype, seed=1).transpose(-1, -2)
    a_zero_point, b_zero_point = zero_points(*batch, m, 1, dtype=a_dtype), zero_points(*batch, 1, n, dtype=b_dtype)
    a_sum, b_sum = a.sum(-1, True, dtype=torch.int32), b.sum(-2, True, dtype=torch.int32)
    a_scale, b_scale = scales(*batch, m, 1), scales(*batch, 1, n)
    bias = normal(2 * n)[::2]
    points = {"a_zero_point": a_zero_point, "b_zero_point": b_zero_point, "a_sum": a_sum, "b_sum": b_sum}
    common = {"plan": plan, **points}
    yield OpCase("int8_matmul", a, b, **common)
    out = {"out_zero_point": zero_points(*batch, 1, n), "q_min": -100, "q_max": 90}
    out_scale = 64 * scales(*batch, 1, n, seed=5)
    yield OpCase("int8_matmul_requantize", a, b, a_scale, b_scale, out_scale, bias=bias, **out, **common)
    fixed = {"bias": products(2 * n, most=2**12)[::2], "mode": "fixed", **out, **common}
    yield OpCase("int8_matmul_requantize", a, b, a_scale, b_scale, out_scale, **fixed)
    if not whole:
        return
    for dtype in FLOAT_DTYPES:
        yield OpCase("int8_matmul_dequantize", a, b, a_scale, b_scale, bias=bias, dtype=dtype, plan=plan)
    yield OpCase("int8_matmul_dequantize", a, b, a_scale, b_scale, relu=True, **common)
    yield OpCase("int8_matmul_requantize", a, b, a_scale, b_scale, scales(), q_min=-5, q_max=5, plan=plan)
    yield OpCase("int8_matmul_requantize", a, b, a_scale, b_scale, 64 * scales(), dtype=torch.uint8, plan=plan)
    for dtype in FLOAT_DTYPES:
        for offset in (1, 2, 4):
            yield PlacedCase(offset, "int8_matmul_dequantize", a, b, a_scale, b_scale, dtype=dtype, plan=plan)
    for offset in (1, 2, 4):
        yield PlacedCase(offset, "int8_matmul", a, b, plan=plan)
        yield PlacedCase(offset, "int8_matmul_requantize", a, b, a_scale, b_scale, scales(), plan=plan)
    yield from signs_of_zero(plan, a, b)
    rows = 16 if plan[0] == GEMV else 64
    yield from fixed_multipliers(plan, codes(rows, k, dtype=a_dtype), codes(64, k, dtype=b_dtype).t())
