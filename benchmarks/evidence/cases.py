"""What is counted: every op on the shapes, types, granularities and layouts that choose between its kernels."""

from dataclasses import dataclass
from functools import partial

import torch

from tests.cases import FLOAT_DTYPES, codes, normal, products, scales, zero_points


@dataclass(frozen=True)
class Call:
    """An op's arguments. Tensors among them that are not data are parameters, which caches serve after a first read."""

    op: str
    args: tuple
    kwargs: dict
    data: tuple  # the tensors that must be read
    data_results: tuple  # which results are data, written once
    elements: int  # of the largest tensor of a memory-bound op, products of a matmul
    kernel: int | None = None  # a matmul's, by its number in csrc/cuda/plan.h; else what the plan chooses


@dataclass(frozen=True)
class Case:
    op: str
    dtype: str
    shape: str
    what: str  # granularity, layout, options
    make: object  # () -> Call

    @property
    def name(self):
        return f"{self.op} {self.dtype} {self.shape} {self.what}"


def word(dtype):
    return str(dtype).removeprefix("torch.")


def misaligned(x):
    """x's values, one element behind an aligned address."""
    storage = torch.zeros(x.numel() + 1, dtype=x.dtype)
    storage[1:] = x.reshape(-1)
    return storage[1:].view(x.shape)


def transposed(x):
    return x.t().contiguous().t()


def every_second(x):
    """x's values with as many others between them: no two are neighbours."""
    storage = torch.zeros(*x.shape, 2, dtype=x.dtype)
    storage[..., 0] = x
    return storage[..., 0]


# (what, shape, shape of scale, layout)
ELEMENTWISE = (
    ("per tensor", (64, 1024), (1, 1), None),
    ("per channel 0", (64, 1024), (64, 1), None),
    ("per channel 1", (64, 1024), (1, 1024), None),
    ("per channel 1 of NCHW", (2, 16, 28, 28), (1, 16, 1, 1), None),
    ("per group of 128", (64, 1024), (64, 8), None),
    ("per channel 0, odd rows", (64, 1021), (64, 1), None),
    ("per channel 1, odd rows", (64, 1021), (1, 1021), None),
    ("per channel 1 of NCHW, odd images", (2, 32, 31, 31), (1, 32, 1, 1), None),
    ("per tensor, misaligned", (64, 1024), (1, 1), misaligned),
    ("per channel 0, transposed", (64, 1024), (64, 1), transposed),
    ("per channel 0, every second element", (64, 1024), (64, 1), every_second),
)
REDUCTIONS = (
    ("per tensor", (64, 1024), (1, 1), None),
    ("per token", (64, 1024), (64, 1), None),
    ("per token, short rows", (512, 64), (512, 1), None),
    ("per channel 1", (64, 1024), (1, 1024), None),
    ("per group of 128", (64, 1024), (64, 8), None),
    ("per token, odd rows", (64, 1021), (64, 1), None),
    ("per token, misaligned", (64, 1024), (64, 1), misaligned),
    ("per token, every second element", (64, 1024), (64, 1), every_second),
)
# (what, shape of acc, a scale for each row, layout)
REQUANTIZED = (
    ("per tensor and channel", (64, 1024), False, None),
    ("per token and channel", (64, 1024), True, None),
    ("per token and channel, odd rows", (64, 1021), True, None),
    ("per token and channel, short rows", (512, 64), True, None),
    ("per token and channel, transposed", (64, 1024), True, transposed),
)
# Rows of 20,000 are too long to be held: they are read twice.
COLUMNS = ((16, 768), (8, 4096), (2, 16384), (2, 20000))
# Of rows that are made and quantized: (what, shape, layout)
MADE_ROWS = (
    ("per token", (8, 4096), None),
    ("per token", (16, 768), None),
    ("per token", (2, 16384), None),
    ("per token, odd rows", (16, 1021), None),
    ("per token, misaligned", (16, 1024), misaligned),
)
# (M, N, K)
PRODUCTS = ((64, 64, 256), (16, 128, 512), (65, 63, 100))
# (name, number in csrc/cuda/plan.h, M x N x K) of each of the tensor cores' tiles: one of them, its stages twice round.
PARTS = (64, 64, 16384)  # one tile of many codes
FEW_ROWS = (2, 256, 1024)  # as in a step of decoding
TILES = (
    ("large", 0, (128, 256, 512)),
    ("medium", 1, (128, 128, 512)),
    ("small", 2, (64, 64, 512)),
    ("skinny", 3, (32, 128, 512)),
    ("any medium", 4, (128, 128, 512)),
    ("any small", 5, (64, 64, 512)),
    ("gemv", 6, (16, 64, 4096)),
)
# (what, shape of x, channels of the result, groups, pixels of the kernel along each side)
IMAGES = (
    ("channels_last", (1, 64, 16, 16), 64, 1, 3),
    ("channels_last, medium tile", (1, 16, 108, 128), 128, 1, 1),
    ("channels_last, 3 channels", (1, 3, 24, 24), 64, 1, 3),
    ("contiguous", (1, 16, 16, 16), 64, 1, 3),
    ("channels_last, depthwise", (1, 64, 16, 16), 64, 64, 3),
    ("contiguous, depthwise", (1, 64, 16, 16), 64, 64, 3),
)


def quantize_call(dtype, shape, scale_shape, layout):
    x = normal(*shape, dtype=dtype)
    x = layout(x) if layout else x
    args = (x, scales(*scale_shape), zero_points(*scale_shape))
    return Call("quantize", args, {}, (x,), (0,), x.numel())


def in_mode(op, mode, dtype, shape, scale_shape, layout):
    call = quantize_call(dtype, shape, scale_shape, layout)
    return Call(op, call.args, {"mode": mode}, call.data, call.data_results, call.elements)


def dequantize_call(dtype, shape, scale_shape, layout):
    q = codes(*shape)
    q = layout(q) if layout else q
    args = (q, scales(*scale_shape), zero_points(*scale_shape))
    return Call("dequantize", args, {"dtype": dtype}, (q,), (0,), q.numel())


def choose_qparams_call(dtype, shape, scale_shape, layout):
    x = normal(*shape, dtype=dtype)
    x = layout(x) if layout else x
    return Call("choose_qparams", (x, scale_shape), {}, (x,), (), x.numel())


def dynamic_quantize_call(dtype, shape, symmetric, row_sum):
    x = normal(*shape, dtype=dtype)
    options = {"symmetric": symmetric, "return_row_sum": row_sum}
    return Call("dynamic_quantize", (x, (shape[0], 1)), options, (x,), (0,), x.numel())


def rms_norm_call(dtype, shape, layout, with_residual):
    x, residual = (layout(part) if layout else part for part in (normal(*shape, dtype=dtype, seed=s) for s in (0, 1)))
    options = {"residual": residual} if with_residual else {}
    read, written = ((x, residual), (0, 4)) if with_residual else ((x,), (0,))
    return Call("rms_norm_quantize", (x, normal(shape[1], dtype=dtype)), options, read, written, x.numel())


def silu_mul_call(dtype, shape, layout):
    """gate and up are halves of one tensor, or lie as `layout` has it."""
    gate, up = normal(shape[0], 2 * shape[1], dtype=dtype).chunk(2, 1)
    gate, up = (layout(part) if layout else part for part in (gate, up))
    return Call(
        "silu_mul_quantize", (gate, up), {"symmetric": False, "return_row_sum": True}, (gate, up), (0,), gate.numel()
    )


def matmul_call(op, mnk, zero_point, b_is_weight=True, kernel=None):
    """b is the transpose of a weight [N, K], or lies in memory as [K, N]."""
    m, n, k = mnk
    a, b = codes(m, k), codes(n, k, seed=1).t() if b_is_weight else codes(k, n, seed=1)
    options = {"a_zero_point": zero_points(m, 1), "b_zero_point": zero_points(1, n)} if zero_point else {}
    scaled = {
        "int8_matmul": (),
        "int8_matmul_dequantize": (scales(m, 1), scales(1, n)),
        "int8_matmul_requantize": (scales(m, 1), scales(1, n), 64 * scales(1, n)),
    }[op]
    return Call(op, (a, b, *scaled), options, (a, b), (0,), m * n * k, kernel)


def requantize_call(shape, per_row, layout, mode):
    acc = products(*shape)
    acc = layout(acc) if layout else acc
    n = shape[1]
    factors = (scales(shape[0], 1) if per_row else scales(), scales(1, n), 2.0**12 * scales(1, n, seed=3))
    options = {"out_zero_point": zero_points(1, n), "mode": mode}
    options["bias"] = normal(n) if mode == "float" else products(n, seed=1)
    return Call("requantize", (acc, *factors), options, (acc,), (0,), acc.numel())


def rescale_call(dtype, shape, per_row, layout):
    acc = products(*shape)
    acc = layout(acc) if layout else acc
    n = shape[1]
    factors = (scales(shape[0], 1) if per_row else scales(), scales(1, n))
    return Call("rescale", (acc, *factors), {"bias": normal(n), "dtype": dtype}, (acc,), (0,), acc.numel())


def linear_call(dtype, mnk, symmetric):
    m, n, k = mnk
    x, weight = normal(m, k, dtype=dtype), codes(n, k)
    args = (x, weight, scales(n, 1), normal(n))
    return Call("int8_linear", args, {"symmetric": symmetric}, (x, weight), (0,), m * n * k)


def conv2d_call(what, shape, out, groups, taps):
    memory_format = torch.channels_last if "channels_last" in what else torch.contiguous_format
    x = codes(*shape).contiguous(memory_format=memory_format)
    weight = codes(out, shape[1] // groups, taps, taps, seed=1).contiguous(memory_format=torch.channels_last)
    args = (x, weight, scales(1), scales(out, 1, 1, 1), 64 * scales(1, seed=3))
    options = {"padding": [taps // 2] * 2, "groups": groups, "dtype": torch.int8}
    pixels = shape[0] * shape[2] * shape[3]
    return Call("int8_conv2d", args, options, (x, weight), (0,), pixels * weight.numel())


def renamed(table, mode):
    return tuple((f"{what}, {mode}", *rest) for what, *rest in table)


def all_cases():
    """In the order of the data's way. float16 takes bfloat16's ways, at its width, and is counted once for each op."""
    cases = []

    def add(op, dtype, shape, what, make, *args):
        cases.append(Case(op, word(dtype), "x".join(map(str, shape)), what, lambda: make(*args)))

    def add_each(op, make, table):
        for dtype in FLOAT_DTYPES:
            for what, shape, scale_shape, layout in table if dtype != torch.float16 else table[:1]:
                add(op, dtype, shape, what, make, dtype, shape, scale_shape, layout)

    add_each("choose_qparams", choose_qparams_call, REDUCTIONS)
    add_each("quantize", quantize_call, ELEMENTWISE)
    add_each("quantize", partial(in_mode, "quantize", "stochastic"), renamed(ELEMENTWISE[:3], "stochastic"))
    for dtype in FLOAT_DTYPES:
        for shape in COLUMNS if dtype != torch.float16 else COLUMNS[:1]:
            args = (dynamic_quantize_call, dtype, shape)
            add("dynamic_quantize", dtype, shape, "per token", *args, True, False)
            add("dynamic_quantize", dtype, shape, "per token, asymmetric, row sums", *args, False, True)
    for dtype in FLOAT_DTYPES:
        for what, shape, layout in MADE_ROWS if dtype != torch.float16 else MADE_ROWS[:1]:
            add("rms_norm_quantize", dtype, shape, what, rms_norm_call, dtype, shape, layout, False)
            add("rms_norm_quantize", dtype, shape, f"{what}, residual", rms_norm_call, dtype, shape, layout, True)
    for dtype in FLOAT_DTYPES:
        for what, shape, layout in MADE_ROWS if dtype != torch.float16 else MADE_ROWS[:1]:
            add("silu_mul_quantize", dtype, shape, f"{what}, row sums", silu_mul_call, dtype, shape, layout)
    for op in ("int8_matmul", "int8_matmul_dequantize", "int8_matmul_requantize"):
        for mnk in PRODUCTS:
            add(op, torch.int8, mnk, "symmetric", matmul_call, op, mnk, False)
    for mnk in PRODUCTS:
        add("int8_matmul", torch.int8, mnk, "zero points of both sides", matmul_call, "int8_matmul", mnk, True)
    args = (matmul_call, "int8_matmul", PRODUCTS[1], True, False)
    add("int8_matmul", torch.int8, PRODUCTS[1], "zero points of both sides, b [K, N]", *args)
    for name, kernel, mnk in TILES:
        for op in ("int8_matmul", "int8_matmul_requantize"):
            add(op, torch.int8, mnk, f"{name} tile", matmul_call, op, mnk, False, True, kernel)
    for name, kernel, mnk in TILES[4:6]:
        args = (matmul_call, "int8_matmul", mnk, False, False, kernel)
        add("int8_matmul", torch.int8, mnk, f"{name} tile, b [K, N]", *args)
    args = (matmul_call, "int8_matmul_dequantize", PARTS, False)
    add("int8_matmul_dequantize", torch.int8, PARTS, "parts of K", *args)
    for mode in ("float", "fixed"):
        for what, shape, per_row, layout in REQUANTIZED:
            add("requantize", torch.int32, shape, f"{mode}, {what}", requantize_call, shape, per_row, layout, mode)
    for what, shape, per_row, layout in REQUANTIZED:
        for dtype in (torch.float32, torch.bfloat16):
            add("rescale", dtype, shape, what, rescale_call, dtype, shape, per_row, layout)
    add_each("dequantize", dequantize_call, ELEMENTWISE)
    add_each("fake_quantize", partial(in_mode, "fake_quantize", "onnx"), ELEMENTWISE[:7])
    add_each("fake_quantize", partial(in_mode, "fake_quantize", "stochastic"), renamed(ELEMENTWISE[:3], "stochastic"))
    add_each("fake_quantize_mask", partial(in_mode, "fake_quantize_mask", "onnx"), ELEMENTWISE[:3])
    for symmetric in (True, False):
        what = "symmetric" if symmetric else "asymmetric"
        for mnk in (PRODUCTS[0], FEW_ROWS):
            add("int8_linear", torch.bfloat16, mnk, what, linear_call, torch.bfloat16, mnk, symmetric)
    for what, shape, *others in IMAGES:
        add("int8_conv2d", torch.int8, shape, what, conv2d_call, what, shape, *others)
    return cases
