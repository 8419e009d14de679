"""Kernels that Triton compiled run right in the emulator: PTX that no author of the emulator wrote.

Triton's compiler is proven on GPUs: an emulator that misreads the PTX ISA would not give
their results.
Where the PTX comes from: tests/emulator/triton/kernels.py.
"""

import numpy as np
import pytest

from tests import triton_kernels
from tests.emulator import Module
from tests.triton_kernels import MATMULS, matmul, product, random_codes


@pytest.mark.parametrize("name", MATMULS)
@pytest.mark.parametrize("seed", range(4))
def test_matmul(name, seed):
    """Whole tiles, parts of tiles, and one step; K long enough to use each stage of the pipeline three times."""
    rng = np.random.default_rng(seed)
    module = triton_kernels.module(name)
    for m, n, k in ((128, 64, 1024), (100, 80, 784), (1, 16, 16), (65, 144, 64)):
        a, b = random_codes(rng, m, k), random_codes(rng, n, k)
        result, c = matmul(module, name, a, b, seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(c, product(a, b))


def test_matmul_of_the_largest_codes():
    """Its mma saturates (.satfinite), so that 2**31 and more become 2**31 - 1."""
    module = triton_kernels.module("matmul_32x32x32_1")
    for k, sign in ((131072, 1), (131072, -1), (131056, 1)):
        a, b = np.full((32, k), -128, np.int8), np.full((32, k), -128 if sign > 0 else 127, np.int8)
        result, c = matmul(module, "matmul_32x32x32_1", a, b)
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
    lines = triton_kernels.text(name).splitlines()
    places = {
        opcode: [number for number, line in enumerate(lines) if line.strip().startswith(opcode)]
        for opcode in ("cp.async.wait_group", "cp.async.commit_group", "bar.sync")
    }
    first_wait = places["cp.async.wait_group"][0]
    matter = places["cp.async.wait_group"] + places["cp.async.commit_group"][1:]
    matter += [number for number in places["bar.sync"] if number > first_wait]
    assert len(matter) >= 9
    for number in matter:
        without = Module.from_ptx("\n".join([*lines[:number], *lines[number + 1 :]]), triton_kernels.DEVICE)
        seen = {report.kind for seed in (0, 1, 2) for report in matmul(without, name, a, b, seed)[0].reports}
        assert seen, f"{number + 1}: {lines[number]}"


@pytest.mark.parametrize("seed", range(4))
def test_absmax(seed):
    rng = np.random.default_rng(seed)
    for m, n in ((5, 512), (3, 1300), (2, 1), (2, 33)):
        x = triton_kernels.random_floats(rng, m, n)
        result, largest = triton_kernels.absmax(triton_kernels.module("absmax"), x, seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(largest, np.abs(x).max(1))
    for m, n in ((5, 512), (3, 1296)):
        x = triton_kernels.random_halves(rng, m, n)
        result, largest = triton_kernels.absmax(triton_kernels.module("absmax_half"), x, seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(largest, np.abs(x.astype(np.float32)).max(1))


@pytest.mark.parametrize("seed", range(4))
def test_quantize(seed):
    rng = np.random.default_rng(seed)
    for m, n in ((4, 512), (3, 700), (1, 1)):
        x, scale = triton_kernels.random_reals(rng, m, n)
        result, q = triton_kernels.quantize(triton_kernels.module("quantize"), x, scale, seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(q, triton_kernels.quantized(x, scale))
