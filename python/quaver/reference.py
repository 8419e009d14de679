"""Every op's definition in plain torch: ARITHMETIC.md's equations, written to be read.

Each function takes exactly its op's arguments and gives its op's bits, on any device, in eager mode (a compiler may
divide otherwise). Divisors are float32 tensors on x's device: torch divides by a Python number, on CUDA, by multiplying
with its reciprocal. Arguments are taken as valid; the ops and the fakes check them.
"""

import math

import torch

from quaver.qparams import full_range, qparams_range

SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
LARGEST = torch.finfo(torch.float32).max
WORD = 2**32 - 1


def float32(value, x):
    """A number as a 0-dimensional float32 tensor beside x."""
    return torch.tensor(value, dtype=torch.float32, device=x.device)


def in_blocks(x, scale_shape):
    """x with each dimension cut in two, (blocks, elements of a block), and the dimensions of the elements."""
    cut = [size for pair in zip(scale_shape, block_sizes(x.shape, scale_shape), strict=True) for size in pair]
    return x.reshape(cut), tuple(range(1, len(cut), 2))


def block_sizes(shape, scale_shape):
    return [size // blocks if blocks else 0 for size, blocks in zip(shape, scale_shape, strict=True)]


def for_each_element(parameter, shape):
    """A scale or zero point, repeated so that every element of a tensor of this shape has its own."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    for dim, block in enumerate(block_sizes(shape, parameter.shape)):
        parameter = parameter.repeat_interleave(block, dim)
    return parameter


def choose_qparams(x, scale_shape, *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, eps=None):
    """ARITHMETIC.md (4)."""
    q_min, q_max = qparams_range(dtype, symmetric, q_min, q_max)
    real = x.to(torch.float32)
    finite = torch.where(torch.isfinite(real), real, float32(0, x))
    if x.numel() == 0:
        lo = hi = torch.zeros(tuple(scale_shape), dtype=torch.float32, device=x.device)
    else:
        blocks, elements = in_blocks(finite, scale_shape)
        lo, hi = (blocks.amin(elements), blocks.amax(elements)) if elements else (blocks, blocks)
    floor = float32(max(SMALLEST_NORMAL, 0.0 if eps is None else eps), x)
    one = float32(1, x)
    if symmetric:
        bound = torch.maximum(lo.abs(), hi.abs())
        scale = torch.where(bound == 0, one, torch.maximum(bound / float32(q_max, x), floor))
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    lo = torch.minimum(lo, float32(0, x))
    hi = torch.maximum(hi, float32(0, x))
    steps = float32(q_max - q_min, x)
    width = hi - lo
    scale = torch.where(torch.isfinite(width), width / steps, hi / steps - lo / steps)
    scale = torch.minimum(scale, float32(LARGEST, x))
    scale = torch.where(width == 0, one, torch.maximum(scale, floor))
    zero_point = torch.round(float32(q_min, x) - lo / scale).clamp(q_min, q_max)
    return scale, zero_point.to(torch.int32)


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., SC 2011): four words of a counter and two of a key to four random words.

    Words are 0..2^32 - 1 in int64. A product's upper half is what its wrapped 64 bits have above the lower half.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (second >> 32) & WORD ^ c1 ^ k0,
            second & WORD,
            (first >> 32) & WORD ^ c3 ^ k1,
            first & WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def uniforms(shape, seed, device):
    """A number in [0, 1) for each element, in the row-major order of the shape: a function of seed and place."""
    elements = math.prod(shape)
    fours = torch.arange((elements + 3) // 4, device=device)
    zero = torch.zeros_like(fours)
    words = torch.stack(philox((fours & WORD, fours >> 32, zero, zero), (seed & WORD, (seed >> 32) & WORD)), 1)
    return ((words >> 8).to(torch.float32) * 2.0**-24).flatten()[:elements].reshape(shape)


def zero_of(zero_point, x):
    return float32(0, x) if zero_point is None else for_each_element(zero_point, x.shape).to(torch.float32)


def unclamped_code(x, scale, zero_point, mode, seed):
    """ARITHMETIC.md (2) before the clamp, as float32, exact wherever the clamp does not decide; NaN where x is NaN."""
    scale = for_each_element(scale, x.shape)
    zero = zero_of(zero_point, x)
    real = x.to(torch.float32)
    if mode == "reciprocal":
        return torch.round(real * (float32(1, x) / scale)) + zero
    quotient = real / scale
    if mode == "affine":
        return torch.round(quotient + zero)
    if mode == "stochastic":
        below = torch.floor(quotient)
        return below + (uniforms(x.shape, seed, x.device) < quotient - below).to(torch.float32) + zero
    return torch.round(quotient) + zero


def code_range(dtype, q_min, q_max):
    low, high = full_range(dtype)
    return low if q_min is None else q_min, high if q_max is None else q_max


def quantize(x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0):
    """ARITHMETIC.md (2)."""
    code = unclamped_code(x, scale, zero_point, mode, seed)
    code = torch.where(torch.isnan(code), zero_of(zero_point, x), code)
    return code.clamp(*code_range(dtype, q_min, q_max)).to(dtype)


def dynamic_quantize(
    x, scale_shape, *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, eps=None, return_row_sum=False
):
    """ARITHMETIC.md (5)."""
    q_min, q_max = qparams_range(dtype, symmetric, q_min, q_max)
    scale, zero_point = choose_qparams(
        x, scale_shape, symmetric=symmetric, dtype=dtype, q_min=q_min, q_max=q_max, eps=eps
    )
    q = quantize(x, scale, zero_point, q_min=q_min, q_max=q_max, dtype=dtype)
    if return_row_sum:
        row_sum = q.sum(-1, keepdim=True, dtype=torch.int64).to(torch.int32)
    else:
        row_sum = torch.empty(0, dtype=torch.int32, device=x.device)
    return q, scale, zero_point, row_sum


def sum_of_squares(h):
    """ARITHMETIC.md (11): of each row, [..., 1], by halving a row that zeros fill up to a power of 2."""
    length = h.shape[-1]
    width = 1 << max(length - 1, 0).bit_length()
    sums = torch.nn.functional.pad(h * h, (0, width - length))
    while width > 1:
        width //= 2
        sums = sums[..., :width] + sums[..., width:]
    return sums


def square_root(x):
    """The nearest float32, which torch.sqrt misses now and then on CPUs, where a vector library has it.

    The root of a float32 lies 2^-50 or more of its size away from where two float32 meet, and float64's errs by less.
    """
    return torch.sqrt(x.to(torch.float64)).to(torch.float32)


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
    """ARITHMETIC.md (11)."""
    total = x if residual is None else (x.to(torch.float32) + residual.to(torch.float32)).to(x.dtype)
    h = total.to(torch.float32)
    length = float32(x.shape[-1], x)
    root = square_root(sum_of_squares(h) / length + float32(eps, x))
    y = h * (float32(1, x) / root) * weight.to(torch.float32)
    codes = {"symmetric": symmetric, "dtype": dtype, "q_min": q_min, "q_max": q_max, "return_row_sum": return_row_sum}
    residual_out = x.new_empty(0) if residual is None else total
    return *dynamic_quantize(y.contiguous(), (*x.shape[:-1], 1), **codes), residual_out


def power_of_two(n):
    """2^n in float32, exactly, for int32 n of -126 to 127."""
    return ((n + 127) << 23).view(torch.float32)


LOG2_E = 1.44269502
LN2_HIGH, LN2_LOW = 0.693359375, -0.000212194442  # the first has 9 bits
POWERS = (0.000199095113, 0.00139461388, 0.00833328068, 0.0416662693, 0.166666672, 0.5)  # of r^7, r^6, ... r^2


def exponential(x):
    """ARITHMETIC.md (12): e^x in float32, from nothing but sums, products and roundings."""
    cut = torch.where(torch.isnan(x), float32(0, x), x).clamp(-104, 89)
    whole = torch.round(cut * float32(LOG2_E, x))
    r = (cut - whole * float32(LN2_HIGH, x)) - whole * float32(LN2_LOW, x)
    p = float32(POWERS[0], x)
    for coefficient in POWERS[1:]:
        p = p * r + float32(coefficient, x)
    power = (p * (r * r) + r) + float32(1, x)
    n = whole.to(torch.int32)
    result = (power * power_of_two(n >> 1)) * power_of_two(n - (n >> 1))
    return torch.where(torch.isnan(x), x, result)


def silu(g):
    """ARITHMETIC.md (12)."""
    divisor = float32(1, g) + exponential(-g)
    return g / divisor


def silu_mul_quantize(gate, up, *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, return_row_sum=False):
    """ARITHMETIC.md (12)."""
    y = silu(gate.to(torch.float32)) * up.to(torch.float32)
    codes = {"symmetric": symmetric, "dtype": dtype, "q_min": q_min, "q_max": q_max, "return_row_sum": return_row_sum}
    return dynamic_quantize(y.contiguous(), (*gate.shape[:-1], 1), **codes)


def broadcastable(parameter):
    """A matmul's row or column values as they are; a single value, whatever its rank, as a scalar."""
    return parameter.reshape(()) if parameter.numel() == 1 else parameter


def int8_prepack(b):
    """32 columns a row: for each 64 of K two halves [k / 4][column of 16][k % 4], and then the sums of the columns."""
    k, n = b.shape
    steps, panels = (k + 63) // 64, (n + 31) // 32
    padded = torch.nn.functional.pad(b, (0, panels * 32 - n, 0, steps * 64 - k))
    codes = padded.reshape(steps, 16, 4, panels, 2, 16).permute(3, 0, 4, 1, 5, 2).reshape(panels, steps * 2048)
    sums = padded.sum(0, dtype=torch.int32).reshape(panels, 32)
    return torch.cat([codes, sums.view(b.dtype)], 1)


def int8_matmul(a, b, *, a_zero_point=None, b_zero_point=None, a_sum=None, b_sum=None, b_packed=None):
    """ARITHMETIC.md (6), in float64: every partial sum is an integer below 2^53, so no order can change it."""
    left = a.to(torch.float64) if a_zero_point is None else a.to(torch.float64) - broadcastable(a_zero_point)
    right = b.to(torch.float64) if b_zero_point is None else b.to(torch.float64) - broadcastable(b_zero_point)
    return torch.matmul(left, right).to(torch.int32)


def scale_product(acc, a_scale, b_scale, bias, relu):
    """ARITHMETIC.md (7), before the rounding to the output's type."""
    v = acc.to(torch.float32) * (broadcastable(a_scale) * broadcastable(b_scale))
    if bias is not None:
        v = v + bias
    return torch.where(v <= 0, float32(0, v), v) if relu else v


def int8_matmul_dequantize(
    a,
    b,
    a_scale,
    b_scale,
    *,
    a_zero_point=None,
    b_zero_point=None,
    a_sum=None,
    b_sum=None,
    bias=None,
    relu=False,
    dtype=torch.float32,
    b_packed=None,
):
    """ARITHMETIC.md (6) and (7)."""
    acc = int8_matmul(a, b, a_zero_point=a_zero_point, b_zero_point=b_zero_point)
    return scale_product(acc, a_scale, b_scale, bias, relu).to(dtype)


def int8_matmul_requantize(
    a,
    b,
    a_scale,
    b_scale,
    out_scale,
    *,
    a_zero_point=None,
    b_zero_point=None,
    out_zero_point=None,
    a_sum=None,
    b_sum=None,
    bias=None,
    relu=False,
    dtype=torch.int8,
    q_min=None,
    q_max=None,
    mode="float",
    b_packed=None,
):
    """ARITHMETIC.md (6), then requantize."""
    acc = int8_matmul(a, b, a_zero_point=a_zero_point, b_zero_point=b_zero_point)
    return requantize(
        acc,
        a_scale,
        b_scale,
        out_scale,
        out_zero_point=out_zero_point,
        bias=bias,
        relu=relu,
        dtype=dtype,
        q_min=q_min,
        q_max=q_max,
        mode=mode,
    )


def rescale(acc, a_scale, b_scale, *, bias=None, relu=False, dtype=torch.float32):
    """ARITHMETIC.md (7)."""
    rows = acc.reshape(1, -1) if acc.dim() < 2 else acc
    return scale_product(rows, a_scale, b_scale, bias, relu).to(dtype).reshape(acc.shape)


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
    """ARITHMETIC.md (7) and (8), or (10) in mode "fixed"."""
    rows = acc.reshape(1, -1) if acc.dim() < 2 else acc
    if mode == "fixed":
        product = rows if bias is None else rows + bias
        t = multiply_fixed(product, *fixed_multiplier(a_scale, b_scale, out_scale))
        t = t.clamp(min=0) if relu else t
        zero = 0 if out_zero_point is None else broadcastable(out_zero_point).to(torch.int64)
        low, high = full_range(dtype)
        code = (t + zero).clamp(low if q_min is None else q_min, high if q_max is None else q_max)
        return code.to(dtype).reshape(acc.shape)
    v = scale_product(rows, a_scale, b_scale, bias, relu)

    def as_v(parameter):  # [..., 1, N] or one element, beside v [..., M, N]
        if parameter is None or parameter.numel() == 1:
            return parameter
        return parameter.expand(*v.shape[:-2], 1, v.shape[-1])

    q = quantize(v, as_v(out_scale), as_v(out_zero_point), q_min=q_min, q_max=q_max, dtype=dtype)
    return q.reshape(acc.shape)


def fixed_multiplier(a_scale, b_scale, out_scale):
    """ARITHMETIC.md (10): the real multiplier in float64 as (significand, shift), each int64."""
    product = broadcastable(a_scale).to(torch.float64) * broadcastable(b_scale).to(torch.float64)
    divisor = broadcastable(out_scale).to(torch.float64)
    fraction, shift = torch.frexp(product / divisor)
    significand = torch.floor(fraction * 2.0**31 + 0.5).to(torch.int64)  # the sum is exact
    carried = significand == 2**31
    significand = torch.where(carried, 2**30, significand)
    shift = shift.to(torch.int64) + carried
    significand = torch.where(shift < -31, 0, torch.where(shift > 30, 2**31 - 1, significand))
    return significand, torch.where(shift < -31, 0, shift).clamp(max=30)


def multiply_fixed(acc, significand, shift):
    """ARITHMETIC.md (10): acc [int32] times a multiplier, in int64."""
    raised = (acc.to(torch.int64) * 2 ** shift.clamp(min=0)).clamp(-(2**31), 2**31 - 1)
    high = (raised * significand + 2**30) >> 31
    divisor = 2 ** (-shift).clamp(min=0)
    size = (high.abs() + (divisor >> 1)) >> (-shift).clamp(min=0)
    return torch.where(high < 0, -size, size)


def dequantize(q, scale, zero_point=None, *, dtype=torch.float32):
    """ARITHMETIC.md (3)."""
    code = q.to(torch.int32)
    if zero_point is not None:
        code = code - for_each_element(zero_point, q.shape)
    return (code.to(torch.float32) * for_each_element(scale, q.shape)).to(dtype)


def fake_quantize(x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0):
    """ARITHMETIC.md (9), its value."""
    q = quantize(x, scale, zero_point, q_min=q_min, q_max=q_max, dtype=dtype, mode=mode, seed=seed)
    return dequantize(q, scale, zero_point, dtype=x.dtype)


def fake_quantize_mask(x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0):
    """ARITHMETIC.md (9), where its gradient is not 0. NaN is no code: it compares with nothing."""
    code = unclamped_code(x, scale, zero_point, mode, seed)
    q_min, q_max = code_range(dtype, q_min, q_max)
    return (q_min <= code) & (code <= q_max)


def int8_linear(
    x, weight_q, weight_scale, bias=None, *, weight_sum=None, symmetric=True, relu=False, dtype=None, weight_packed=None
):
    """dynamic_quantize of each row, then int8_matmul_dequantize with the weight."""
    rows = x.unsqueeze(0) if x.dim() == 1 else x
    q, scale, zero_point, _ = dynamic_quantize(rows, (*rows.shape[:-1], 1), symmetric=symmetric)
    y = int8_matmul_dequantize(
        q,
        weight_q.t(),
        scale,
        weight_scale if weight_scale.numel() == 1 else weight_scale.t(),
        a_zero_point=zero_point,
        bias=bias,
        relu=relu,
        dtype=x.dtype if dtype is None else dtype,
    )
    return y.squeeze(0) if x.dim() == 1 else y


ONE_EACH, NONE_EACH = [1, 1], [0, 0]  # for rows and for columns, as the schema has them


def pair(numbers):
    """(of rows, of columns)"""
    return (numbers, numbers) if isinstance(numbers, int) else tuple(numbers)


def patches(x, kernel, stride, padding, dilation):
    """What a kernel lies over at each pixel of the result, zeros beyond x's edges: [N, C, OH, OW, kH, kW]."""
    (top, left), strides = pair(padding), pair(stride)
    views = torch.nn.functional.pad(x, (left, left, top, top))
    for dim, (taps, apart) in enumerate(zip(kernel, pair(dilation), strict=True)):
        views = views.unfold(2 + dim, (taps - 1) * apart + 1, strides[dim])[..., ::apart]
    return views


def convolution(x, weight, groups, *where):
    """ARITHMETIC.md (13): (6) in float64 over the patches, a product for each group."""
    views = patches(x, weight.shape[2:], *where)
    n, c, height, width, *kernel = views.shape
    rows = views.reshape(n, groups, c // groups, height, width, *kernel).permute(1, 0, 3, 4, 2, 5, 6)
    k = c // groups * math.prod(kernel)
    columns = weight.to(torch.float64).reshape(groups, weight.shape[0] // groups, k).mT
    acc = torch.matmul(rows.reshape(groups, n * height * width, k), columns)
    images = acc.reshape(groups, n, height, width, columns.shape[-1]).permute(1, 0, 4, 2, 3)
    return images.reshape(n, weight.shape[0], height, width)


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
    stride=ONE_EACH,
    padding=NONE_EACH,
    dilation=ONE_EACH,
    groups=1,
    relu=False,
    dtype=torch.float32,
    q_min=None,
    q_max=None,
    weight_packed=None,
):
    """ARITHMETIC.md (13) and (7), and then (8) for codes."""

    def of_channels(parameter):
        return parameter if parameter is None or parameter.numel() == 1 else parameter.reshape(-1, 1, 1)

    real = x.to(torch.float64) if x_zero_point is None else x.to(torch.float64) - broadcastable(x_zero_point)
    acc = convolution(real, weight, groups, stride, padding, dilation).to(torch.int32)
    v = scale_product(acc, x_scale, of_channels(weight_scale), of_channels(bias), relu)
    if dtype.is_floating_point:
        return v.to(dtype)
    return quantize(v, out_scale, out_zero_point, q_min=q_min, q_max=q_max, dtype=dtype)
