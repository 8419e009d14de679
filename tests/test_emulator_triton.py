"""Kernels that Triton compiled run right in the emulator: PTX that no author of the emulator wrote.

Triton's compiler is proven on GPUs: an emulator that misreads the PTX ISA would not give
their results.
Where the PTX comes from: tests/emulator/triton/kernels.py.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.emulator import Module

TRITON = Path(__file__).parent / "emulator" / "triton"
DYNAMIC_SHARED = 64 * 1024
SCRATCH = [np.zeros(1, np.uint8)] * 2  # Triton's last two parameters, which these kernels do not use


def text(name):
    return (TRITON / f"{name}.ptx").read_text()


def launch(ptx, kernel, grid, warps, args, seed=0):
    module = Module.from_ptx(ptx, "sm_80")
    args = [*args, *SCRATCH]
    return module.launch(kernel, grid=grid, block=32 * warps, args=args, shared=DYNAMIC_SHARED, seed=seed)


# file -> (tile of M, tile of N, warps)
MATMULS = {
    "matmul_64x64x64_3": (64, 64, 4),
    "matmul_128x64x64_4": (128, 64, 8),
    "matmul_32x32x32_1": (32, 32, 2),
    "matmul_rows_64x64x32_2": (64, 64, 4),
}


def matmul(name, a, b, seed=0, ptx=None):
    """(result, c): b is [N,K]"""
    tile_m, tile_n, warps = MATMULS[name]
    (m, k), n = a.shape, b.shape[0]
    c = np.full((m, n), -1, np.int32)
    grid = (-(-m // tile_m), -(-n // tile_n))
    rows = "rows" in name
    memory = np.ascontiguousarray(b.T) if rows else b
    args = [a, memory, c, m, n, k, n if rows else k]
    result = launch(ptx or text(name), "matmul", grid, warps, args, seed)
    return result, c


def random_codes(rng, *shape):
    return rng.integers(-128, 128, shape, dtype=np.int8)


def product(a, b):
    return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.int64)  # exact: below 2**53


@pytest.mark.parametrize("name", MATMULS)
@pytest.mark.parametrize("seed", range(4))
def test_matmul(name, seed):
    """Whole tiles, parts of tiles, and one step; K long enough to use each stage of the pipeline three times."""
    rng = np.random.default_rng(seed)
    for m, n, k in ((128, 64, 1024), (100, 80, 784), (1, 16, 16), (65, 144, 64)):
        a, b = random_codes(rng, m, k), random_codes(rng, n, k)
        result, c = matmul(name, a, b, seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(c, product(a, b))


def test_matmul_of_the_largest_codes():
    """Its mma saturates (.satfinite), so that 2**31 and more become 2**31 - 1."""
    for k, sign in ((131072, 1), (131072, -1), (131056, 1)):
        a, b = np.full((32, k), -128, np.int8), np.full((32, k), -128 if sign > 0 else 127, np.int8)
        result, c = matmul("matmul_32x32x32_1", a, b)
        assert result.ok, result.reports
        exact = k * int(a[0, 0]) * int(b[0, 0])
        np.testing.assert_array_equal(c, np.clip(np.full((32, 32), exact), -(2**31), 2**31 - 1))


@pytest.mark.parametrize("name", ["matmul_64x64x64_3", "matmul_128x64x64_4"])
def test_every_wait_and_barrier_matters(name):
    """Without one of its waits, barriers or groups, what Triton compiled races or reads what has not arrived.

    But for barriers before the first wait, when nothing has been read yet, and the first group: without its end it is
    part of the second, and both are waited for together.
    """
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, 128, 1024), random_codes(rng, 64, 1024)
    lines = text(name).splitlines()
    places = {
        opcode: [number for number, line in enumerate(lines) if line.strip().startswith(opcode)]
        for opcode in ("cp.async.wait_group", "cp.async.commit_group", "bar.sync")
    }
    first_wait = places["cp.async.wait_group"][0]
    matter = places["cp.async.wait_group"] + places["cp.async.commit_group"][1:]
    matter += [number for number in places["bar.sync"] if number > first_wait]
    assert len(matter) >= 9
    for number in matter:
        without = "\n".join([*lines[:number], *lines[number + 1 :]])
        seen = {report.kind for seed in (0, 1, 2) for report in matmul(name, a, b, seed, without)[0].reports}
        assert seen, f"{number + 1}: {lines[number]}"


@pytest.mark.parametrize("seed", range(4))
def test_absmax(seed):
    rng = np.random.default_rng(seed)
    for m, n in ((5, 512), (3, 1300), (2, 1), (2, 33)):
        x = (rng.standard_normal((m, n)) * 10.0 ** rng.integers(-30, 30, (m, n))).astype(np.float32)
        largest = np.zeros(m, np.float32)
        result = launch(text("absmax"), "absmax", m, 4, [x, largest, n], seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(largest, np.abs(x).max(1))
    for m, n in ((5, 512), (3, 1296)):
        x = rng.integers(0, 0x7C00, (m, n), dtype=np.uint16) | rng.choice(np.array([0, 0x8000], np.uint16), (m, n))
        x, largest = x.view(np.float16), np.zeros(m, np.float32)
        x[:, rng.integers(0, n, n // 2)] = 0
        result = launch(text("absmax_half"), "absmax", m, 4, [x, largest, n], seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(largest, np.abs(x.astype(np.float32)).max(1))


@pytest.mark.parametrize("seed", range(4))
def test_quantize(seed):
    rng = np.random.default_rng(seed)
    for m, n in ((4, 512), (3, 700), (1, 1)):
        x = rng.standard_normal((m, n)).astype(np.float32)
        x.flat[:: 1 + n // 9] = rng.choice(np.array([0.0, -0.0, 0.5, -0.5, 1e30, -1e30], np.float32))
        scale = (np.abs(rng.standard_normal(m)) / 64 + 1e-3).astype(np.float32)
        q = np.zeros((m, n), np.int8)
        grid = (m, -(-n // 512))
        result = launch(text("quantize"), "quantize", grid, 4, [x, scale, q, m, n], seed)
        assert result.ok, result.reports
        exact = x / scale[:, None]
        size = (np.minimum(np.abs(exact), np.float32(127)) + np.float32(0.5)).astype(np.int32)
        np.testing.assert_array_equal(q, np.where(exact < 0, -size, size))
