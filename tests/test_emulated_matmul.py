"""The tensor-core matmuls, run by the emulator: every tile, signedness, layout, result and zero point, at every edge.

Which kernel runs is forced here; which one a shape gets is the plan's affair.
"""

import re
import shutil
from dataclasses import dataclass
from itertools import product

import pytest
import torch

from quaver import reference
from tests.cases import (
    CODE_DTYPES,
    FLOAT_DTYPES,
    assert_bits,
    codes,
    in_every_run,
    normal,
    products,
    scales,
    zero_points,
)

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import DEVICES, emulated


@dataclass(frozen=True)
class Kernel:
    """A kernel of csrc/cuda/plan.h by its number there, its tile, its stages and whether it takes any layout."""

    number: int
    m: int
    n: int
    stages: int
    any_layout: bool = False

    def __str__(self):
        return f"{'any ' if self.any_layout else ''}{self.m}x{self.n}"


CHUNK_KERNELS = (Kernel(0, 128, 256, 3), Kernel(1, 128, 128, 3), Kernel(2, 64, 64, 4), Kernel(3, 32, 128, 4))
ANY_KERNELS = (Kernel(4, 128, 128, 3, True), Kernel(5, 64, 64, 3, True))
GEMV = Kernel(6, 16, 16, 4)  # "stages" are what it has under way
STAGE = 64  # codes along K

# Of kernels whose code does not depend on signedness but for one instruction, the rest is for `make test-deep`.
SIGNED = (torch.int8, torch.int8)
MIXED = [
    pytest.param(*pair, marks=[] if pair == SIGNED else pytest.mark.deep) for pair in product(CODE_DTYPES, CODE_DTYPES)
]

for_each_kernel = pytest.mark.parametrize("kernel", [*CHUNK_KERNELS, *ANY_KERNELS], ids=str)
for_each_signedness = pytest.mark.parametrize(
    ("a_dtype", "b_dtype"), list(product(CODE_DTYPES, CODE_DTYPES)), ids=lambda dtype: str(dtype)[6:]
)


def check(kernel, op, *args, splits=1, seed=1, device="sm_80", **options):
    """The op's results, of this kernel, are the reference's; gives the kernel's launches."""
    with emulated.matmul_plan(kernel.number, splits), emulated.device(device, seed=seed) as runs:
        actual = getattr(emulated.ops(), op)(*args, **options)
    assert_bits(actual, getattr(reference, op)(*args, **options))
    found = [run for run in runs if "matmul_sm80" in run.kernel or "matmul_gemv" in run.kernel]
    if kernel == GEMV:
        assert len(found) == 1
        return found
    tile = rf"MmaTileILNS_12MatmulKernelE{kernel.number}E.*{'Any' if kernel.any_layout else 'Chunk'}Operands"
    assert len(found) == 1
    assert re.search(tile, found[0].kernel)
    return found


def in_chunks(lines, k, dtype=torch.int8, seed=0):
    """Codes [lines, k] whose lines begin at multiples of 16 bytes, whatever k is."""
    wider = codes(lines, max((k + 15) // 16, 1) * 16, dtype=dtype, seed=seed)
    return wider[:, :k]


def operands(kernel, m, n, k, a_dtype=torch.int8, b_dtype=torch.int8):
    return in_chunks(m, k, a_dtype), in_chunks(n, k, b_dtype, seed=1).t()


def edges(tile):
    """Sizes at a tile's edge: one line, a part of a tile, a whole one, and a few lines of a second."""
    return (1, tile // 2 + 3, tile, tile + 5)


@for_each_kernel
@for_each_signedness
def test_every_edge(kernel, a_dtype, b_dtype):
    for seed, (m, n) in enumerate(product(edges(kernel.m), edges(kernel.n))):
        k = (1, 16, 60, 64, 65, 100, 144)[seed % 7]
        check(kernel, "int8_matmul", *operands(kernel, m, n, k, a_dtype, b_dtype), seed=seed)


@for_each_kernel
@for_each_signedness
def test_every_stage_comes_round_twice(kernel, a_dtype, b_dtype):
    """And the last codes are a whole stage, a part of one, of a chunk, one code; for several orders of warps."""
    stages = 2 * kernel.stages + 1
    m, n = kernel.m // 2 + 1, kernel.n // 2 + 9
    for seed, more in enumerate((0, 1, 15, 16, 17, 63)):
        k = stages * STAGE + more
        check(kernel, "int8_matmul", *operands(kernel, m, n, k, a_dtype, b_dtype), seed=seed)


@for_each_kernel
def test_no_codes_at_all(kernel):
    check(kernel, "int8_matmul", *operands(kernel, 3, 5, 0))


@for_each_kernel
def test_extreme_sums(kernel):
    """The largest products, whose sums of float32 would not be exact."""
    for a_dtype, b_dtype in product(CODE_DTYPES, CODE_DTYPES):
        a, b = operands(kernel, 17, 9, 8 * STAGE + 3, a_dtype, b_dtype)
        a[:] = torch.iinfo(a_dtype).min if a_dtype == torch.int8 else 255
        b[:] = torch.iinfo(b_dtype).min if b_dtype == torch.int8 else 255
        check(kernel, "int8_matmul", a, b)


@for_each_kernel
@pytest.mark.parametrize("splits", [2, 3, 8])
def test_parts_of_k(kernel, splits):
    for seed, k in enumerate((splits * STAGE, 7 * STAGE + 5, 8 * STAGE, 11 * STAGE + 1)):
        a, b = operands(kernel, kernel.m + 3, 70, k)
        points = {"a_zero_point": zero_points(kernel.m + 3, 1), "b_zero_point": zero_points(1, 70)}
        check(kernel, "int8_matmul", a, b, splits=splits, seed=seed)
        out_scale = 64 * scales(1, 70, seed=5)
        given = (a, b, scales(kernel.m + 3, 1), scales(1, 70), out_scale)
        check(kernel, "int8_matmul_requantize", *given, splits=splits, bias=normal(70), **points)


# Few rows


def gemv_operands(m, n, k, a_dtype=torch.int8, b_dtype=torch.int8):
    return codes(m, k, dtype=a_dtype), codes(n, k, dtype=b_dtype, seed=1).t()


@for_each_signedness
@pytest.mark.parametrize("device", ["sm_75", "sm_80"])
def test_few_rows(a_dtype, b_dtype, device):
    """A turn of one warp, of some, of all, and several turns, one of them in part; each number of rows and columns."""
    for seed, k in enumerate((0, 16, 48, 64, 80, 512, 528, 1024, 1040, 2576)):
        for m, n in ((1, 1), (2 + seed, 17), (8, 16), (9, 40), (16, 33)):
            check(GEMV, "int8_matmul", *gemv_operands(m, n, k, a_dtype, b_dtype), seed=seed, device=device)


@pytest.mark.parametrize("splits", [2, 5])
def test_few_rows_in_parts_of_k(splits):
    for seed, k in enumerate((64 * splits, 1040, 2576)):
        a, b = gemv_operands(5, 20, k)
        check(GEMV, "int8_matmul", a, b, splits=splits, seed=seed, b_zero_point=zero_points(1, 20))


def test_few_rows_of_batches():
    a, b = codes(3, 4, 160), codes(3, 20, 160, seed=1).transpose(1, 2)
    check(GEMV, "int8_matmul", a, b, a_zero_point=zero_points(3, 4, 1), b_zero_point=zero_points(3, 1, 20))
    check(GEMV, "int8_matmul", a[:1], b, b_zero_point=zero_points(1, 20))


# Layouts


def layouts(lines, k, dtype=torch.int8, seed=0):
    """(name, codes [lines, k]) in every layout that a kernel tells apart."""
    plain = codes(lines, k, dtype=dtype, seed=seed)
    yield "chunks", in_chunks(lines, k, dtype, seed)
    wider = codes(lines, (k + 3) // 4 * 4 + 4, dtype=dtype, seed=seed)
    yield "words", wider[:, 4 : 4 + k]
    yield "bytes", codes(lines, k + 3, dtype=dtype, seed=seed)[:, 1 : 1 + k]
    yield "columns", plain.t().contiguous().t()
    four = codes(k, (lines + 3) // 4 * 4 + 4, dtype=dtype, seed=seed)[:, 4 : 4 + lines]
    yield "words of columns", four.t()
    yield "any strides", codes(lines, 3 * k, dtype=dtype, seed=seed)[:, ::3]
    yield "repeated", codes(1, k, dtype=dtype, seed=seed).expand(lines, k)


@pytest.mark.parametrize("kernel", ANY_KERNELS, ids=str)
@pytest.mark.parametrize(("a_dtype", "b_dtype"), MIXED)
def test_layouts(kernel, a_dtype, b_dtype):
    for m, n, k in ((kernel.m + 4, 36, 7 * STAGE + 3), (20, kernel.n + 8, 72), (9, 11, 33)):
        for seed, ((_, a), (_, b)) in enumerate(product(layouts(m, k, a_dtype), layouts(n, k, b_dtype, seed=1))):
            check(kernel, "int8_matmul", a, b.t(), seed=seed)


@for_each_kernel
def test_batches(kernel):
    a = in_chunks(3 * 40, 80).view(3, 40, 80)
    b = in_chunks(3 * 50, 80, seed=1).view(3, 50, 80).transpose(1, 2)
    check(kernel, "int8_matmul", a, b, a_zero_point=zero_points(3, 40, 1), b_zero_point=zero_points(3, 1, 50))
    check(kernel, "int8_matmul", a[:1], b, splits=2, b_zero_point=zero_points(1, 50))
    nested = in_chunks(2 * 3 * 40, 80).view(2, 3, 40, 80).transpose(0, 1)
    check(kernel, "int8_matmul_dequantize", nested, b[:, None], scales(3, 2, 40, 1), scales(50)[None])


# The epilogue


@pytest.mark.parametrize("kernel", [*CHUNK_KERNELS, *ANY_KERNELS, GEMV], ids=str)
@pytest.mark.parametrize("n", [96, 99])  # whose results are stored in vectors, and one by one
@pytest.mark.parametrize("relu", [False, True])
def test_results(kernel, n, relu):
    """Every type of result, with each zero point given or not, sums given or not, and scales of every shape."""
    m, k = kernel.m // 2 + 7, 96 if kernel == GEMV else 100
    a, b = operands(kernel, m, n, k, torch.uint8)
    a_zero_point, b_zero_point = zero_points(m, 1, dtype=torch.uint8), zero_points(1, n)
    sums = {"a_sum": a.sum(-1, True, dtype=torch.int32), "b_sum": b.sum(-2, True, dtype=torch.int32)}
    for seed, (with_a, with_b, given) in enumerate(product((False, True), repeat=3)):
        points = ({"a_zero_point": a_zero_point} if with_a else {}) | ({"b_zero_point": b_zero_point} if with_b else {})
        points |= sums if given else {}
        check(kernel, "int8_matmul", a, b, seed=seed, **points)
        a_scale, b_scale = (scales(m, 1), scales(1, n)) if seed % 2 else (scales(), scales())
        common = {"bias": normal(n) if seed % 4 < 2 else None, "relu": relu, "seed": seed, **points}
        for dtype in FLOAT_DTYPES:
            check(kernel, "int8_matmul_dequantize", a, b, a_scale, b_scale, dtype=dtype, **common)
        for dtype in CODE_DTYPES:
            for shape in ((), (1, n)):
                out = {"out_zero_point": zero_points(*shape, dtype=dtype), "dtype": dtype}
                out_scale = 256 * scales(*shape, seed=5)
                check(kernel, "int8_matmul_requantize", a, b, a_scale, b_scale, out_scale, **out, **common)
            fixed = {**common, "bias": products(n, most=2**12), "mode": "fixed", **out}
            check(kernel, "int8_matmul_requantize", a, b, a_scale, b_scale, out_scale, **fixed)


@for_each_kernel
def test_results_at_places_of_their_own(kernel):
    """Places that are aligned to one result but not to four."""
    a, b = operands(kernel, 20, 40, 64)
    for dtype, offset in product(FLOAT_DTYPES, (1, 2, 3, 4)):
        memory = torch.zeros(20 * 40 + 8, dtype=dtype)
        out = memory[offset : offset + 20 * 40].view(20, 40)
        expected = reference.int8_matmul_dequantize(a, b, scales(), scales(), dtype=dtype)
        with emulated.matmul_plan(kernel.number), emulated.device("sm_80", seed=offset):
            emulated.ops().int8_matmul_dequantize.out(a, b, scales(), scales(), dtype=dtype, out=out)
        assert_bits(out, expected)
        assert not memory[:offset].any()
        assert not memory[offset + 20 * 40 :].any()


# Other devices


@pytest.mark.parametrize("device", in_every_run(DEVICES))
def test_devices(device):
    """sm_75 has neither cp.async nor the large mma: there the kernels for any layout and for few rows do with less."""
    kernels = ANY_KERNELS if device == "sm_75" else (*CHUNK_KERNELS, *ANY_KERNELS)
    for kernel, (a_dtype, b_dtype) in product(kernels, product(CODE_DTYPES, CODE_DTYPES)):
        m, n = kernel.m // 2 + 1, kernel.n // 2 + 9
        for seed, k in enumerate((7 * STAGE + 15, 3 * STAGE)):
            check(kernel, "int8_matmul", *operands(kernel, m, n, k, a_dtype, b_dtype), seed=seed, device=device)
    if device == "sm_75":
        for (_, a), (_, b) in product(layouts(40, 72), layouts(70, 72, seed=1)):
            check(ANY_KERNELS[1], "int8_matmul", a, b.t(), device=device)


# What the counters say


def test_few_rows_read_each_code_of_the_weight_once_in_whole_sectors():
    a, b = gemv_operands(8, 64, 4096)
    (run,) = check(GEMV, "int8_matmul", a, b)
    loads = [each for each in run.counters.each if each.opcode.startswith("ld.global")]
    assert sum(each.traffic.get(b.data_ptr(), 0) for each in loads) == b.numel()
    of_codes = [each for each in loads if each.traffic.get(b.data_ptr(), 0) or each.traffic.get(a.data_ptr(), 0)]
    assert all(each.units == each.ideal for each in of_codes)
    shared = [each for each in run.counters.each if ".shared" in each.opcode and each.units]
    assert shared
    assert all(each.units == each.ideal for each in shared)


@pytest.mark.parametrize("kernel", CHUNK_KERNELS, ids=str)
def test_the_main_loop_reads_whole_sectors_and_meets_no_bank_conflict(kernel):
    (run,) = check(kernel, "int8_matmul", *operands(kernel, kernel.m, kernel.n, 512))
    in_loop = [each for each in run.counters.each if each.opcode.split(".")[0] in ("cp", "ldmatrix") and each.units]
    assert {each.opcode.split(".")[0] for each in in_loop} == {"cp", "ldmatrix"}
    assert all(each.units == each.ideal for each in in_loop)
    stores = [each for each in run.counters.each if each.opcode.startswith("st.") and each.units]
    assert stores
    assert all(each.units == each.ideal for each in stores)
    mma = sum(each.warps for each in run.counters.each if each.opcode.startswith("mma"))
    assert mma == kernel.m * kernel.n * 512 // (16 * 8 * 32)
