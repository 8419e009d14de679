"""Launches of the kernels that Triton compiled: pipelines of asynchronous copies, swizzles and shuffles to mutate."""

from functools import partial

import numpy as np

from tests import triton_kernels

# Last rows and columns in every part of a tile, tails of K in every stage, stages used three times, and no K at all.
MATMUL_SIZES = (
    *((m, 16, 16) for m in (1, 10, 20, 28, 36, 50, 60, 72, 88, 104, 120)),
    *((16, n, 16) for n in (32, 48, 64)),
    *(
        (40, 48, 48),
        (16, 16, 0),
        (130, 16, 16),
        (10, 48, 80),
        (70, 16, 144),
        (40, 64, 208),
        (100, 80, 528),
        (65, 144, 64),
    ),
)


class TritonCase:
    """`start(module, seed)` gives a launch's result and its output, which must be `expected`."""

    def __init__(self, start, expected):
        self.start, self.expected = start, expected

    def run(self, module, seed):
        result, output = self.start(module, seed=seed)
        if result.reports:
            raise AssertionError("\n".join(map(str, result.reports)))
        assert np.array_equal(output, self.expected), "wrong bits"
        return result


def cases_of(name):
    rng = np.random.default_rng(0)
    if name in triton_kernels.MATMULS:
        for m, n, k in MATMUL_SIZES:
            a, b = triton_kernels.random_codes(rng, m, k), triton_kernels.random_codes(rng, n, k)
            yield TritonCase(partial(_matmul, name, a, b), triton_kernels.product(a, b))
    elif name.startswith("absmax"):
        make = triton_kernels.random_halves if "half" in name else triton_kernels.random_floats
        for m, n in ((2, 16), (5, 160), (4, 304), (3, 448), (9, 1296), (5, 512)):
            x = make(rng, m, n)
            for row, place in enumerate((0, 1, 127, 128, 511, 512, 513, n - 1)):  # where a row's largest is
                if row < m and place < n:
                    x[row, place] = np.float16(60000) if "half" in name else np.float32(3e38)
            yield TritonCase(partial(_absmax, x), np.abs(x.astype(np.float32)).max(1))
        nothing = np.zeros((2, 0), np.float16 if "half" in name else np.float32)
        yield TritonCase(partial(_absmax, nothing), np.zeros(2, np.float32))
        if name == "absmax":
            x = make(rng, 2, 1)
            yield TritonCase(partial(_absmax, x), np.abs(x[:, 0]))
    else:
        for m, n in ((1, 1), (2, 300), (2, 450), (3, 700), (4, 512)):
            x, scale = triton_kernels.random_reals(rng, m, n)
            yield TritonCase(partial(_quantize, x, scale), triton_kernels.quantized(x, scale))


def _matmul(name, a, b, module, seed):
    return triton_kernels.matmul(module, name, a, b, seed)


def _absmax(x, module, seed):
    return triton_kernels.absmax(module, x, seed)


def _quantize(x, scale, module, seed):
    return triton_kernels.quantize(module, x, scale, seed)
