"""Kernels for Hopper in Triton's Gluon, whose PTX is beside them: one warp copies tiles for four that multiply them.

    pip install --no-deps triton==3.7.1
    python tests/emulator/triton/kernels_sm90_roles.py

compiles them again for sm_90, with no GPU. The tests read the .ptx files and need no Triton.
"""

from kernels import HERE, shortened
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait


@gluon.jit
def load_tiles(a, b, a_tiles, b_tiles, full, empty, row, column, k, tile_k: gl.constexpr, stages: gl.constexpr):
    for step in range(gl.cdiv(k, tile_k)):
        stage = step % stages
        mbarrier.wait(empty.index(stage), ((step // stages) & 1) ^ 1)
        mbarrier.expect(full.index(stage), a.nbytes_per_cta + b.nbytes_per_cta)
        tma.async_copy_global_to_shared(a, [row, step * tile_k], full.index(stage), a_tiles.index(stage))
        tma.async_copy_global_to_shared(b, [column, step * tile_k], full.index(stage), b_tiles.index(stage))


@gluon.jit
def multiply_tiles(
    c, a_tiles, b_tiles, full, empty, row, column, m, n, k, tile_m: gl.constexpr, tile_n: gl.constexpr,
    tile_k: gl.constexpr, stages: gl.constexpr, pending: gl.constexpr, in_registers: gl.constexpr,
):  # fmt: skip
    """`pending`: products that go on while the next stage is awaited. `in_registers`: whether tiles of a are."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, tile_n, 32])
    acc = gl.zeros((tile_m, tile_n), dtype=gl.int32, layout=layout)
    for step in range(gl.cdiv(k, tile_k)):
        stage = step % stages
        mbarrier.wait(full.index(stage), (step // stages) & 1)
        a_tile = a_tiles.index(stage)
        if in_registers:
            a_tile = a_tile.load(gl.DotOperandLayout(0, layout, 4))
        acc = warpgroup_mma(a_tile, b_tiles.index(stage).permute((1, 0)), acc, is_async=True)
        acc = warpgroup_mma_wait(pending, deps=(acc,))
        mbarrier.arrive(empty.index((step + stages - pending) % stages), pred=step >= pending)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    rows = row + gl.arange(0, tile_m, layout=gl.SliceLayout(1, layout))
    columns = column + gl.arange(0, tile_n, layout=gl.SliceLayout(0, layout))
    gl.store(c + rows[:, None] * n + columns[None, :], acc, mask=(rows[:, None] < m) & (columns[None, :] < n))


@gluon.jit
def matmul_by_roles(
    a, b, c, m, n, k, tile_m: gl.constexpr, tile_n: gl.constexpr, tile_k: gl.constexpr, stages: gl.constexpr,
    pending: gl.constexpr, in_registers: gl.constexpr,
):  # fmt: skip
    """c [m,n] = a [m,k] b [n,k] transposed, a and b by tensor maps; int8 to int32."""
    row = gl.program_id(0) * tile_m
    column = gl.program_id(1) * tile_n
    a_tiles = gl.allocate_shared_memory(gl.int8, [stages, tile_m, tile_k], a.layout)
    b_tiles = gl.allocate_shared_memory(gl.int8, [stages, tile_n, tile_k], b.layout)
    full = mbarrier.allocate_mbarrier(batch=stages)
    empty = mbarrier.allocate_mbarrier(batch=stages)
    for i in gl.static_range(stages):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    gl.warp_specialize([
        (multiply_tiles, (c, a_tiles, b_tiles, full, empty, row, column, m, n, k, tile_m, tile_n, tile_k, stages,
                          pending, in_registers)),
        (load_tiles, (a, b, a_tiles, b_tiles, full, empty, row, column, k, tile_k, stages)),
    ], [1], [24])  # fmt: skip


FILES = {
    "sm90_roles_128x64x64_3": (128, 64, 64, 3, 1, False),
    "sm90_roles_64x64x128_2": (64, 64, 128, 2, 0, True),
}


def compile_ptx(tile_m, tile_n, tile_k, stages, pending, in_registers):
    layout = gl.NVMMASharedLayout(tile_k, 8)
    maps = {name: f"tensordesc<i8[{rows}, {tile_k}],{layout!r}>" for name, rows in (("a", tile_m), ("b", tile_n))}
    constants = {"tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k, "stages": stages}
    constants |= {"pending": pending, "in_registers": in_registers}
    signature = {**maps, "c": "*i32", **dict.fromkeys("mnk", "i32"), **dict.fromkeys(constants, "constexpr")}
    source = GluonASTSource(matmul_by_roles, signature, constants)
    return shortened(compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["ptx"])


if __name__ == "__main__":
    for each, what in FILES.items():
        (HERE / f"{each}.ptx").write_text(compile_ptx(*what))
