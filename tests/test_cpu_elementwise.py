"""What the CPU's elementwise kernels do in another way from case to case gives the reference's bits with every
instruction set: vectors and their tails, elements that are no neighbours, quotients without a division, streams."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

import quaver
from quaver import PerToken, reference
from tests.cases import (
    CODE_DTYPES,
    EDGE_SCALES,
    EDGE_VALUES,
    FLOAT_DTYPES,
    MODES,
    assert_bits,
    codes,
    generator,
    layouts,
    normal,
    scales,
    zero_points,
)

CAPABILITIES = ("portable", "avx2", "avx512")
LENGTHS = range(131)  # more than two vectors of bytes
STREAMED = 48 * 2**20  # bytes of a result from which it is streamed: csrc/cpu/kernels/stream.h


def check(x, scale, zero_point=None, ops=("quantize", "fake_quantize", "fake_quantize_mask"), **options):
    for op in ops:
        actual = getattr(quaver, op)(x, scale, zero_point, **options)
        assert_bits(actual, getattr(reference, op)(x, scale, zero_point, **options))


def check_dynamic(x, **options):
    q, params, row_sum = quaver.dynamic_quantize(x, PerToken(), return_row_sum=True, **options)
    results = (q, params.scale, params.zero_point, row_sum)
    expected = reference.dynamic_quantize(x, [*x.shape[:-1], 1], return_row_sum=True, **options)
    for actual, wanted in zip(results, expected, strict=True):
        assert_bits(actual, wanted)


def with_edges(*shape, dtype=torch.float32, seed=0):
    """Random numbers, and among them what goes wrong."""
    x = normal(*shape, seed=seed) * 100
    place = torch.randperm(x.numel(), generator=generator(seed))[: len(EDGE_VALUES)]
    x.view(-1)[place] = EDGE_VALUES[: len(place)]
    return x.to(dtype)


def of_every_length():
    for n in LENGTHS:
        dtype = FLOAT_DTYPES[n % 3]
        for _, x in layouts(with_edges(3, n, dtype=dtype, seed=n)):
            mode = MODES[n % 4]
            check(x, torch.tensor(0.37), torch.tensor(-7), mode=mode, seed=n)
            check(x, scales(3, 1), zero_points(3, 1, dtype=torch.uint8), dtype=torch.uint8, mode=mode)
            check(x, scales(1, n), zero_points(1, n), mode=mode)
            check_dynamic(x, symmetric=n % 2 == 0)
        for _, q in layouts(codes(3, n, dtype=CODE_DTYPES[n % 2])):
            for scale in (torch.tensor(0.1), scales(3, 1), scales(1, n)):
                check(q, scale, ops=("dequantize",), dtype=dtype)


def by_scales_of_every_size():
    for dtype in FLOAT_DTYPES:
        x = with_edges(5, 131, dtype=dtype)
        for scale in torch.tensor((*EDGE_SCALES, 2.0**-60, 2.0**60, 2.0**-61, 2.0**61)):
            for mode in MODES:
                spread = x.float().mul(scale).clamp(-3e38, 3e38).to(dtype)
                for y in (x, spread):
                    check(y, scale, torch.tensor(11), mode=mode)
                    check(y, scale.expand(1, 131).contiguous(), zero_points(1, 131), mode=mode)


def next_to_ties():
    """The floats around every tie of many scales, where a quotient that is off by its last bit gives another code."""
    scale = torch.exp2(torch.rand(331, generator=generator()) * 100 - 50)
    scale[:40] = torch.nextafter(scale[:40].log2().round().exp2(), torch.tensor(torch.inf))  # significands of ones and
    scale[40:80] = torch.nextafter(scale[40:80].log2().round().exp2(), torch.tensor(0.0))  # noughts
    tie = (torch.arange(-140, 141).view(-1, 1) + 0.5) * scale
    bits = tie.view(torch.int32)
    for step, mode in product(range(-2, 3), ("onnx", "affine")):
        x = (bits + step).view(torch.float32)
        check(x, scale.view(1, -1), ops=("quantize",), mode=mode)
        check(x.t().contiguous(), scale.view(-1, 1), ops=("quantize", "fake_quantize_mask"), mode=mode)


def over_all_of_float16():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    for scale in (2.0**-20, 0.01, 3.0, 400.0):
        check(every, torch.tensor(scale))
        check(every.repeat(4, 1), torch.full((1, 2**16), scale))
    widened = every.view(256, 256)
    check_dynamic(widened)
    scale = torch.randint(0, 2**31 - 1, (2**16,), generator=generator(), dtype=torch.int32).view(torch.float32)
    for dtype in FLOAT_DTYPES:
        check(codes(2**16), scale, ops=("dequantize",), dtype=dtype)


def in_streams():
    """Results that go past the caches, from rows and to places that fit no line of them."""
    rows, columns = STREAMED // 4 // 4099 + 1, 4099
    q, scale = codes(rows, columns), scales(rows, 1)
    place = torch.full((rows * columns + 18,), -1.0)
    out = place[17:-1].view(rows, columns)
    quaver.dequantize(q, scale, out=out)
    assert_bits(out, reference.dequantize(q, scale))
    assert place[16] == place[-1] == -1.0, "written beyond the ends"

    x = normal(STREAMED // columns + 1, columns, dtype=torch.bfloat16)
    q = quaver.quantize(x, torch.tensor(0.02))
    for part in range(0, len(x), 2048):
        assert_bits(q[part : part + 2048], reference.quantize(x[part : part + 2048], torch.tensor(0.02)))


CHECKS = (of_every_length, by_scales_of_every_size, next_to_ties, over_all_of_float16, in_streams)


def main(wanted):
    capability = quaver.build_info()["cpu_capability"]
    print(capability)
    if capability == wanted:
        for run in CHECKS:
            run()


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_with_every_instruction_set(capability):
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.test_cpu_elementwise import main; main({capability!r})"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "QUAVER_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() != capability:
        pytest.skip(f"this machine has no {capability}, only {done.stdout.strip()}")
