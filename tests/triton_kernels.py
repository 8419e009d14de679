"""The kernels that Triton compiled, with what they should give: launches for the emulator's tests and its mutants.

Where the PTX comes from: tests/emulator/triton/kernels.py.
"""

from pathlib import Path

import numpy as np

from tests.emulator import Module

TRITON = Path(__file__).parent / "emulator" / "triton"
DEVICE = "sm_80"
SCRATCH = [np.zeros(1, np.uint8)] * 2  # Triton's last two parameters, which these kernels do not use

# file -> (tile of M, tile of N, warps, bytes of dynamic shared memory)
MATMULS = {
    "matmul_64x64x64_3": (64, 64, 4, 16384),
    "matmul_128x64x64_4": (128, 64, 8, 36864),
    "matmul_32x32x32_1": (32, 32, 2, 2048),
    "matmul_rows_64x64x32_2": (64, 64, 4, 8192),
}
# The same of our kernels' tiles and stages, for benchmarks/beside_triton.py.
OF_OUR_TILES = {
    "matmul_128x256x64_3": (128, 256, 8, 49152),
    "matmul_128x128x64_3": (128, 128, 4, 32768),
    "matmul_64x64x64_4": (64, 64, 4, 24576),
    "matmul_32x128x64_4": (32, 128, 4, 30720),
}
NAMES = (*MATMULS, "absmax", "absmax_half", "quantize")


def text(name):
    return (TRITON / f"{name}.ptx").read_text()


def module(name):
    return Module.from_ptx(text(name), DEVICE)


def launch(module, kernel, grid, warps, args, *, shared, seed=0):
    args = [*args, *SCRATCH]
    return module.launch(kernel, grid=grid, block=32 * warps, args=args, shared=shared, seed=seed)


def matmul(module, name, a, b, seed=0):
    """(result, c): b is [N,K]"""
    tile_m, tile_n, warps, shared = (MATMULS | OF_OUR_TILES)[name]
    (m, k), n = a.shape, b.shape[0]
    c = np.full((m, n), -1, np.int32)
    grid = (-(-m // tile_m), -(-n // tile_n))
    rows = "rows" in name
    memory = np.ascontiguousarray(b.T) if rows else b
    args = [a, memory, c, m, n, k, n if rows else k]
    return launch(module, "matmul", grid, warps, args, shared=shared, seed=seed), c


def random_codes(rng, *shape):
    return rng.integers(-128, 128, shape, dtype=np.int8)


def product(a, b):
    return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.int64)  # exact: below 2**53


def absmax(module, x, seed=0):
    """(result, largest): its name ends in _half for float16"""
    largest = np.zeros(len(x), np.float32)
    return launch(module, "absmax", len(x), 4, [x, largest, x.shape[1]], shared=16, seed=seed), largest


def random_floats(rng, m, n):
    return (rng.standard_normal((m, n)) * 10.0 ** rng.integers(-30, 30, (m, n))).astype(np.float32)


def random_halves(rng, m, n):
    """Every exponent, and zeros."""
    x = rng.integers(0, 0x7C00, (m, n), dtype=np.uint16) | rng.choice(np.array([0, 0x8000], np.uint16), (m, n))
    x = x.view(np.float16)
    x[:, rng.integers(0, n, n // 2)] = 0
    return x


def quantize(module, x, scale, seed=0):
    """(result, q)"""
    m, n = x.shape
    q = np.zeros((m, n), np.int8)
    result = launch(module, "quantize", (m, -(-n // 512)), 4, [x, scale, q, m, n], shared=0, seed=seed)
    return result, q


def quantized(x, scale):
    """What quantize should give."""
    exact = x / scale[:, None]
    size = (np.minimum(np.abs(exact), np.float32(127)) + np.float32(0.5)).astype(np.int32)
    return np.where(exact < 0, -size, size)


def random_reals(rng, m, n):
    """(x, scale) for quantize: ties, zeros and what saturates among them."""
    x = rng.standard_normal((m, n)).astype(np.float32)
    x.flat[:: 1 + n // 9] = rng.choice(np.array([0.0, -0.0, 0.5, -0.5, 1e30, -1e30], np.float32))
    return x, (np.abs(rng.standard_normal(m)) / 64 + 1e-3).astype(np.float32)
