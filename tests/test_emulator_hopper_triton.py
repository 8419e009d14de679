"""Hopper kernels that Triton compiled run right in the emulator: wgmma, tensor maps and mbarriers as others use them.

Triton's compiler is proven on GPUs. Where the PTX comes from: tests/emulator/triton/kernels_sm90.py.
"""

import numpy as np
import pytest

from tests.emulator import Module, tensor_map
from tests.test_emulator_triton import SCRATCH, product, random_codes, text

# file -> (tile of M, tile of N, tile of K, warps, stages)
POINTERS = {
    "sm90_64x64x64_3": (64, 64, 64, 4, 3),
    "sm90_128x128x64_4": (128, 128, 64, 8, 4),
    "sm90_64x32x128_2": (64, 32, 128, 4, 2),
    "sm90_rows_64x64x64_3": (64, 64, 64, 4, 3),
}
MAPS = {
    "sm90_maps_128x128x64_3": (128, 128, 64, 4, 3),
    "sm90_maps_64x64x128_4": (64, 64, 128, 4, 4),
    "sm90_maps_128x32x32_2": (128, 32, 32, 8, 2),
    "sm90_maps_64x256x32_3": (64, 256, 32, 4, 3),
}
KERNELS = {**POINTERS, **MAPS}
DYNAMIC_SHARED = 160 * 1024


def described(array, box, swizzle):
    """A tensor map, then the shape and the strides, as Triton's kernels take them."""
    strides = [stride // array.itemsize for stride in array.strides]
    return [tensor_map(array, box, swizzle), *array.shape, *strides]


def arguments(name, a, b, c):
    (m, k), n = a.shape, b.shape[0]
    if name in MAPS:
        tile_m, tile_n, tile_k, *_ = MAPS[name]
        maps = [
            *described(a, (tile_m, tile_k), f"{tile_k}B"),
            *described(b, (tile_n, tile_k), f"{tile_k}B"),
            *described(c, (tile_m, 32), "128B"),
        ]
        return "matmul_tiles", [*maps, m, n, k]
    rows = "rows" in name
    return "matmul", [a, np.ascontiguousarray(b.T) if rows else b, c, m, n, k, n if rows else k]


def matmul(name, a, b, seed=0, ptx=None):
    """(result, c): b is [N,K]"""
    tile_m, tile_n, _, warps, _ = KERNELS[name]
    c = np.full((a.shape[0], b.shape[0]), -1, np.int32)
    grid = (-(-c.shape[0] // tile_m), -(-c.shape[1] // tile_n))
    kernel, args = arguments(name, a, b, c)
    module = Module.from_ptx(ptx or text(name), "sm_90")
    result = module.launch(
        kernel, grid=grid, block=32 * warps, args=[*args, *SCRATCH], shared=DYNAMIC_SHARED, seed=seed
    )
    return result, c


def shapes(name):
    """Whole tiles, with K so long that each stage is used three times; parts of tiles; one step."""
    tile_m, tile_n, tile_k, _, stages = KERNELS[name]
    long = 3 * stages * tile_k
    return (
        (tile_m, tile_n, long),
        (tile_m + 36, tile_n + 16, long - tile_k + 16),
        (1, 16, 16),
        (tile_m - 3, tile_n // 2, tile_k),
    )


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("seed", range(3))
def test_matmul(name, seed):
    rng = np.random.default_rng(seed)
    for m, n, k in shapes(name):
        a, b = random_codes(rng, m, k), random_codes(rng, n, k)
        result, c = matmul(name, a, b, seed)
        assert result.ok, [str(report) for report in result.reports]
        np.testing.assert_array_equal(c, product(a, b))
