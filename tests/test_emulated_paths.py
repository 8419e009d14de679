"""Every way that the CUDA launchers can choose: each kernel runs in the emulator, and equals the reference.

The ways differ in how tensors lie in memory: runs of neighbours or not, aligned or not, parameters that change with the
element or not, results along or across them, many or few; in test_emulated_ops.py the ops' own arguments vary instead.
"""

import shutil

import pytest
import torch

from quaver.explain import KERNELS
from tests.cases import (
    CODE_DTYPES,
    EDGE_VALUES,
    FLOAT_DTYPES,
    MODES,
    codes,
    layouts,
    normal,
    products,
    scales,
    zero_points,
)

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import emulated
from tests.test_emulated_ops import check

# (shape of x, shape of scale): parameters of one round or several to a vector, and those that change with the element.
PARAMETERS = (
    ((3, 700), ()),
    ((5, 1001), (5, 1)),  # rows of odd length: vectors with two rows' parameters
    ((2, 3, 7, 7), (1, 3, 1, 1)),
    ((4, 256), (4, 2)),  # groups of 128
    ((4, 60), (4, 20)),  # groups of 3: shorter than a vector
    ((9, 128), (1, 128)),
    ((9, 77), (1, 77)),
    ((6, 64), (3, 64)),
    ((3, 40, 5), (1, 40, 1)),
    ((4, 1024), (4, 1)),  # as many elements as a block has: one more block has none, and no parameters to read
)


def padded(x):
    """x as a part of a wider tensor: a run for each row, and the address of each other than the one before."""
    wider = torch.zeros(*x.shape[:-1], x.shape[-1] + 3, dtype=x.dtype)
    wider[..., 1:-2] = x
    return wider[..., 1:-2]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_elementwise(dtype):
    for seed, (shape, scale_shape) in enumerate(PARAMETERS):
        scale, zero_point = scales(*scale_shape), zero_points(*scale_shape)
        x, q = normal(*shape, dtype=dtype, seed=seed), codes(*shape, seed=seed)
        for view in (x, padded(x)):
            check("quantize", view, scale, zero_point, seed=seed)
            check("quantize", view, scale, seed=seed)
        for view in (q, padded(q)):
            check("dequantize", view, scale, zero_point, dtype=dtype, seed=seed)
    # Parameters that are neighbours, but not aligned; and those that are not neighbours
    for scale in (scales(1, 65)[:, 1:], scales(1, 128)[:, ::2]):
        zero_point = zero_points(*scale.shape)
        check("quantize", normal(3, 64, dtype=dtype), scale, zero_point)
        check("quantize", normal(3, 64, dtype=dtype), scale.contiguous(), zero_points(1, 128)[:, ::2])
        check("dequantize", codes(3, 64), scale, zero_point, dtype=dtype)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["onnx", "stochastic"])
def test_fake_quantize(dtype, mode):
    """In the order of the result's memory, and in that of the shape, which the random numbers follow."""
    for seed, (shape, scale_shape) in enumerate((*PARAMETERS, ((3, 1021), (1, 1021)), ((2, 1000), (2, 250)))):
        scale, zero_point = scales(*scale_shape), zero_points(*scale_shape)
        x = normal(*shape, dtype=dtype, seed=seed)
        for view in (x, padded(x), x.transpose(0, -1).contiguous().transpose(0, -1)):
            check("fake_quantize", view, scale, zero_point, mode=mode, seed=seed)
            check("fake_quantize_mask", view, scale, mode=mode, seed=seed)
            if mode == "stochastic":
                check("quantize", view, scale, zero_point, mode=mode, seed=seed, draws=-seed)
    x = normal(3, 64, dtype=dtype)
    for scale in (scales(1, 65)[:, 1:], scales(1, 128)[:, ::2]):
        check("fake_quantize", x, scale, zero_points(*scale.shape), mode=mode)
        check("fake_quantize", x, scale.contiguous(), zero_points(1, 128)[:, ::2], mode=mode)


@pytest.mark.parametrize("mode", MODES[:3])
def test_quotients_near_ties(mode):
    """Where a quotient that is wrong by its last bit gives another code: halves, and the numbers next to them.

    The scales' significands are random, the largest and the smallest, their exponents ordinary ones and those for which
    the kernels divide.
    """
    generator = torch.Generator().manual_seed(1)
    significands = torch.cat(
        [1 + torch.rand(20, generator=generator), 2 - torch.arange(1, 5) * 2.0**-23, torch.ones(1)]
    )
    exponents = torch.tensor([-126.0, -100, -61, -60, -30, -7, 0, 5, 59, 60, 100, 118])
    scale = (significands[:, None] * 2.0**exponents).reshape(-1, 1)
    halves = torch.arange(-140, 141) + 0.5
    x = scale * halves
    near = torch.cat([x, torch.nextafter(x, x * 2), torch.nextafter(x, x / 2), EDGE_VALUES.expand(len(scale), -1)], 1)
    near = near[:, : near.shape[1] // 4 * 4]
    zero_point = zero_points(len(scale), 1)
    check("quantize", near, scale, zero_point, mode=mode)
    check("quantize", near.t(), scale.t(), zero_point.t(), mode=mode)  # the same, seen from columns in memory
    check("quantize", near.t().contiguous(), scale.t(), zero_point.t(), mode=mode)
    check("quantize", near, scale, mode=mode, q_min=1, q_max=100)
    check("fake_quantize", near, scale, zero_point, mode=mode)
    check("fake_quantize_mask", near, scale, zero_point, mode=mode)


# (shape of x, shape of the parameters): results along, across and neither, few and many, in parts and whole.
REDUCTIONS = (
    ((41, 801), (1, 1)),  # one result in parts
    ((3, 1, 9001), (3, 1, 1)),
    ((70, 48), (70, 1)),
    ((9, 1500), (9, 1)),
    ((4, 256), (4, 2)),
    ((5, 40), (5, 20)),
    ((6, 90), (6, 30)),
    ((33, 64), (1, 64)),
    ((700, 16), (1, 16)),  # across, in parts
    ((700, 8), (1, 8)),
    ((8192, 31), (1, 31)),  # in so many parts that joining them could be done in parts: it is not
    ((300, 264), (1, 264)),
    ((300, 77), (1, 77)),
    ((31, 5), (1, 5)),
    ((2, 64, 5, 4), (1, 64, 1, 1)),
    ((2, 96, 64), (2, 3, 64)),
)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_choose_qparams(dtype, symmetric):
    for seed, (shape, scale_shape) in enumerate(REDUCTIONS):
        x = normal(*shape, dtype=dtype, seed=seed)
        views = (x, padded(x)) if symmetric else dict(layouts(x)).values()
        for view in views:
            check("choose_qparams", view, scale_shape, symmetric=symmetric, seed=seed)


@pytest.mark.parametrize("dtype", CODE_DTYPES, ids=str)
def test_sums_of_codes(dtype):
    """Through a product with zero points on both sides: rows of a, columns of b."""
    for seed, (m, n, k) in enumerate([(2, 3, 1037), (2, 40, 9), (1, 16, 1030), (2, 48, 600), (1, 1, 33000)]):
        a = codes(m, k, dtype=dtype)
        zeros = {"a_zero_point": zero_points(m, 1, dtype=dtype), "b_zero_point": zero_points(1, n, dtype=dtype)}
        for b in (codes(k, n, dtype=dtype), codes(n, k, dtype=dtype).t(), codes(k, 2 * n, dtype=dtype)[:, ::2]):
            check("int8_matmul", a, b, seed=seed, **zeros)


# Lengths of rows: a part of a vector, of one warp, of several, of a whole block; the longest that is read once, and the
# next.
ROWS = (1, 7, 96, 384, 513, 768, 1000, 2048, 4096, 5000, 9000, 16384, 16385)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("length", ROWS)
def test_dynamic_quantize_of_rows(dtype, length):
    rows = 3 if length > 2000 else 11
    x = normal(rows, length, dtype=dtype, seed=length)
    for symmetric, view in ((True, x), (False, x), (False, padded(x))):
        runs = check("dynamic_quantize", view, (rows, 1), symmetric=symmetric, return_row_sum=True, seed=length)
        at_once = length < 16384 or (length == 16384 and view is x)
        assert (["dynamic_quantize_kernel" in run.kernel for run in runs] == [True]) == at_once


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_dynamic_quantize_reads_once_and_writes_once(dtype):
    x = normal(6, 4096, dtype=dtype)
    (run,) = check("dynamic_quantize", x, (6, 1), symmetric=False)
    parameters = 6 * (4 + 4)
    assert run.counters.global_bytes_read == x.numel() * x.element_size()
    assert run.counters.global_bytes_written == x.numel() + parameters


def test_dynamic_quantize_of_other_blocks():
    x = normal(24, 96)
    for scale_shape in ((24, 3), (24, 12), (6, 1), (6, 3), (1, 96), (1, 1), (24, 96)):
        check("dynamic_quantize", x, scale_shape, symmetric=False, return_row_sum=True)
        check("dynamic_quantize", padded(x), scale_shape, return_row_sum=True)
        check("dynamic_quantize", x.t(), scale_shape[::-1], symmetric=False, return_row_sum=True)
    specials = torch.tensor([float("nan"), float("inf"), float("-inf"), -0.0, 1e-45, 3.4e38]).repeat(4, 50)
    for symmetric in (True, False):
        check("dynamic_quantize", specials, (4, 1), symmetric=symmetric, return_row_sum=True)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("length", [length for length in ROWS if length <= 16384])
def test_rows_that_are_made_and_quantized(dtype, length):
    """The weight in each type, rows aligned and not, with a residual and without, halves of one tensor."""
    rows = 3 if length > 2000 else 11
    x, other = normal(rows, length, dtype=dtype, seed=length), normal(rows, length, dtype=dtype, seed=length + 1)
    options = {"symmetric": False, "return_row_sum": True, "seed": length}
    for weight_dtype, view in zip(FLOAT_DTYPES, (x, padded(x), x), strict=True):
        weight = normal(length, dtype=weight_dtype)
        check("rms_norm_quantize", view, weight, **options)
        check("rms_norm_quantize", view, weight, residual=other, **options)
    check("silu_mul_quantize", *torch.cat([x, other], 1).chunk(2, 1), **options)
    check("silu_mul_quantize", padded(x), other, **options)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_rows_are_read_once_and_written_once(dtype):
    x, other, size = normal(6, 4096, dtype=dtype), normal(6, 4096, dtype=dtype, seed=1), dtype.itemsize
    weight, parameters = normal(4096), 6 * (4 + 4)
    runs = [
        *check("rms_norm_quantize", x, weight),
        *check("rms_norm_quantize", x, weight, residual=other),
        *check("silu_mul_quantize", *torch.cat([x, other], 1).chunk(2, 1)),
    ]
    read = [run.counters.global_bytes_read for run in runs]
    weights = read[0] - x.numel() * size  # each row reads them
    assert weights == 6 * 4096 * 4
    assert read == [x.numel() * size + weights, 2 * x.numel() * size + weights, 2 * x.numel() * size]
    codes_written = x.numel() + parameters
    written = [run.counters.global_bytes_written for run in runs]
    assert written == [codes_written, codes_written + x.numel() * size, codes_written]


def test_rows_that_are_made_of_strided_tensors():
    x, other = normal(2, 3, 4, 40), normal(4, 3, 2, 40, seed=1).transpose(0, 2)
    for first, second in ((x, other), (other, x), (x, x.mT.contiguous().mT), (x[..., ::2], other[..., 1::2])):
        weight = normal(2 * first.shape[-1])[::2]
        check("rms_norm_quantize", first, weight, residual=second, symmetric=False, return_row_sum=True)
        check("silu_mul_quantize", first, second, symmetric=False, return_row_sum=True)
    row = normal(1, 40).expand(9, 40)
    check("rms_norm_quantize", row, normal(1).expand(40), residual=normal(9, 1).expand(9, 40))
    check("silu_mul_quantize", row, normal(9, 1).expand(9, 40))


# Shapes of acc: few rows and many, less than a warp's columns and several tiles, one plane and several.
PRODUCTS = (
    (1, 1024),
    (1, 2052),
    (3, 300),
    (9, 132),
    (70, 640),
    (100, 4),
    (300, 12),
    (2, 3, 40, 32),
    (2, 40, 1, 32),
    (4, 8),
    (9, 133),
)


@pytest.mark.parametrize("mode", ["float", "fixed"])
def test_requantize(mode):
    for seed, (*batch, m, n) in enumerate(PRODUCTS):
        acc = products(*batch, m, n)
        wider = products(*batch, m, n + 3)
        bias = normal(n) if mode == "float" else products(n, most=2**16)
        for row, column in (((), ()), ((m, 1), (1, n)), ((*batch, m, 1), (*batch, 1, n)), ((), (1, n)), ((m, 1), ())):
            factors = (scales(*row), scales(*column, seed=3), 2.0**12 * scales(*column, seed=4))
            options = {"out_zero_point": zero_points(*column), "bias": bias, "mode": mode}
            # As it is, in part, and rows seen from columns in memory
            for view in (acc, wider[..., 1:-2], wider[..., :-3], acc.mT.contiguous().mT):
                check("requantize", view, *factors, **options, seed=seed)
                if mode == "float":
                    check("rescale", view, *factors[:2], bias=bias, dtype=torch.float16, seed=seed)
    # A convolution's result, whose channels lie outermost
    for size in (8, 7, 24):
        acc = products(2, 5, size, 12).movedim(1, -1)
        factors = (scales(), scales(1, 5), 2.0**12 * scales(1, 5, seed=4))
        bias = normal(5) if mode == "float" else products(5, most=2**16)
        check("requantize", acc, *factors, out_zero_point=zero_points(1, 5), bias=bias, mode=mode)
    # Threads with more rows than they read at once
    for row in ((), (4200, 1)):
        check("requantize", products(4200, 128), scales(*row), scales(1, 128), 2.0**12 * scales(1, 128), mode=mode)
    # Parameters that are neighbours, but not aligned; and those that are not neighbours
    acc = products(20, 64)
    for scale in (scales(1, 65)[:, 1:], scales(1, 128)[:, ::2]):
        check("requantize", acc, scales(20, 1), scale, 2.0**12 * scales(1, 64, seed=3), mode=mode)
        check("requantize", acc, scales(20, 1), scales(1, 64, seed=3), 2.0**12 * scale, mode=mode)
        check("requantize", acc, scales(20, 3)[:, 1:2], scales(), 2.0**12 * scales(seed=3), mode=mode)


@pytest.mark.parametrize(
    ("acc", "row", "column", "kernel"),
    [
        (products(70, 640), (70, 1), (1, 640), "rows"),
        (products(2, 3, 40, 32), (2, 3, 40, 1), (2, 3, 1, 32), "rows"),
        (products(2, 5, 24, 12).movedim(1, -1), (), (1, 5), "rows"),
        (products(2, 40, 1, 32), (2, 40, 1, 1), (2, 40, 1, 32), "elements"),  # planes smaller than a block
        (products(70, 641), (70, 1), (1, 641), "elements"),
        (products(70, 641)[:, :640], (70, 1), (1, 640), "elements"),
        (products(640, 70).t(), (70, 1), (1, 640), "elements"),
    ],
)
def test_requantize_takes_rows_of_whole_vectors(acc, row, column, kernel):
    (run,) = check("requantize", acc, scales(*row), scales(*column), 2.0**12 * scales(*column))
    assert f"requantize_{kernel}_kernel" in run.kernel
    (run,) = check("rescale", acc, scales(*row), scales(*column), dtype=torch.bfloat16)
    assert f"rescale_{kernel}_kernel" in run.kernel


def test_every_kernel_runs():
    """All instantiations that the library has for a GPU, whatever other tests have been chosen."""
    runs = []
    for code_dtype in CODE_DTYPES:
        for other in CODE_DTYPES:
            zeros = {
                "a_zero_point": torch.tensor(3, dtype=torch.int32),
                "b_zero_point": torch.tensor(5, dtype=torch.int32),
            }
            a, b = codes(16, 1008, dtype=code_dtype), codes(16, 1008, dtype=other)
            for kernel in range(len(KERNELS)):
                with emulated.matmul_plan(kernel, splits=1 + kernel % 2):
                    runs += check("int8_matmul", a, b.t(), **zeros)
            runs += check("int8_matmul", a[:, ::2], b.t()[::2], **zeros)
            runs += check("int8_matmul", a, codes(1008, 16, dtype=other), **zeros)
    for dtype in FLOAT_DTYPES:
        x, q, each = normal(9, 1000, dtype=dtype), codes(9, 1000), scales(1, 1000)
        odd = each[:, :999]
        for view, scale in ((x, scales()), (x, each), (x[:, :999], odd), (x[:, ::2], scales())):
            for mode in MODES:
                runs += check("quantize", view, scale, mode=mode)
        for view, scale in ((q, scales()), (q, each), (q[:, :999], odd), (q[:, ::2], scales())):
            runs += check("dequantize", view, scale, dtype=dtype)
        for op in ("fake_quantize", "fake_quantize_mask"):
            runs += check(op, x, each)
        for view, scale_shape in ((x, (1, 1)), (x[:, :8], (1, 8)), (x[:, ::2], (9, 1)), (x.reshape(-1), (1,))):
            runs += check("choose_qparams", view, scale_shape)
        runs += check("dynamic_quantize", x, (9, 1))
        runs += check("int8_linear", normal(2, 64, dtype=dtype), codes(9, 64), scales(9, 1))
        runs += check("rms_norm_quantize", x, normal(1000))
        runs += check("silu_mul_quantize", x, x)
        runs += check("choose_qparams", normal(1, 9000, dtype=dtype), (1, 1))
    for x_dtype in CODE_DTYPES:
        for channels, outs, groups in ((16, 70, 1), (5, 5, 1), (12, 12, 12), (5, 5, 5)):
            image, kernel = codes(1, channels, 8, 9, dtype=x_dtype), codes(outs, channels // groups, 3, 3)
            for memory in (torch.channels_last, torch.contiguous_format):
                x = image.contiguous(memory_format=memory)
                runs += check("int8_conv2d", x, kernel, scales(), scales(), groups=groups)
        many = codes(1, 16, 108, 128, dtype=x_dtype).contiguous(memory_format=torch.channels_last)
        runs += check("int8_conv2d", many, codes(128, 16, 1, 3), scales(), scales(), padding=[0, 1])
    for n in (64, 63):
        runs += check("requantize", products(9, n), scales(), scales(1, n), scales())
        for dtype in FLOAT_DTYPES:
            runs += check("rescale", products(9, n), scales(), scales(1, n), dtype=dtype)
    runs += check("int8_matmul", codes(1, 33000), codes(33000, 1), b_zero_point=torch.tensor(5, dtype=torch.int32))
    missing = emulated.known_kernels("sm_80") - {run.kernel for run in runs}
    assert not missing, f"not launched: {sorted(missing)}"
