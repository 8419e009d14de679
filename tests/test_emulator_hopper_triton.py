"""Hopper kernels that Triton compiled run right in the emulator: wgmma, tensor maps and mbarriers as others use them.

Triton's compiler is proven on GPUs. Where the PTX comes from: tests/emulator/triton/kernels_sm90.py.
"""

import re

import numpy as np
import pytest

from tests.emulator import Module, tensor_map
from tests.triton_kernels import SCRATCH, product, random_codes, text

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
    "sm90_maps_i16_64x128x64_3": (64, 128, 64, 4, 3),
    "sm90_maps_i8_128x64x64_3": (128, 64, 64, 8, 3),
}
KERNELS = {**POINTERS, **MAPS}
RESULTS = {"sm90_maps_i16_64x128x64_3": np.int16, "sm90_maps_i8_128x64x64_3": np.int8}  # others give int32
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
            *described(c, (tile_m, min(tile_n, 128 // c.itemsize)), f"{min(tile_n * c.itemsize, 128)}B"),
        ]
        return "matmul_tiles", [*maps, m, n, k]
    rows = "rows" in name
    return "matmul", [a, np.ascontiguousarray(b.T) if rows else b, c, m, n, k, n if rows else k]


def matmul(name, a, b, seed=0, ptx=None):
    """(result, c): b is [N,K]"""
    tile_m, tile_n, _, warps, _ = KERNELS[name]
    c = np.full((a.shape[0], b.shape[0]), -1, RESULTS.get(name, np.int32))
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
        np.testing.assert_array_equal(c, product(a, b).astype(c.dtype))


# What is deleted below, from the start of an instruction's name. A wait for a phase becomes one that is over at once.
SYNCHRONIZES = (
    *("mbarrier.init", "mbarrier.arrive", "mbarrier.try_wait", "wgmma.fence", "wgmma.commit_group", "wgmma.wait_group"),
    *("fence.proxy.async", "cp.async.bulk", "cp.async.wait_group", "cp.async.commit_group", "elect.sync"),
)
# Deleted, these change nothing, (kernel, its number among those of its name):
EQUIVALENT = {
    # the first group becomes part of the second, and both are waited for together
    *((name, "cp.async.commit_group", 0) for name in POINTERS if "rows" not in name),
    # the tile of A becomes part of B's group, and wait_group 0 waits for both
    ("sm90_64x32x128_2", "cp.async.commit_group", 2),
}


def deletions(name):
    """(what, number, the text without it) for each instruction that orders or waits."""
    lines = text(name).splitlines()
    numbers = dict.fromkeys(SYNCHRONIZES, -1)
    for at, line in enumerate(lines):
        opcode = re.sub(r"@!?%p\d+\s+", "", line.strip())
        for what in SYNCHRONIZES:
            if opcode.startswith(what):
                numbers[what] += 1
                instead = ["setp.eq.u32 complete, 0, 0;"] if what == "mbarrier.try_wait" else []
                yield what, numbers[what], line, "\n".join([*lines[:at], *instead, *lines[at + 1 :]])


def is_noticed(name, ptx, seeds=(0, 1)):
    """Reported, or the bits are wrong."""
    tile_m, tile_n, tile_k, _, stages = KERNELS[name]
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, tile_m, 3 * stages * tile_k), random_codes(rng, tile_n, 3 * stages * tile_k)
    for seed in seeds:
        result, c = matmul(name, a, b, seed, ptx)
        if not result.ok or not np.array_equal(c, product(a, b).astype(c.dtype)):
            return True
    return False


@pytest.mark.parametrize("name", KERNELS)
def test_everything_that_orders_matters(name):
    """Barriers of the mbarrier kind that are destroyed at the end are not among it: nothing uses their bytes again.

    The elections before that are not either: they come after the kernel's last elected copy into shared memory.
    """
    lines = text(name).splitlines()
    destroyed = next((at for at, line in enumerate(lines) if "mbarrier.inval" in line), len(lines))
    of_the_end = sum("elect.sync" in line for line in lines[destroyed - 4 : destroyed])
    count = 0
    elections = sum("elect.sync" in line for line in lines[:destroyed]) - of_the_end
    for what, number, line, without in deletions(name):
        destroys = what == "elect.sync" and elections <= number < elections + text(name).count("mbarrier.inval")
        expected = not destroys and (name, what, number) not in EQUIVALENT
        assert is_noticed(name, without) == expected, line
        count += expected
    assert count >= (13 if name in MAPS else 8)


@pytest.mark.parametrize("name", KERNELS)
def test_block_barriers_matter_together(name):
    """Triton puts one before each copy. One alone may go, as the next one does its work; not all of a loop's.

    But for a single warpgroup that copies by maps: each thread waits for the mbarrier, and for wgmma of all four warps.
    """
    lines = text(name).splitlines()
    first = next(at for at, line in enumerate(lines) if "Inner Loop Header" in line)
    label = lines[first].split(":")[0]
    last = next(at for at, line in enumerate(lines) if line.endswith(f"bra \t{label};"))
    barriers = [at for at, line in enumerate(lines) if line.strip().startswith("bar.sync")]

    def without(some):
        return "\n".join(line for at, line in enumerate(lines) if at not in some)

    loop = [at for at in barriers if first < at < last]
    assert len(loop) >= 2
    lone = name in MAPS and KERNELS[name][3] == 4
    assert is_noticed(name, without(loop), seeds=range(4)) != lone
    if name in MAPS:  # where mbarriers are initialized before
        assert is_noticed(name, without([at for at in barriers if at < first]), seeds=range(4))


@pytest.mark.parametrize(
    ("name", "right", "wrong", "kind"),
    [
        ("sm90_maps_128x128x64_3", "b64 _, [%r6], 16384", "b64 _, [%r6], 16400", "deadlock"),
        ("sm90_maps_128x128x64_3", "b64 _, [%r6], 16384", "b64 _, [%r6], 8192", "asynchronous copy not waited for"),
        ("sm90_maps_128x128x64_3", "b64 [%r6], 1;", "b64 [%r6], 2;", "deadlock"),
        ("sm90_128x128x64_4", "cp.async.wait_group \t4;", "cp.async.wait_group 5;", "asynchronous copy not waited for"),
        ("sm90_128x128x64_4", "wait_group.sync.aligned 0;", "wait_group.sync.aligned 1;", "wgmma not waited for"),
        ("sm90_maps_64x64x128_4", "wait_group.sync.aligned 0;", "wait_group.sync.aligned 1;", "wgmma not waited for"),
    ],
)
def test_wrong_counts(name, right, wrong, kind):
    tile_m, tile_n, tile_k, _, stages = KERNELS[name]
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, tile_m, 3 * stages * tile_k), random_codes(rng, tile_n, 3 * stages * tile_k)
    assert right in text(name)
    result, _ = matmul(name, a, b, 0, text(name).replace(right, wrong))
    assert kind in {report.kind for report in result.reports}


@pytest.mark.parametrize("name", MAPS)
def test_another_swizzle_gives_other_bits(name, monkeypatch):
    rng = np.random.default_rng(0)
    tile_m, tile_n, tile_k, *_ = MAPS[name]
    a, b = random_codes(rng, tile_m, 4 * tile_k), random_codes(rng, tile_n, 4 * tile_k)
    right = tensor_map
    for wrong_rows in (tile_k, 32):  # of A and B, or of C
        with monkeypatch.context() as patch:
            plain = lambda array, box, swizzle, rows=wrong_rows: right(array, box, None if box[1] == rows else swizzle)  # noqa: E731
            patch.setitem(globals(), "tensor_map", plain)
            result, c = matmul(name, a, b)
        assert result.ok
        assert not np.array_equal(c, product(a, b))
