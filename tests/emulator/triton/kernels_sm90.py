"""Triton kernels for Hopper whose PTX is beside them: wgmma, and copies by tensor maps.

    pip install --no-deps triton==3.7.1
    python tests/emulator/triton/kernels_sm90.py

compiles them again for sm_90, with no GPU. The tests read the .ptx files and need no Triton.
"""

import triton
import triton.language as tl
from kernels import COLUMNS, HERE, ROWS, compile_ptx, matmul


@triton.jit
def matmul_tiles(a, b, c, m, n, k, tile_m: tl.constexpr, tile_n: tl.constexpr, tile_k: tl.constexpr):
    """c [m,n] = a [m,k] b [n,k] transposed, each by a tensor map; int8 to int32, of which c keeps its width."""
    row = tl.program_id(0) * tile_m
    column = tl.program_id(1) * tile_n
    acc = tl.zeros((tile_m, tile_n), dtype=tl.int32)
    for first in range(0, k, tile_k):
        acc = tl.dot(a.load([row, first]), b.load([column, first]).T, acc, out_dtype=tl.int32)
    c.store([row, column], acc.to(c.dtype))


def by_pointers(operands, tile_m, tile_n, tile_k, warps, stages):
    step = "b_column" if operands is COLUMNS else "b_step"
    tiles = {"tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k}
    return matmul, {**operands, **tiles}, warps, stages, f"a b c n k {step}"


def by_maps(tile_m, tile_n, tile_k, warps, stages, result="i32"):
    tiles = {"tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k}
    maps = {"a": ("i8", tile_m, tile_k), "b": ("i8", tile_n, tile_k), "c": (result, tile_m, tile_n)}
    arguments = {name: f"tensordesc<{kind}[{rows},{columns}]>" for name, (kind, rows, columns) in maps.items()}
    return matmul_tiles, {**arguments, **dict.fromkeys("mnk", "i32"), **tiles}, warps, stages, ""


FILES = {
    "sm90_64x64x64_3": by_pointers(COLUMNS, 64, 64, 64, 4, 3),
    "sm90_128x128x64_4": by_pointers(COLUMNS, 128, 128, 64, 8, 4),
    "sm90_64x32x128_2": by_pointers(COLUMNS, 64, 32, 128, 4, 2),
    "sm90_rows_64x64x64_3": by_pointers(ROWS, 64, 64, 64, 4, 3),
    "sm90_maps_128x128x64_3": by_maps(128, 128, 64, 4, 3),
    "sm90_maps_64x64x128_4": by_maps(64, 64, 128, 4, 4),
    "sm90_maps_128x32x32_2": by_maps(128, 32, 32, 8, 2),
    "sm90_maps_64x256x32_3": by_maps(64, 256, 32, 4, 3),
    "sm90_maps_i16_64x128x64_3": by_maps(64, 128, 64, 4, 3, "i16"),
    "sm90_maps_i8_128x64x64_3": by_maps(128, 64, 64, 8, 3, "i8"),
}


if __name__ == "__main__":
    for each, what in FILES.items():
        (HERE / f"{each}.ptx").write_text(compile_ptx(*what, capability=90))
