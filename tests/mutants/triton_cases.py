"""Launches of the kernels that Triton compiled: pipelines of asynchronous copies, swizzles and shuffles to mutate."""

from functools import partial

import numpy as np

from tests import triton_kernels


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
        # The first is small and finds most; the others have tails of every side and use each stage three times.
        for m, n, k in ((40, 48, 48), (1, 16, 16), (100, 80, 528), (65, 144, 64)):
            a, b = triton_kernels.random_codes(rng, m, k), triton_kernels.random_codes(rng, n, k)
            start = partial(_matmul, name, a, b)
            yield TritonCase(start, triton_kernels.product(a, b))
    elif name.startswith("absmax"):
        make = triton_kernels.random_halves if "half" in name else triton_kernels.random_floats
        for m, n in ((2, 48), (3, 1296), (5, 512)):
            x = make(rng, m, n)
            yield TritonCase(partial(_absmax, x), np.abs(x.astype(np.float32)).max(1))
    else:
        for m, n in ((1, 1), (3, 700), (4, 512)):
            x, scale = triton_kernels.random_reals(rng, m, n)
            yield TritonCase(partial(_quantize, x, scale), triton_kernels.quantized(x, scale))


def _matmul(name, a, b, module, seed):
    return triton_kernels.matmul(module, name, a, b, seed)


def _absmax(x, module, seed):
    return triton_kernels.absmax(module, x, seed)


def _quantize(x, scale, module, seed):
    return triton_kernels.quantize(module, x, scale, seed)
