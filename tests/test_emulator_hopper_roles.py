"""Hopper kernels whose warps have roles, as Triton compiled them, run right in the emulator.

One warp copies tiles and waits until stages are empty; four multiply them, from shared memory or with one operand in
registers. Where the PTX comes from: tests/emulator/triton/kernels_sm90_roles.py.
"""

import re

import numpy as np
import pytest

from tests.emulator import Module
from tests.test_emulator_hopper_triton import described
from tests.triton_kernels import SCRATCH, product, random_codes, text

# file -> (tile of M, tile of N, tile of K, stages)
KERNELS = {"sm90_roles_128x64x64_3": (128, 64, 64, 3), "sm90_roles_64x64x128_2": (64, 64, 128, 2)}


def matmul(name, a, b, seed=0, ptx=None):
    """(reports, c): b is [N,K]. Eight warps: four multiply, one copies, and three fill up its warpgroup."""
    tile_m, tile_n, tile_k, _ = KERNELS[name]
    (m, k), n = a.shape, b.shape[0]
    c = np.full((m, n), -1, np.int32)
    maps = [*described(a, (tile_m, tile_k), f"{tile_k}B"), *described(b, (tile_n, tile_k), f"{tile_k}B")]
    module = Module.from_ptx(ptx or text(name), "sm_90")
    grid = (-(-m // tile_m), -(-n // tile_n))
    result = module.launch(
        "matmul_by_roles", grid=grid, block=256, args=[*maps, c, m, n, k, *SCRATCH], shared=64 * 1024, seed=seed
    )
    return [report for report in result.reports if not is_harmless(report)], c


def is_harmless(report):
    """All threads tell the other warps their roles by storing the same word: a race of equal values."""
    return report.kind == "shared race" and report.ptx.startswith("st.shared.b32 \t[global_smem+")


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("seed", range(6))
def test_matmul(name, seed):
    tile_m, tile_n, tile_k, stages = KERNELS[name]
    rng = np.random.default_rng(seed)
    long = 4 * stages * tile_k  # each stage is used four times
    for m, n, k in ((tile_m, tile_n, long), (tile_m + 22, tile_n + 16, long - tile_k + 16), (1, 1, 16)):
        a, b = random_codes(rng, m, k), random_codes(rng, n, k)
        reports, c = matmul(name, a, b, seed)
        assert not reports, [str(report) for report in reports]
        np.testing.assert_array_equal(c, product(a, b))


def seen(name, ptx):
    """Kinds of reports, and "wrong bits", of the first seed that gives any."""
    tile_m, tile_n, tile_k, stages = KERNELS[name]
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, tile_m, 4 * stages * tile_k), random_codes(rng, tile_n, 4 * stages * tile_k)
    for seed in range(3):
        reports, c = matmul(name, a, b, seed, ptx)
        found = {report.kind for report in reports} | ({"wrong bits"} if (c != product(a, b)).any() else set())
        if found:
            return found
    return set()


ORDERS = ("mbarrier.init", "mbarrier.arrive", "mbarrier.try_wait", "wgmma.", "cp.async.bulk", "elect.sync")


@pytest.mark.parametrize("name", KERNELS)
def test_everything_that_orders_matters(name):
    """But for the last wgmma.wait_group where each step of the loop has waited for all groups already."""
    lines = text(name).splitlines()
    places = [at for at, line in enumerate(lines) if re.sub(r"@!?%p\d+\s+", "", line.strip()).startswith(ORDERS)]
    last_wait = max(at for at in places if "wgmma.wait_group" in lines[at])
    assert len(places) >= 24
    for at in places:
        # A wait for a phase becomes one that is over at once.
        instead = ["setp.eq.u32 complete, 0, 0;"] if "mbarrier.try_wait" in lines[at] else []
        found = seen(name, "\n".join([*lines[:at], *instead, *lines[at + 1 :]]))
        is_equivalent = at == last_wait and name == "sm90_roles_64x64x128_2"
        assert bool(found) != is_equivalent, lines[at]


def test_the_multiplying_warps_meet_before_one_of_them_releases_a_stage():
    """What ldmatrix read, each warp for itself. wgmma of all four is over when one of them has waited for it."""
    for name, expected in (("sm90_roles_64x64x128_2", {"shared race"}), ("sm90_roles_128x64x64_3", set())):
        lines = text(name).splitlines()
        release = next(at for at, line in enumerate(lines) if "mbarrier.arrive.shared::cta" in line)
        meeting = max(at for at in range(release) if "bar.sync" in lines[at])
        assert release - meeting < 5
        assert seen(name, "\n".join([*lines[:meeting], *lines[meeting + 1 :]])) == expected
