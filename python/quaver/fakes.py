"""What the compiler knows of each op: the shape, dtype and strides of its results, its refusals, its gradient.

The words of the refusals are those of csrc/checks.h; the tests hold the two together.
"""

import torch

from quaver.library import ANY_STRIDES, IMAGES, WRITING_OPS, as_tuple, written_arguments
from quaver.qparams import MODES, full_range, in_words, qparams_range

MAX_RANK = 6
LONGEST_HELD_ROW = 16384
LARGEST_INT32 = 2**31 - 1
PACKED = ("b_packed", "weight_packed")

NAMED_DTYPES = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
)


def _name(dtype):
    return str(dtype).removeprefix("torch.") if dtype in NAMED_DTYPES else "another dtype"


def _check(ok, op, words):
    torch._check(ok, lambda: f"quaver::{op}: {words()}")


def _check_float_type(op, name, dtype):
    floats = (torch.float32, torch.float16, torch.bfloat16)
    _check(dtype in floats, op, lambda: f"{name} must be float32, float16 or bfloat16, got {_name(dtype)}")


def _check_code_type(op, name, dtype):
    _check(dtype in (torch.int8, torch.uint8), op, lambda: f"{name} must be int8 or uint8, got {_name(dtype)}")


def _check_given(op, name, tensor):
    _check(tensor is not None, op, lambda: f"{name} must be a tensor, got None")


def _check_rank(op, name, tensor):
    _check_given(op, name, tensor)
    _check(
        tensor.dim() <= MAX_RANK,
        op,
        lambda: f"{name} must have at most {MAX_RANK} dimensions, got {tensor.dim()}",
    )


def _check_float(op, name, tensor):
    _check_rank(op, name, tensor)
    _check_float_type(op, name, tensor.dtype)


def _check_codes(op, name, tensor):
    _check_rank(op, name, tensor)
    _check_code_type(op, name, tensor.dtype)


def _check_companion(op, name, tensor, dtype, like_name, like):
    _check_given(op, name, tensor)
    _check(tensor.dtype == dtype, op, lambda: f"{name} must be {_name(dtype)}, got {_name(tensor.dtype)}")
    _check(
        tensor.device == like.device,
        op,
        lambda: f"{name} must be on {like.device} like {like_name}, got {tensor.device}",
    )


def _divides_shape(blocks, shape):
    if len(blocks) != len(shape):
        return False
    return all(
        count >= 0 and (count <= 1 if size == 0 else count != 0 and size % count == 0)
        for count, size in zip(blocks, shape, strict=True)
    )


def _check_zero_point(op, name, zero_point, scale_name, scale, like_name, like):
    if zero_point is None:
        return
    _check_companion(op, name, zero_point, torch.int32, like_name, like)
    _check(
        (zero_point.numel() == 1 and scale.numel() == 1) or zero_point.shape == scale.shape,
        op,
        lambda: f"{name} must have the shape of {scale_name} {list(scale.shape)}, got {list(zero_point.shape)}",
    )


def _check_scale(op, x_name, x, scale, zero_point):
    _check_companion(op, "scale", scale, torch.float32, x_name, x)
    _check(
        scale.numel() == 1 or _divides_shape(scale.shape, x.shape),
        op,
        lambda: (
            f"scale must have one element, or as many dimensions as {x_name} with sizes that divide its "
            f"{list(x.shape)}, got {list(scale.shape)}"
        ),
    )
    _check_zero_point(op, "zero_point", zero_point, "scale", scale, x_name, x)


def _check_scale_shape(op, x, scale_shape):
    _check(
        _divides_shape(scale_shape, x.shape),
        op,
        lambda: (
            "scale_shape must have as many sizes as x has dimensions, each dividing x's "
            f"{list(x.shape)}, got {list(scale_shape)}"
        ),
    )


def _check_range(op, dtype, q_min, q_max):
    low, high = full_range(dtype)
    q_min = low if q_min is None else q_min
    q_max = high if q_max is None else q_max
    _check(
        low <= q_min < q_max <= high,
        op,
        lambda: (
            f"q_min and q_max must satisfy {low} <= q_min < q_max <= {high} for {_name(dtype)}, "
            f"got q_min={q_min} and q_max={q_max}"
        ),
    )


def _check_qparams_range(op, dtype, symmetric, q_min, q_max):
    if symmetric:
        _check(
            dtype == torch.int8 or q_min == 0,
            op,
            lambda: (
                "symmetric uint8 codes need q_min=0, which says that the data has one sign; "
                "use asymmetric (symmetric=False) for data of both signs"
            ),
        )
    q_min, q_max = qparams_range(dtype, symmetric, q_min, q_max)
    _check_range(op, dtype, q_min, q_max)
    if symmetric:
        _check(
            q_min <= 0 < q_max,
            op,
            lambda: f"symmetric codes need q_min <= 0 < q_max, got q_min={q_min} and q_max={q_max}",
        )


def _check_eps(op, eps):
    if eps is not None:
        largest = torch.finfo(torch.float32).max
        _check(0 < eps <= largest, op, lambda: f"eps must be positive and finite, got {eps:g}")


def _check_mode(op, mode):
    _check(mode in MODES, op, lambda: f"mode must be {in_words(MODES)}, got '{mode}'")


def _check_quantize(op, x, scale, zero_point, q_min, q_max, dtype, mode):
    _check_float(op, "x", x)
    _check_scale(op, "x", x, scale, zero_point)
    _check_code_type(op, "dtype", dtype)
    _check_range(op, dtype, q_min, q_max)
    _check_mode(op, mode)


def _check_requantize_mode(op, mode):
    _check(mode in ("float", "fixed"), op, lambda: f"mode must be 'float' or 'fixed', got '{mode}'")


# Rows that are made and quantized, as in csrc/prepare_rows.h.


def _check_rows(op, name, x):
    _check_float(op, name, x)
    _check(x.dim() >= 1, op, lambda: f"{name} must have at least 1 dimension, got 0")
    _check(
        x.shape[-1] <= LONGEST_HELD_ROW,
        op,
        lambda: (
            f"{name} must have rows of at most {LONGEST_HELD_ROW} elements, which are held until their scale is known, "
            f"got {x.shape[-1]}"
        ),
    )


def _check_beside(op, name, tensor, like_name, like):
    _check_companion(op, name, tensor, like.dtype, like_name, like)
    _check(
        tensor.shape == like.shape,
        op,
        lambda: f"{name} must have the shape of {like_name} {list(like.shape)}, got {list(tensor.shape)}",
    )


def _row_results(x, dtype, return_row_sum):
    parameters = (*x.shape[:-1], 1)
    return (
        x.new_empty(x.shape, dtype=dtype),
        x.new_empty(parameters, dtype=torch.float32),
        x.new_empty(parameters, dtype=torch.int32),
        x.new_empty(parameters if return_row_sum else (0,), dtype=torch.int32),
    )


# The matmuls' arguments, as in csrc/prepare_matmul.h.


def _check_k(op, k, a_dtype, b_dtype, zero_points):
    unsigned = (a_dtype, b_dtype).count(torch.uint8)
    largest_product = 255 * 255 if zero_points else (128 * 128, 255 * 128, 255 * 255)[unsigned]
    bound = LARGEST_INT32 // largest_product
    _check(
        k <= bound,
        op,
        lambda: (
            f"K must be at most {bound} for {_name(a_dtype)} x {_name(b_dtype)} "
            f"{'with' if zero_points else 'without'} zero points, so that every sum is exact in int32, got {k}"
        ),
    )


def _broadcast_batch(op, a, b):
    dims = max(a.dim(), b.dim()) - 2
    a_batch = [1] * (dims - a.dim() + 2) + list(a.shape[:-2])
    b_batch = [1] * (dims - b.dim() + 2) + list(b.shape[:-2])
    batch = []
    for a_size, b_size in zip(a_batch, b_batch, strict=True):
        _check(
            a_size == b_size or a_size == 1 or b_size == 1,
            op,
            lambda: f"the batch dimensions of a {list(a.shape)} and b {list(b.shape)} must broadcast",
        )
        batch.append(b_size if a_size == 1 else a_size)
    return batch


def _check_axis_values(op, name, axis, out_shape, single_allowed, tensor, dtype, like_name, like):
    if tensor is None:
        return
    _check_companion(op, name, tensor, dtype, like_name, like)
    if single_allowed and tensor.numel() == 1:
        return
    wanted = list(out_shape)
    wanted[-1 - axis] = 1
    fits = 2 <= tensor.dim() <= len(wanted) and all(
        size == wanted[-i] or (i > 2 and size == 1) for i, size in enumerate(reversed(tensor.shape), start=1)
    )
    _check(
        fits,
        op,
        lambda: (
            f"{name} must have {'one element or ' if single_allowed else ''}the shape {wanted} "
            f"({'a row' if axis == 0 else 'a column'}'s value {'[..., M, 1]' if axis == 0 else '[..., 1, N]'}), "
            f"got {list(tensor.shape)}"
        ),
    )


def _check_matmul(
    op,
    a,
    b,
    *,
    a_zero_point=None,
    b_zero_point=None,
    a_sum=None,
    b_sum=None,
    out_zero_point=None,
    bias=None,
    bias_dtype=torch.float32,
    **scales,
):
    """The shape of the product. Scales are those that the op has."""
    _check_codes(op, "a", a)
    _check_codes(op, "b", b)
    _check_companion(op, "b", b, b.dtype, "a", a)
    _check(a.dim() >= 2, op, lambda: f"a must have at least 2 dimensions, got {a.dim()}")
    _check(b.dim() >= 2, op, lambda: f"b must have at least 2 dimensions, got {b.dim()}")
    _check(
        a.shape[-1] == b.shape[-2],
        op,
        lambda: f"a [..., M, K] and b [..., K, N] must share K, got a {list(a.shape)} and b {list(b.shape)}",
    )
    out = [*_broadcast_batch(op, a, b), a.shape[-2], b.shape[-1]]
    _check_k(op, a.shape[-1], a.dtype, b.dtype, a_zero_point is not None or b_zero_point is not None)
    for name, scale in scales.items():
        _check_given(op, name, scale)
        _check_axis_values(op, name, int(name != "a_scale"), out, True, scale, torch.float32, "a", a)
    for name, axis, single, tensor, dtype in (
        ("a_zero_point", 0, True, a_zero_point, torch.int32),
        ("b_zero_point", 1, True, b_zero_point, torch.int32),
        ("out_zero_point", 1, True, out_zero_point, torch.int32),
        ("a_sum", 0, False, a_sum, torch.int32),
        ("b_sum", 1, False, b_sum, torch.int32),
    ):
        _check_axis_values(op, name, axis, out, single, tensor, dtype, "a", a)
    if bias is not None:
        _check_bias(op, bias, out[-1], "a", a, bias_dtype)
    return out


def _packed_shape(k, n):
    """csrc/cpu/packed.h"""
    return [(n + 31) // 32, (k + 63) // 64 * 2048 + 128]


def _check_packed(op, name, packed, b_name, b, k, n):
    if packed is None:
        return
    _check_companion(op, name, packed, b.dtype, b_name, b)
    _check(b.dim() == 2, op, lambda: f"{name} needs b [K, N] without a batch, got b {list(b.shape)}")
    _check_panels(op, name, packed, k, n)


def _check_panels(op, name, packed, k, n):
    wanted = _packed_shape(k, n)
    _check(
        list(packed.shape) == wanted and packed.is_contiguous(),
        op,
        lambda: f"{name} must be int8_prepack's, contiguous {wanted} for K = {k} and N = {n}, got {list(packed.shape)}",
    )


def _requantize_bias_dtype(mode):
    return torch.int32 if mode == "fixed" else torch.float32


def _check_bias(op, bias, n, like_name, like, dtype=torch.float32):
    _check_companion(op, "bias", bias, dtype, like_name, like)
    fits = bias.dim() == 1 and bias.shape[0] == n
    _check(fits, op, lambda: f"bias must have the shape [{n}], got {list(bias.shape)}")


# A convolution's arguments, as in csrc/prepare_conv2d.h.


def _check_pair(op, name, pair, least):
    most = 2**31 - 1
    _check(
        len(pair) == 2 and all(least <= number <= most for number in pair),
        op,
        lambda: f"{name} must be two numbers from {least} to {most}, got {list(pair)}",
    )


def _check_images(op, x, weight, stride, padding, dilation, groups, zero_point):
    """Height and width of the result."""
    _check_codes(op, "x", x)
    _check(x.dim() == 4, op, lambda: f"x must have 4 dimensions, [N, C, H, W], got {x.dim()}")
    _check_companion(op, "weight", weight, torch.int8, "x", x)
    _check(
        weight.dim() == 4,
        op,
        lambda: f"weight must have 4 dimensions, [O, C / groups, kH, kW], got {weight.dim()}",
    )
    _check(groups >= 1, op, lambda: f"groups must be at least 1, got {groups}")
    channels, (out_channels, of_group, *kernel) = x.shape[1], weight.shape
    _check(
        channels % groups == 0 and out_channels % groups == 0,
        op,
        lambda: (
            f"groups must divide the channels of x and of the result, got groups={groups} for {channels} "
            f"and {out_channels}"
        ),
    )
    _check(
        of_group == channels // groups,
        op,
        lambda: (
            f"weight must have the shape [O, {channels // groups}, kH, kW] for x {list(x.shape)} and groups={groups}, "
            f"got {list(weight.shape)}"
        ),
    )
    _check(
        kernel[0] >= 1 and kernel[1] >= 1,
        op,
        lambda: f"weight must have a kernel of 1 x 1 or more, got {kernel[0]} x {kernel[1]}",
    )
    _check_pair(op, "stride", stride, 1)
    _check_pair(op, "padding", padding, 0)
    _check_pair(op, "dilation", dilation, 1)
    padded = [size + 2 * each for size, each in zip(x.shape[2:], padding, strict=True)]
    reach = [apart * (taps - 1) + 1 for taps, apart in zip(kernel, dilation, strict=True)]
    _check(
        padded[0] < 2**31 and padded[1] < 2**31,
        op,
        lambda: f"x with its padding must have fewer than 2^31 rows and columns, got {padded}",
    )
    _check(
        reach[0] <= padded[0] and reach[1] <= padded[1],
        op,
        lambda: f"the kernel with its dilation must not be larger than x with its padding, got {reach} for {padded}",
    )
    _check_k(op, of_group * kernel[0] * kernel[1], x.dtype, torch.int8, zero_point)
    return [(size - over) // step + 1 for size, over, step in zip(padded, reach, stride, strict=True)]


def _check_single(op, name, tensor, dtype, x):
    if tensor is None:
        return
    _check_companion(op, name, tensor, dtype, "x", x)
    _check(tensor.numel() == 1, op, lambda: f"{name} must have one element, got {list(tensor.shape)}")


def _check_conv2d_output(op, dtype, out_scale, out_zero_point, q_min, q_max):
    floats, codes = (torch.float32, torch.float16, torch.bfloat16), (torch.int8, torch.uint8)
    _check(
        dtype in (*floats, *codes),
        op,
        lambda: f"dtype must be float32, float16, bfloat16, int8 or uint8, got {_name(dtype)}",
    )
    if dtype in floats:
        _check(
            out_scale is None and out_zero_point is None and q_min is None and q_max is None,
            op,
            lambda: f"out_scale, out_zero_point, q_min and q_max are for a dtype of codes, got {_name(dtype)}",
        )
        return
    _check(
        out_scale is not None,
        op,
        lambda: f"out_scale must be given for a dtype of codes, got None for {_name(dtype)}",
    )
    _check_range(op, dtype, q_min, q_max)


def _suggests_channels_last(x):
    """By x's strides, as in csrc/prepare_conv2d.h."""
    if x.stride(1) == 0:
        return False
    least = 0
    for dim in (1, 3, 2, 0):
        if x.shape[dim] == 0 or x.stride(dim) < least or (dim == 0 and least == x.stride(1)):
            return False
        least = x.stride(dim) * x.shape[dim]
    return True


# The fakes, in the data's order.


@torch.library.register_fake("quaver::choose_qparams")
def choose_qparams(x, scale_shape, *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, eps=None):
    op = "choose_qparams"
    _check_float(op, "x", x)
    _check_scale_shape(op, x, scale_shape)
    _check_code_type(op, "dtype", dtype)
    _check_qparams_range(op, dtype, symmetric, q_min, q_max)
    _check_eps(op, eps)
    return x.new_empty(scale_shape, dtype=torch.float32), x.new_empty(scale_shape, dtype=torch.int32)


@torch.library.register_fake("quaver::quantize")
def quantize(x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0):
    _check_quantize("quantize", x, scale, zero_point, q_min, q_max, dtype, mode)
    return torch.empty_like(x, dtype=dtype)


@torch.library.register_fake("quaver::dynamic_quantize")
def dynamic_quantize(
    x, scale_shape, *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, eps=None, return_row_sum=False
):
    op = "dynamic_quantize"
    _check_float(op, "x", x)
    _check_scale_shape(op, x, scale_shape)
    _check(
        not return_row_sum or x.dim() > 0,
        op,
        lambda: "return_row_sum needs an x with at least 1 dimension, got 0",
    )
    _check_code_type(op, "dtype", dtype)
    _check_qparams_range(op, dtype, symmetric, q_min, q_max)
    _check_eps(op, eps)
    return (
        torch.empty_like(x, dtype=dtype),
        x.new_empty(scale_shape, dtype=torch.float32),
        x.new_empty(scale_shape, dtype=torch.int32),
        x.new_empty((*x.shape[:-1], 1) if return_row_sum else (0,), dtype=torch.int32),
    )


@torch.library.register_fake("quaver::rms_norm_quantize")
def rms_norm_quantize(
    x,
    weight,
    *,
    residual=None,
    eps=1e-6,
    symmetric=True,
    dtype=torch.int8,
    q_min=None,
    q_max=None,
    return_row_sum=False,
):
    op = "rms_norm_quantize"
    _check_rows(op, "x", x)
    _check_given(op, "weight", weight)
    _check_float_type(op, "weight", weight.dtype)
    _check_companion(op, "weight", weight, weight.dtype, "x", x)
    _check(
        weight.dim() == 1 and weight.shape[0] == x.shape[-1],
        op,
        lambda: f"weight must have the shape [{x.shape[-1]}], got {list(weight.shape)}",
    )
    if residual is not None:
        _check_beside(op, "residual", residual, "x", x)
    _check_eps(op, eps)
    _check_code_type(op, "dtype", dtype)
    _check_qparams_range(op, dtype, symmetric, q_min, q_max)
    return *_row_results(x, dtype, return_row_sum), x.new_empty((0,) if residual is None else x.shape)


@torch.library.register_fake("quaver::silu_mul_quantize")
def silu_mul_quantize(gate, up, *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, return_row_sum=False):
    op = "silu_mul_quantize"
    _check_rows(op, "gate", gate)
    _check_beside(op, "up", up, "gate", gate)
    _check_code_type(op, "dtype", dtype)
    _check_qparams_range(op, dtype, symmetric, q_min, q_max)
    return _row_results(gate, dtype, return_row_sum)


@torch.library.register_fake("quaver::int8_matmul")
def int8_matmul(a, b, *, b_packed=None, **corrections):
    op = "int8_matmul"
    shape = _check_matmul(op, a, b, **corrections)
    _check_packed(op, "b_packed", b_packed, "b", b, *b.shape[-2:])
    return a.new_empty(shape, dtype=torch.int32)


@torch.library.register_fake("quaver::int8_matmul_dequantize")
def int8_matmul_dequantize(
    a, b, a_scale, b_scale, *, bias=None, relu=False, dtype=torch.float32, b_packed=None, **corrections
):
    op = "int8_matmul_dequantize"
    shape = _check_matmul(op, a, b, a_scale=a_scale, b_scale=b_scale, bias=bias, **corrections)
    _check_float_type(op, "dtype", dtype)
    _check_packed(op, "b_packed", b_packed, "b", b, *b.shape[-2:])
    return a.new_empty(shape, dtype=dtype)


@torch.library.register_fake("quaver::int8_matmul_requantize")
def int8_matmul_requantize(
    a,
    b,
    a_scale,
    b_scale,
    out_scale,
    *,
    bias=None,
    relu=False,
    dtype=torch.int8,
    q_min=None,
    q_max=None,
    mode="float",
    b_packed=None,
    **corrections,
):
    op = "int8_matmul_requantize"
    scales = {"a_scale": a_scale, "b_scale": b_scale, "out_scale": out_scale}
    bias_dtype = _requantize_bias_dtype(mode)
    shape = _check_matmul(op, a, b, **scales, bias=bias, bias_dtype=bias_dtype, **corrections)
    _check_code_type(op, "dtype", dtype)
    _check_range(op, dtype, q_min, q_max)
    _check_requantize_mode(op, mode)
    _check_packed(op, "b_packed", b_packed, "b", b, *b.shape[-2:])
    return a.new_empty(shape, dtype=dtype)


def _check_product(op, acc, **scales):
    """Int32 products and scales of their rows and columns, each (0 or 1, tensor); gives the shape with both of them."""
    _check_rank(op, "acc", acc)
    _check(acc.dtype == torch.int32, op, lambda: f"acc must be int32, got {_name(acc.dtype)}")
    shape = [1] * (2 - acc.dim()) + list(acc.shape)
    for name, (axis, scale) in scales.items():
        _check_given(op, name, scale)
        _check_axis_values(op, name, axis, shape, True, scale, torch.float32, "acc", acc)
    return shape


@torch.library.register_fake("quaver::rescale")
def rescale(acc, a_scale, b_scale, *, bias=None, relu=False, dtype=torch.float32):
    op = "rescale"
    shape = _check_product(op, acc, a_scale=(0, a_scale), b_scale=(1, b_scale))
    if bias is not None:
        _check_bias(op, bias, shape[-1], "acc", acc)
    _check_float_type(op, "dtype", dtype)
    return torch.empty_like(acc, dtype=dtype)


@torch.library.register_fake("quaver::requantize")
def requantize(
    acc,
    a_scale,
    b_scale,
    out_scale,
    *,
    out_zero_point=None,
    bias=None,
    relu=False,
    dtype=torch.int8,
    q_min=None,
    q_max=None,
    mode="float",
):
    op = "requantize"
    shape = _check_product(op, acc, a_scale=(0, a_scale), b_scale=(1, b_scale), out_scale=(1, out_scale))
    _check_axis_values(op, "out_zero_point", 1, shape, True, out_zero_point, torch.int32, "acc", acc)
    if bias is not None:
        _check_bias(op, bias, shape[-1], "acc", acc, _requantize_bias_dtype(mode))
    _check_code_type(op, "dtype", dtype)
    _check_range(op, dtype, q_min, q_max)
    _check_requantize_mode(op, mode)
    return torch.empty_like(acc, dtype=dtype)


@torch.library.register_fake("quaver::dequantize")
def dequantize(q, scale, zero_point=None, *, dtype=torch.float32):
    op = "dequantize"
    _check_codes(op, "q", q)
    _check_scale(op, "q", q, scale, zero_point)
    _check_float_type(op, "dtype", dtype)
    return torch.empty_like(q, dtype=dtype)


@torch.library.register_fake("quaver::fake_quantize")
def fake_quantize(x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0):
    _check_quantize("fake_quantize", x, scale, zero_point, q_min, q_max, dtype, mode)
    return torch.empty_like(x)


@torch.library.register_fake("quaver::fake_quantize_mask")
def fake_quantize_mask(x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0):
    _check_quantize("fake_quantize_mask", x, scale, zero_point, q_min, q_max, dtype, mode)
    return torch.empty_like(x, dtype=torch.bool)


@torch.library.register_fake("quaver::int8_linear")
def int8_linear(
    x, weight_q, weight_scale, bias=None, *, weight_sum=None, symmetric=True, relu=False, dtype=None, weight_packed=None
):
    op = "int8_linear"
    _check_float(op, "x", x)
    _check(x.dim() >= 1, op, lambda: "x must have at least 1 dimension, got 0")
    _check_companion(op, "weight_q", weight_q, torch.int8, "x", x)
    _check(
        weight_q.dim() == 2 and weight_q.shape[1] == x.shape[-1],
        op,
        lambda: f"weight_q must have the shape [N, {x.shape[-1]}] for x {list(x.shape)}, got {list(weight_q.shape)}",
    )
    n, k = weight_q.shape
    _check_k(op, k, torch.int8, torch.int8, not symmetric)
    _check_companion(op, "weight_scale", weight_scale, torch.float32, "x", x)
    _check(
        weight_scale.numel() == 1 or tuple(weight_scale.shape) == (n, 1),
        op,
        lambda: f"weight_scale must have one element or the shape [{n}, 1], got {list(weight_scale.shape)}",
    )
    if weight_sum is not None:
        _check_companion(op, "weight_sum", weight_sum, torch.int32, "x", x)
        _check(
            tuple(weight_sum.shape) == (n, 1),
            op,
            lambda: f"weight_sum must have the shape [{n}, 1], got {list(weight_sum.shape)}",
        )
    if bias is not None:
        _check_bias(op, bias, n, "x", x)
    dtype = x.dtype if dtype is None else dtype
    _check_float_type(op, "dtype", dtype)
    _check_packed(op, "weight_packed", weight_packed, "weight_q", weight_q, k, n)
    return x.new_empty((*x.shape[:-1], n), dtype=dtype)


@torch.library.register_fake("quaver::int8_conv2d")
def int8_conv2d(
    x,
    weight,
    x_scale,
    weight_scale,
    out_scale=None,
    *,
    x_zero_point=None,
    out_zero_point=None,
    bias=None,
    stride=(1, 1),  # for rows and for columns
    padding=(0, 0),
    dilation=(1, 1),
    groups=1,
    relu=False,
    dtype=torch.float32,
    q_min=None,
    q_max=None,
    weight_packed=None,
):
    op = "int8_conv2d"
    height, width = _check_images(op, x, weight, stride, padding, dilation, groups, x_zero_point is not None)
    n, channels = x.shape[0], weight.shape[0]
    _check_given(op, "x_scale", x_scale)
    _check_single(op, "x_scale", x_scale, torch.float32, x)
    _check_single(op, "x_zero_point", x_zero_point, torch.int32, x)
    _check_companion(op, "weight_scale", weight_scale, torch.float32, "x", x)
    _check(
        weight_scale.numel() == 1 or tuple(weight_scale.shape) == (channels, 1, 1, 1),
        op,
        lambda: (
            f"weight_scale must have one element or the shape [{channels}, 1, 1, 1], got {list(weight_scale.shape)}"
        ),
    )
    _check_single(op, "out_scale", out_scale, torch.float32, x)
    _check_single(op, "out_zero_point", out_zero_point, torch.int32, x)
    if bias is not None:
        _check_bias(op, bias, channels, "x", x)
    _check_conv2d_output(op, dtype, out_scale, out_zero_point, q_min, q_max)
    if weight_packed is not None:
        _check_companion(op, "weight_packed", weight_packed, torch.int8, "x", x)
        _check(
            groups == 1,
            op,
            lambda: f"weight_packed needs groups=1, since a panel has columns of one matrix, got groups={groups}",
        )
        _check_panels(op, "weight_packed", weight_packed, weight.shape[1:].numel(), channels)
    shape = (n, channels, height, width)
    if not _suggests_channels_last(x):
        return x.new_empty(shape, dtype=dtype)
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.register_fake("quaver::int8_prepack")
def int8_prepack(b):
    op = "int8_prepack"
    _check_codes(op, "b", b)
    _check(b.dim() == 2, op, lambda: f"b must have 2 dimensions, [K, N], got {b.dim()}")
    return b.new_empty(_packed_shape(*b.shape))


# The forms with out=, as in csrc/out.h. Where memory is, and whether two tensors share it, no fake tensor knows.


def _has_places(tensor):
    """Whether each element surely has a place of its own: no dimension steps into what smaller strides reach."""
    if tensor.numel() == 0:
        return True
    extent = 1
    steps = [step for step in zip(tensor.stride(), tensor.shape, strict=True) if step[1] > 1]
    for stride, size in sorted(steps):
        if stride < extent:
            return False
        extent += (size - 1) * stride
    return True


def _check_strides(op, name, out, any_strides):
    if any_strides:
        _check(
            _has_places(out),
            op,
            lambda: (
                f"{name} must have a place for each of its elements, got the strides {list(out.stride())} "
                f"for the shape {list(out.shape)}"
            ),
        )
        return
    images = op in IMAGES
    _check(
        out.is_contiguous() or (images and out.is_contiguous(memory_format=torch.channels_last)),
        op,
        lambda: (
            f"{name} must be contiguous{' or channels_last' if images else ''}, got the strides {list(out.stride())}"
        ),
    )


def _check_out(op, name, out, promised, any_strides, like_name, like):
    _check_companion(op, name, out, promised.dtype, like_name, like)
    _check(
        out.shape == promised.shape,
        op,
        lambda: f"{name} must have the shape {list(promised.shape)}, got {list(out.shape)}",
    )
    _check_strides(op, name, out, any_strides)


def check_outs(op, outs, promised, like_name, like):
    """Refuses places, by their names, that are not as the op would have made its results."""
    for number, ((name, out), result) in enumerate(zip(outs.items(), promised, strict=True)):
        _check_out(op, name, out, result, number == 0 and op in ANY_STRIDES, like_name, like)


def _register_out_form(op):
    overload = getattr(torch.ops.quaver, op).out
    arguments = [argument.name for argument in overload._schema.arguments]
    written = written_arguments(overload)

    @torch.library.register_fake(overload)
    def fake(*args, **options):
        outs = {name: options.pop(name) for name in written}
        reads = {**dict(zip(arguments, args, strict=False)), **options}
        others = {name: value for name, value in reads.items() if name not in PACKED}
        check_outs(op, outs, as_tuple(globals()[op](**others)), arguments[0], reads[arguments[0]])
        globals()[op](**reads)  # the op itself looks at a packed matrix last
        return tuple(outs.values()) if len(outs) > 1 else outs[written[0]]


for _op in WRITING_OPS:
    _register_out_form(_op)


# The one gradient: fake_quantize's to x, ARITHMETIC.md (9). The backward is linear in its own argument and made of ops
# that differentiate, so it can be differentiated in turn.


def _keep_for_backward(ctx, inputs, keyword_only_inputs, output):
    ctx.save_for_backward(*inputs)
    ctx.options = keyword_only_inputs


def _fake_quantize_backward(ctx, grad):
    x, scale, zero_point = ctx.saved_tensors
    mask = torch.ops.quaver.fake_quantize_mask(x.detach(), scale, zero_point, **ctx.options)
    return torch.where(mask, grad, 0), None, None


torch.library.register_autograd("quaver::fake_quantize", _fake_quantize_backward, setup_context=_keep_for_backward)
