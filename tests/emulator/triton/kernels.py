"""Triton kernels whose PTX is beside them: code that runs right on GPUs and that no author of the emulator wrote.

    pip install --no-deps triton==3.7.1
    python tests/emulator/triton/kernels.py

compiles them again for sm_80, with no GPU. The tests read the .ptx files and need no Triton.
"""

import re
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HERE = Path(__file__).parent


@triton.jit
def matmul(a, b, c, m, n, k, b_step, b_column, tile_m: tl.constexpr, tile_n: tl.constexpr, tile_k: tl.constexpr):
    """c [m,n] = a [m,k] b [k,n]; int8 to int32. b's strides are b_step and b_column, one of them a constant 1."""
    rows = tl.program_id(0) * tile_m + tl.arange(0, tile_m)
    columns = tl.program_id(1) * tile_n + tl.arange(0, tile_n)
    steps = tl.arange(0, tile_k)
    a_at = a + rows[:, None] * k + steps[None, :]
    b_at = b + steps[:, None] * b_step + columns[None, :] * b_column
    acc = tl.zeros((tile_m, tile_n), dtype=tl.int32)
    for first in range(0, k, tile_k):
        a_tile = tl.load(a_at, mask=(rows[:, None] < m) & (first + steps[None, :] < k), other=0)
        b_tile = tl.load(b_at, mask=(columns[None, :] < n) & (first + steps[:, None] < k), other=0)
        acc = tl.dot(a_tile, b_tile, acc, out_dtype=tl.int32)
        a_at += tile_k
        b_at += tile_k * b_step
    c_at = c + rows[:, None] * n + columns[None, :]
    tl.store(c_at, acc, mask=(rows[:, None] < m) & (columns[None, :] < n))


@triton.jit
def absmax(x, largest, n, tile: tl.constexpr):
    """largest [m] = max |x [m,n]| along the rows, one block a row."""
    row = tl.program_id(0)
    at = tl.arange(0, tile)
    most = tl.zeros((tile,), dtype=tl.float32)
    for first in range(0, n, tile):
        value = tl.load(x + row * n + first + at, mask=first + at < n, other=0.0)
        most = tl.maximum(most, tl.abs(value.to(tl.float32)))
    tl.store(largest + row, tl.max(most, axis=0))


@triton.jit
def quantize(x, scale, q, m, n, tile: tl.constexpr):
    """q [m,n] int8 = x [m,n] / scale [m], rounded half away from zero, clamped to +-127."""
    row = tl.program_id(0)
    at = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = at < n
    value = tl.load(x + row * n + at, mask=inside, other=0.0).to(tl.float32)
    exact = tl.div_rn(value, tl.load(scale + row))
    size = (tl.minimum(tl.abs(exact), 127.0) + 0.5).to(tl.int32)
    code = tl.where(exact < 0, -size, size)
    tl.store(q + row * n + at, code.to(tl.int8), mask=inside)


MATMUL = {**dict.fromkeys("ab", "*i8"), "c": "*i32", **dict.fromkeys("mnk", "i32")}
COLUMNS = {**MATMUL, "b_step": 1, "b_column": "i32"}  # b's columns are contiguous: weights as they are kept
ROWS = {**MATMUL, "b_step": "i32", "b_column": 1}
# file -> (kernel, types of its arguments or constants, warps, stages, arguments that are multiples of 16)
FILES = {
    "matmul_64x64x64_3": (matmul, {**COLUMNS, "tile_m": 64, "tile_n": 64, "tile_k": 64}, 4, 3, "a b c n k b_column"),
    "matmul_128x64x64_4": (matmul, {**COLUMNS, "tile_m": 128, "tile_n": 64, "tile_k": 64}, 8, 4, "a b c n k b_column"),
    "matmul_32x32x32_1": (matmul, {**COLUMNS, "tile_m": 32, "tile_n": 32, "tile_k": 32}, 2, 1, "a b c n k b_column"),
    "matmul_128x256x64_3": (
        matmul,
        {**COLUMNS, "tile_m": 128, "tile_n": 256, "tile_k": 64},
        8,
        3,
        "a b c n k b_column",
    ),
    "matmul_128x128x64_3": (
        matmul,
        {**COLUMNS, "tile_m": 128, "tile_n": 128, "tile_k": 64},
        4,
        3,
        "a b c n k b_column",
    ),
    "matmul_64x64x64_4": (matmul, {**COLUMNS, "tile_m": 64, "tile_n": 64, "tile_k": 64}, 4, 4, "a b c n k b_column"),
    "matmul_32x128x64_4": (matmul, {**COLUMNS, "tile_m": 32, "tile_n": 128, "tile_k": 64}, 4, 4, "a b c n k b_column"),
    "matmul_rows_64x64x32_2": (matmul, {**ROWS, "tile_m": 64, "tile_n": 64, "tile_k": 32}, 4, 2, "a b c n k b_step"),
    "absmax": (absmax, {"x": "*fp32", "largest": "*fp32", "n": "i32", "tile": 512}, 4, 1, ""),
    "absmax_half": (absmax, {"x": "*fp16", "largest": "*fp32", "n": "i32", "tile": 512}, 4, 1, "x n"),
    "quantize": (quantize, {"x": "*fp32", "scale": "*fp32", "q": "*i8", "m": "i32", "n": "i32", "tile": 512}, 4, 1, ""),
}


def compile_ptx(kernel, arguments, warps, stages, aligned, capability=80):
    constants = {each: value for each, value in arguments.items() if isinstance(value, int)}
    signature = {each: "constexpr" if each in constants else kind for each, kind in arguments.items()}
    multiples = {(list(signature).index(each),): [["tt.divisibility", 16]] for each in aligned.split()}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=multiples)
    options = {"num_warps": warps, "num_stages": stages}
    return shortened(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"])


def shortened(text):
    """Without debugging sections and the folder that the source stood in: they say nothing about the kernel."""
    text = re.sub(r"\n\s*\.section\s.*?\n\s*\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*\.section\s[^\n]*\}", "", text)
    return re.sub(r'(\.file\s+\d+\s+)"[^"]*/', r'\1"', text)


if __name__ == "__main__":
    for each, what in FILES.items():
        (HERE / f"{each}.ptx").write_text(compile_ptx(*what))
