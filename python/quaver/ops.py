"""quaver's functions, in the order in which data meets them: what a user calls.

They are thin: they turn granularities into shapes, unpack QuantizationParams, refuse what is not a tensor, and call
`torch.ops.quaver.*`. The equations that they cite are ARITHMETIC.md's.
"""

import torch

from quaver.arguments import (
    aimed_range,
    check_bools,
    check_count,
    check_float_dtype,
    check_optional_tensors,
    check_pair,
    check_requantize_mode,
    check_tensors,
    check_values,
    check_zero_point,
    checked_eps,
    code_range,
    column_parameters,
    float_or_code_range,
    full_range_of,
    int32,
    quantize_arguments,
    refuse_split_k,
    refuse_tangent,
    row_parameters,
    scale_shape,
    single_parameters,
    symmetric_scale,
    tensor_of,
    widened,
    with_range,
)
from quaver.direct import direct
from quaver.out import run, run_rows
from quaver.qparams import PerTensor, PerToken, QuantizationParams

_ops = torch.ops.quaver


def choose_qparams(x, granularity=PerTensor(), *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, eps=None):
    """The scale and zero point that fit the range of each block of x, equation (4).

    symmetric:   scale = max(|lo|, |hi|) / q_max,           zero_point = 0
    asymmetric:  scale = (hi - lo) / (q_max - q_min),       zero_point = clamp(round(q_min - lo / scale), q_min, q_max)
                 with lo = min(lo, 0) and hi = max(hi, 0), so that 0 keeps a code of its own

    Arguments:
        x: float32, float16 or bfloat16, 0 to 6 dimensions, any strides. NaN and infinities are left out of the range.
        granularity: PerTensor(), PerChannel(axis), PerToken() or PerGroup(size): which elements share a scale.
        symmetric: True for a zero point of 0 (usual for weights), False for data of one sign or shifted (activations).
        dtype: torch.int8 or torch.uint8. Symmetric uint8 needs q_min=0: data of one sign.
        q_min, q_max: the codes to use; by default -127..127 for symmetric int8 (closed under negation) and otherwise
            the dtype's full range.
        eps: a lower bound for the scale of a block that is not all zero; by default the smallest normal float32.

    Returns:
        QuantizationParams with float32 scale and int32 zero_point in the granularity's shape. The scale is positive and
        finite for every input; a block of zeros (or of nothing finite) has scale 1.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equation (4); the notebooks' get_symmetric_qparams and get_asymmetric_qparams, without their traps.

    >>> import torch, quaver
    >>> x = torch.tensor([[-1.0, 0.5, 2.54], [0.0, 10.0, 5.1]])
    >>> quaver.choose_qparams(x, quaver.PerChannel(0)).scale
    tensor([[0.0200],
            [0.0787]])
    >>> quaver.choose_qparams(x, quaver.PerChannel(0), symmetric=False).zero_point
    tensor([[ -56],
            [-128]], dtype=torch.int32)
    """
    op = "choose_qparams"
    check_tensors(op, x=x)
    check_bools(op, symmetric=symmetric)
    blocks = scale_shape(op, granularity, x)
    q_min, q_max = aimed_range(op, dtype, symmetric, q_min, q_max)
    scale, zero_point = _ops.choose_qparams.default(
        x, blocks, symmetric=symmetric, dtype=dtype, q_min=q_min, q_max=q_max, eps=checked_eps(op, eps)
    )
    return QuantizationParams(scale, zero_point, q_min, q_max, symmetric)


@direct
def quantize(
    x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0, check=False, out=None
):
    """Real numbers to codes, equation (2): q = clamp(round(x / scale) + zero_point, q_min, q_max).

    Arguments:
        x: float32, float16 or bfloat16, 0 to 6 dimensions, any strides.
        scale: float32, one element or a shape whose sizes divide x's (see the granularities); or QuantizationParams,
            which bring their zero point and their range of codes.
        zero_point: int32 (int8, uint8 and int64 are converted) in scale's shape; None means 0.
        q_min, q_max: the codes to use, by default all of the dtype's.
        dtype: torch.int8 or torch.uint8.
        mode: "onnx", as above;
            "affine": clamp(round(x / scale + zero_point), q_min, q_max), which rounds other ties and is the formula of
            the source notebooks;
            "reciprocal": clamp(round(x * (1 / scale)) + zero_point, q_min, q_max), which is that of
            torch.ops.quantized_decomposed and torch.fake_quantize_per_tensor_affine;
            "stochastic": x / scale goes to the integer above it with the probability of what it has beyond the one
            below, so that errors are 0 on average; what is an integer stays.
        seed: of the mode "stochastic", an int64: element i, counted in the row-major order of x's shape, takes the
            i-th random number of the seed (Philox4x32-10), on every backend and whatever the strides. Other modes draw
            none.
        check: also verify that scales are positive and finite and zero points are codes, which waits for the device.
        out: a tensor to write and return: of the result's shape, dtype and device, in memory of its own, with any
            strides that give each element a place. No gradient passes through it.

    Returns:
        Codes in x's shape and, where x is dense, its strides. Ties round to even; what lies outside saturates,
        infinities too; NaN becomes the zero point, so that it dequantizes to 0.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equation (2); ONNX QuantizeLinear.

    >>> import torch, quaver
    >>> x = torch.tensor([-1.0, 0.25, 0.75, 100.0, float("nan")])
    >>> quaver.quantize(x, torch.tensor(0.5), torch.tensor(3))
    tensor([  1,   3,   5, 127,   3], dtype=torch.int8)
    >>> quaver.quantize(torch.full((8,), 0.25), torch.tensor(1.0), mode="stochastic", seed=2)
    tensor([0, 0, 0, 0, 1, 1, 0, 0], dtype=torch.int8)
    """
    op = "quantize"
    check_tensors(op, x=x)
    scale, zero_point, options = quantize_arguments(
        op, scale, zero_point, q_min=q_min, q_max=q_max, dtype=dtype, mode=mode, seed=seed, check=check
    )
    return run(op, out, x, scale, zero_point, **options)


def dynamic_quantize(
    x,
    granularity=PerToken(),
    *,
    symmetric=True,
    dtype=torch.int8,
    q_min=None,
    q_max=None,
    eps=None,
    return_row_sum=False,
    out=None,
):
    """choose_qparams and quantize in one op, equation (5): activations are quantized with what they hold.

    Arguments: those of choose_qparams; the granularity is by default one scale for each row. With return_row_sum, the
    sums of the codes along the last dimension come too, int32 [..., 1]: a matmul with zero points needs them.
    out: what such a call returns, written in place of new tensors; contiguous but for q.

    Returns:
        (q, params), or (q, params, row_sum): codes in x's shape and the QuantizationParams that made them.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equation (5); ONNX DynamicQuantizeLinear is its per-tensor uint8 case.

    >>> import torch, quaver
    >>> q, params, row_sum = quaver.dynamic_quantize(torch.tensor([[1.0, -2.54], [0.0, 0.0]]), return_row_sum=True)
    >>> q
    tensor([[  50, -127],
            [   0,    0]], dtype=torch.int8)
    >>> params.scale.flatten(), row_sum.flatten()
    (tensor([0.0200, 1.0000]), tensor([-77,   0], dtype=torch.int32))
    """
    op = "dynamic_quantize"
    check_tensors(op, x=x)
    check_bools(op, symmetric=symmetric, return_row_sum=return_row_sum)
    blocks = scale_shape(op, granularity, x)
    q_min, q_max = aimed_range(op, dtype, symmetric, q_min, q_max)
    q, scale, zero_point, row_sum = run_rows(
        op,
        out,
        x,
        blocks,
        symmetric=symmetric,
        dtype=dtype,
        q_min=q_min,
        q_max=q_max,
        eps=checked_eps(op, eps),
        return_row_sum=return_row_sum,
    )
    params = QuantizationParams(scale, zero_point, q_min, q_max, symmetric)
    return (q, params, row_sum) if return_row_sum else (q, params)


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
    out=None,
):
    """Rows divided by their root mean square, then dynamic_quantize of each, equation (11), in one op.

    h = x + residual,    y = h / sqrt(mean(h^2) + eps) * weight,    q, params = dynamic_quantize(y)

    Between the sum and its codes everything is float32: no rounding to x's dtype, and no float tensor but residual_out.

    Arguments:
        x: float32, float16 or bfloat16 [..., N], 1 to 6 dimensions, any strides; N is at most 16,384.
        weight: float32, float16 or bfloat16 [N]; what is not contiguous is copied.
        residual: in x's dtype and shape, any strides; None means none. The sum is rounded to x's dtype once, and what
            is normalized is the rounded sum.
        eps: what is added to the mean of squares, in the square of x's unit; positive.
        symmetric, dtype, q_min, q_max: as for choose_qparams. There is one scale for each row.
        return_row_sum: whether the sums of the codes of each row come too: a matmul with zero points needs them.
        out: what such a call returns, written in place of new tensors; contiguous.

    Returns:
        (q, params), then row_sum, int32 [..., 1], with return_row_sum, then residual_out, in x's dtype and shape, with
        a residual. All are contiguous. Of a row with a NaN all codes are the zero point; of one with an infinity, or
        with squares that overflow (beyond 1.8e19), all finite elements are.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equation (11); Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".

    >>> import torch, quaver
    >>> x = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
    >>> q, params, h = quaver.rms_norm_quantize(x, torch.tensor([1.0, 2.0]), residual=torch.tensor([[0.0, 3.0]] * 2))
    >>> h
    tensor([[3., 7.],
            [0., 1.]])
    >>> quaver.dequantize(q, params)  # rows of root mean square sqrt(29) and sqrt(1 / 2)
    tensor([[0.5527, 2.5997],
            [0.0000, 2.8284]])
    """
    op = "rms_norm_quantize"
    check_tensors(op, x=x, weight=weight)
    check_optional_tensors(op, residual=residual)
    check_bools(op, symmetric=symmetric, return_row_sum=return_row_sum)
    if eps is None:
        raise TypeError(f"quaver::{op}: eps must be a number, got NoneType")
    q_min, q_max = aimed_range(op, dtype, symmetric, q_min, q_max)
    q, scale, zero_point, row_sum, residual_out = run_rows(
        op,
        out,
        x,
        weight,
        residual=residual,
        eps=checked_eps(op, eps),
        symmetric=symmetric,
        dtype=dtype,
        q_min=q_min,
        q_max=q_max,
        return_row_sum=return_row_sum,
    )
    params = QuantizationParams(scale, zero_point, q_min, q_max, symmetric)
    return q, params, *([row_sum] if return_row_sum else []), *([] if residual is None else [residual_out])


def silu_mul_quantize(
    gate, up, *, symmetric=True, dtype=torch.int8, q_min=None, q_max=None, return_row_sum=False, out=None
):
    """The gated product of a SwiGLU layer, then dynamic_quantize of each row, equation (12), in one op.

    y = silu(gate) * up,    silu(g) = g / (1 + exp(-g)),    q, params = dynamic_quantize(y)

    Everything before the codes is float32; exp is within 1 ulp, and the same bits everywhere.

    Arguments:
        gate: float32, float16 or bfloat16 [..., N], 1 to 6 dimensions, any strides; N is at most 16,384.
        up: in gate's dtype and shape, any strides. Both may be halves of one tensor, y.chunk(2, -1): nothing is copied.
        symmetric, dtype, q_min, q_max: as for choose_qparams. There is one scale for each row.
        return_row_sum: whether the sums of the codes of each row come too: a matmul with zero points needs them.
        out: what such a call returns, written in place of new tensors; contiguous.

    Returns:
        (q, params), or (q, params, row_sum) with int32 [..., 1], all contiguous. A y that is NaN, as of a gate of minus
        infinity, becomes the zero point; an infinite one saturates.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equation (12); Shazeer 2020, "GLU Variants Improve Transformer".

    >>> import torch, quaver
    >>> gate, up = torch.tensor([[0.0, 1.0, -1.0, 8.0, 5.0, -5.0]]).chunk(2, -1)
    >>> q, params = quaver.silu_mul_quantize(gate, up)
    >>> q, quaver.dequantize(q, params)
    (tensor([[  0, 127,  47]], dtype=torch.int8), tensor([[0.0000, 3.6553, 1.3527]]))
    """
    op = "silu_mul_quantize"
    check_tensors(op, gate=gate, up=up)
    check_bools(op, symmetric=symmetric, return_row_sum=return_row_sum)
    q_min, q_max = aimed_range(op, dtype, symmetric, q_min, q_max)
    q, scale, zero_point, row_sum = run_rows(
        op, out, gate, up, symmetric=symmetric, dtype=dtype, q_min=q_min, q_max=q_max, return_row_sum=return_row_sum
    )
    params = QuantizationParams(scale, zero_point, q_min, q_max, symmetric)
    return (q, params, row_sum) if return_row_sum else (q, params)


def int8_prepack(b):
    """A matrix b [K, N] in the order in which the CPU's matmuls read it, to spare them that work at each call.

    A matmul that is given it as `b_packed` beside b itself, or int8_linear as `weight_packed`, has the same results,
    sooner. It is a copy: after a change of b it must be made anew. Its order is no promise; it is not for saving.

    Arguments:
        b: int8 or uint8 [K, N], any strides, on the CPU. A weight [N, K] is passed as its .t().

    Returns:
        b's dtype [ceil(N / 32), 2048 * ceil(K / 64) + 128], contiguous: for each 32 columns their codes, with zeros to
        the next 64 of K, and the sums of them.

    Raises:
        RuntimeError for a tensor that does not fit; NotImplementedError for one on another device.

    Source: csrc/cpu/kernels/panels.h; oneDNN's packed weights have the same purpose.

    >>> import torch, quaver
    >>> a = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8)
    >>> b_packed = quaver.int8_prepack(a.t())
    >>> b_packed.shape
    torch.Size([1, 2176])
    >>> quaver.int8_matmul(a, a.t(), b_packed=b_packed)
    tensor([[ 5, 11],
            [11, 25]], dtype=torch.int32)
    """
    check_tensors("int8_prepack", b=b)
    return torch.ops.quaver.int8_prepack.default(b)


@direct
def int8_matmul(
    a, b, *, a_zero_point=None, b_zero_point=None, a_sum=None, b_sum=None, b_packed=None, check=False, out=None
):
    """The exact product of codes, equation (6): acc = sum_k (a[m, k] - a_zero_point[m]) * (b[k, n] - b_zero_point[n]).

    Arguments:
        a: int8 or uint8 [..., M, K], any strides.
        b: int8 or uint8 [K, N], or batched [..., K, N]; batches broadcast as in torch.matmul. A weight [N, K] is passed
            as its .t(), the fast layout.
        a_zero_point: int32 [..., M, 1] or one element; None means 0.
        b_zero_point: int32 [..., 1, N] or one element; None means 0.
        a_sum, b_sum: int32 [..., M, 1] and [..., 1, N], the sums of a's codes and b's over k, where they are known:
            with zero points they need not be computed then. Wrong sums give unspecified results.
        b_packed: int8_prepack(b), on the CPU: the same results, sooner. Of another b it gives unspecified results.
        check: also verify that zero points are codes, which waits for the device.
        out: a tensor to write and return: of the result's shape, dtype and device, contiguous, in memory of its own.

    Returns:
        int32 [..., M, N], the same on every backend, whatever the tiling. M, N and K may be 0.

    Raises:
        RuntimeError for tensors that do not fit, and for a K whose sum could leave int32: K is at most 131,071 for int8
        x int8, 65,793 for uint8 x int8, 33,025 for uint8 x uint8 or with zero points.

    Source: equation (6); ONNX MatMulInteger, torch._int_mm.

    >>> import torch, quaver
    >>> a = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8)
    >>> quaver.int8_matmul(a, a.t(), a_zero_point=torch.tensor([[1], [0]]))
    tensor([[ 2,  4],
            [11, 25]], dtype=torch.int32)
    """
    op = "int8_matmul"
    check_tensors(op, a=a, b=b)
    check_optional_tensors(op, a_sum=a_sum, b_sum=b_sum, b_packed=b_packed)
    a_zero_point = int32(op, "a_zero_point", a_zero_point)
    b_zero_point = int32(op, "b_zero_point", b_zero_point)
    if check:
        check_zero_point(op, "a_", a_zero_point, *full_range_of(a))
        check_zero_point(op, "b_", b_zero_point, *full_range_of(b))
    return run(
        op,
        out,
        a,
        b,
        a_zero_point=a_zero_point,
        b_zero_point=b_zero_point,
        a_sum=a_sum,
        b_sum=b_sum,
        b_packed=b_packed,
    )


@direct
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
    check=False,
    out=None,
):
    """The product of codes as real numbers, equation (7): out = relu(acc * (a_scale * b_scale) + bias).

    Arguments: those of int8_matmul, and
        a_scale: float32 [..., M, 1] or one element; or QuantizationParams, which bring their zero point.
        b_scale: float32 [..., 1, N] or one element; or QuantizationParams.
        bias: float32 [N] (float16 and bfloat16 are widened), added after scaling.
        relu: negative results become 0; NaN stays.
        dtype: of the result, float32, float16 or bfloat16; one rounding, to even, at the very end.
        check: also verify that scales are positive and finite and zero points are codes, which waits for the device.

    Returns:
        [..., M, N] of dtype.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit; NotImplementedError
        for a scale that splits K.

    Source: equation (7).

    >>> import torch, quaver
    >>> a = torch.tensor([[10, -20]], dtype=torch.int8)
    >>> b = torch.tensor([[1], [2]], dtype=torch.int8)
    >>> quaver.int8_matmul_dequantize(a, b, torch.tensor(0.5), torch.tensor(0.1), bias=torch.tensor([2.0]))
    tensor([[0.5000]])
    """
    op = "int8_matmul_dequantize"
    check_tensors(op, a=a, b=b, a_scale=a_scale, b_scale=b_scale)
    check_optional_tensors(op, a_sum=a_sum, b_sum=b_sum, bias=bias, b_packed=b_packed)
    check_bools(op, relu=relu)
    a_scale, a_zero_point = row_parameters(op, a_scale, a_zero_point)
    b_scale, b_zero_point = column_parameters(op, "b_", b_scale, b_zero_point)
    check_float_dtype(op, dtype)
    if check:
        check_values(op, "a_", a_scale, a_zero_point, *full_range_of(a))
        check_values(op, "b_", b_scale, b_zero_point, *full_range_of(b))
    return run(
        op,
        out,
        a,
        b,
        a_scale,
        b_scale,
        a_zero_point=a_zero_point,
        b_zero_point=b_zero_point,
        a_sum=a_sum,
        b_sum=b_sum,
        bias=widened(bias),
        relu=relu,
        dtype=dtype,
        b_packed=b_packed,
    )


@direct
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
    check=False,
    out=None,
):
    """The product of codes as codes again, equation (8): quantize(int8_matmul_dequantize(...), out_scale, ...).

    The notebooks' S1 * S2 / S3. Between the product and its codes no rounding to a smaller float type happens and no
    float tensor exists. It is requantize(int8_matmul(...), ...) in one op.

    Arguments: those of int8_matmul_dequantize, and
        out_scale: float32, one element or [..., 1, N]; or QuantizationParams, which bring zero point and range.
        out_zero_point: int32 in out_scale's shape; None means 0.
        dtype: torch.int8 or torch.uint8.
        q_min, q_max: the codes to use, by default all of the dtype's.
        mode: "float", or "fixed" for the integer arithmetic of TFLite, equation (10), with an int32 bias: see
            requantize.

    Returns:
        Codes [..., M, N].

    Raises:
        As int8_matmul_dequantize.

    Source: equations (8) and (10); ONNX QLinearMatMul, TFLite's fully connected layer.

    >>> import torch, quaver
    >>> a = torch.tensor([[10, -20]], dtype=torch.int8)
    >>> b = torch.tensor([[1], [2]], dtype=torch.int8)
    >>> quaver.int8_matmul_requantize(a, b, torch.tensor(0.5), torch.tensor(0.1), torch.tensor(0.25))
    tensor([[-6]], dtype=torch.int8)
    """
    op = "int8_matmul_requantize"
    check_tensors(op, a=a, b=b, a_scale=a_scale, b_scale=b_scale, out_scale=out_scale)
    check_optional_tensors(op, a_sum=a_sum, b_sum=b_sum, bias=bias, b_packed=b_packed)
    check_bools(op, relu=relu)
    a_scale, a_zero_point = row_parameters(op, a_scale, a_zero_point)
    b_scale, b_zero_point = column_parameters(op, "b_", b_scale, b_zero_point)
    out_scale, out_zero_point, q_min, q_max = with_range(op, out_scale, out_zero_point, q_min, q_max, "out_")
    q_min, q_max = code_range(op, dtype, q_min, q_max)
    check_requantize_mode(op, mode)
    if check:
        check_values(op, "a_", a_scale, a_zero_point, *full_range_of(a))
        check_values(op, "b_", b_scale, b_zero_point, *full_range_of(b))
        check_values(op, "out_", out_scale, out_zero_point, q_min, q_max)
    return run(
        op,
        out,
        a,
        b,
        a_scale,
        b_scale,
        out_scale,
        a_zero_point=a_zero_point,
        b_zero_point=b_zero_point,
        out_zero_point=out_zero_point,
        a_sum=a_sum,
        b_sum=b_sum,
        bias=bias if mode == "fixed" else widened(bias),
        relu=relu,
        dtype=dtype,
        q_min=q_min,
        q_max=q_max,
        mode=mode,
        b_packed=b_packed,
    )


@direct
def rescale(acc, a_scale, b_scale, *, bias=None, relu=False, dtype=torch.float32, check=False, out=None):
    """An int32 product as real numbers: int8_matmul_dequantize without its matmul, equation (7).

    y = relu(acc * (a_scale * b_scale) + bias)

    It is for products that come from elsewhere, or in parts: int32 sums of the parts of K that several devices have
    multiplied are exact in any order, and what follows happens once.

    Arguments:
        acc: int32 [..., M, N], 0 to 6 dimensions, any strides. A vector [N] is one row.
        a_scale: float32 [..., M, 1] or one element; or QuantizationParams, whose zero point acc no longer needs.
        b_scale: float32 [..., 1, N] or one element; or QuantizationParams.
        bias: float32 [N] (float16 and bfloat16 are widened), added after scaling.
        relu: negative results become 0; NaN stays.
        dtype: of the result, float32, float16 or bfloat16; one rounding, to even, at the very end.
        check: also verify that scales are positive and finite, which waits for the device.
        out: a tensor to write and return: of the result's shape, dtype and device, in memory of its own, with any
            strides that give each element a place. No gradient passes through it.

    Returns:
        Of dtype, in acc's shape and, where acc is dense, its strides.

    Raises:
        As int8_matmul_dequantize.

    Source: equation (7).

    >>> import torch, quaver
    >>> acc = torch.tensor([[-50, 12], [7, 1000]], dtype=torch.int32)
    >>> quaver.rescale(acc, torch.tensor(0.5), torch.tensor([[0.5, 0.25]]), bias=torch.tensor([1.0, 0.0]))
    tensor([[-11.5000,   1.5000],
            [  2.7500, 125.0000]])
    """
    op = "rescale"
    check_tensors(op, acc=acc, a_scale=a_scale, b_scale=b_scale)
    check_optional_tensors(op, bias=bias)
    check_bools(op, relu=relu)
    a_scale, _ = row_parameters(op, a_scale, None)
    b_scale, _ = column_parameters(op, "b_", b_scale, None)
    check_float_dtype(op, dtype)
    if check:
        check_values(op, "a_", a_scale, None, 0, 0)
        check_values(op, "b_", b_scale, None, 0, 0)
    return run(op, out, acc, a_scale, b_scale, bias=widened(bias), relu=relu, dtype=dtype)


@direct
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
    check=False,
    out=None,
):
    """An int32 product as codes: int8_matmul_requantize without its matmul, equation (8) or (10).

    float:  v = relu(acc * (a_scale * b_scale) + bias),    q = clamp(round(v / out_scale) + out_zero_point)
    fixed:  q = clamp(relu(round((acc + bias) * M)) + out_zero_point),    M = a_scale * b_scale / out_scale

    In mode "fixed" M is an integer of 31 bits and a shift, and all that happens to a product are integer operations:
    those of TFLite's kernels, which round twice.

    Arguments:
        acc: int32 [..., M, N], 0 to 6 dimensions, any strides: what int8_matmul gives, or a convolution with its
            channels moved last, acc.movedim(1, -1). A vector [N] is one row.
        a_scale: float32 [..., M, 1] or one element; or QuantizationParams, whose zero point acc no longer needs.
        b_scale: float32 [..., 1, N] or one element; or QuantizationParams.
        out_scale: float32 [..., 1, N] or one element; or QuantizationParams, which bring zero point and range.
        out_zero_point: int32 in out_scale's shape; None means 0.
        bias: [N]. In mode "float" float32 (float16 and bfloat16 are widened), added after scaling. In mode "fixed"
            int32, in units of a_scale * b_scale, added to acc, wrapping.
        relu: negative results become 0, whose code is the zero point.
        dtype: torch.int8 or torch.uint8.
        q_min, q_max: the codes to use, by default all of the dtype's.
        mode: "float" or "fixed".
        check: also verify that scales are positive and finite and zero points are codes, which waits for the device.
        out: a tensor to write and return: of the result's shape, dtype and device, in memory of its own, with any
            strides that give each element a place. No gradient passes through it.

    Returns:
        Codes in acc's shape and, where acc is dense, its strides. Ties round to even in mode "float"; in mode "fixed"
        as equation (10) says.

    Raises:
        As int8_matmul_requantize.

    Source: equations (7), (8) and (10); Jacob et al. 2018, section 2.2; gemmlowp; TFLite.

    >>> import torch, quaver
    >>> acc = torch.tensor([[-50, 12], [7, 1000]], dtype=torch.int32)
    >>> scales = torch.tensor(0.5), torch.tensor([[0.1, 0.2]]), torch.tensor(0.25)
    >>> quaver.requantize(acc, *scales, out_zero_point=torch.tensor(-3))
    tensor([[-13,   2],
            [ -2, 127]], dtype=torch.int8)
    >>> bias = torch.tensor([1.0, -2.0])  # in mode "fixed" in units of a_scale * b_scale; 5.4 is 22 / 4 there, so 6
    >>> quaver.requantize(acc, *scales, bias=(bias / (scales[0] * scales[1][0])).round().int(), mode="fixed")
    tensor([[ -6,  -3],
            [  6, 127]], dtype=torch.int8)
    """
    op = "requantize"
    check_tensors(op, acc=acc, a_scale=a_scale, b_scale=b_scale, out_scale=out_scale)
    check_optional_tensors(op, bias=bias)
    check_bools(op, relu=relu)
    a_scale, _ = row_parameters(op, a_scale, None)
    b_scale, _ = column_parameters(op, "b_", b_scale, None)
    out_scale, out_zero_point, q_min, q_max = with_range(op, out_scale, out_zero_point, q_min, q_max, "out_")
    q_min, q_max = code_range(op, dtype, q_min, q_max)
    check_requantize_mode(op, mode)
    if check:
        check_values(op, "a_", a_scale, None, 0, 0)
        check_values(op, "b_", b_scale, None, 0, 0)
        check_values(op, "out_", out_scale, out_zero_point, q_min, q_max)
    return run(
        op,
        out,
        acc,
        a_scale,
        b_scale,
        out_scale,
        out_zero_point=out_zero_point,
        bias=bias if mode == "fixed" else widened(bias),
        relu=relu,
        dtype=dtype,
        q_min=q_min,
        q_max=q_max,
        mode=mode,
    )


@direct
def dequantize(q, scale, zero_point=None, *, dtype=torch.float32, check=False, out=None):
    """Codes to real numbers, equation (3): x = (q - zero_point) * scale.

    Arguments:
        q: int8 or uint8, 0 to 6 dimensions, any strides.
        scale, zero_point: as for quantize.
        dtype: of the result, float32, float16 or bfloat16; one rounding, to even, after a float32 product.
        check: also verify that scales are positive and finite and zero points are codes, which waits for the device.
        out: a tensor to write and return: of the result's shape, dtype and device, in memory of its own, with any
            strides that give each element a place. No gradient passes through it.

    Returns:
        A tensor in q's shape and, where q is dense, its strides.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equation (3); ONNX DequantizeLinear.

    >>> import torch, quaver
    >>> quaver.dequantize(torch.tensor([-128, 3, 127], dtype=torch.int8), torch.tensor(0.5), torch.tensor(3))
    tensor([-65.5000,   0.0000,  62.0000])
    """
    op = "dequantize"
    check_tensors(op, q=q, scale=scale)
    scale, zero_point, _, _ = with_range(op, scale, zero_point, None, None)
    check_float_dtype(op, dtype)
    if check:
        check_values(op, "", scale, zero_point, *full_range_of(q))
    return run(op, out, q, scale, zero_point, dtype=dtype)


@direct
def fake_quantize(
    x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0, check=False, out=None
):
    """What x's codes stand for, with a gradient, equation (9): y = dequantize(quantize(x, ...), ...) in x's dtype.

    For training with quantization in view. The gradient passes where the clamp leaves the code as it is:
    dy/dx = 1 where q_min <= round(x / scale) + zero_point <= q_max, and 0 elsewhere, at NaN and at infinities.

    Arguments: those of quantize. x may require grad; scale and zero_point may not, for they have no gradient here.
    `dtype` is that of the codes, which no tensor holds.

    Returns:
        A tensor of x's shape and dtype and, where x is dense, its strides. One rounding, to even, after a float32
        product.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equations (2), (3) and (9); torch.fake_quantize_per_tensor_affine, which is mode "reciprocal".

    >>> import torch, quaver
    >>> x = torch.tensor([-200.0, 0.3, 0.8, 200.0], requires_grad=True)
    >>> y = quaver.fake_quantize(x, torch.tensor(0.5))
    >>> y.detach()
    tensor([-64.0000,   0.5000,   1.0000,  63.5000])
    >>> y.sum().backward()
    >>> x.grad
    tensor([0., 1., 1., 0.])
    """
    op = "fake_quantize"
    refuse_tangent(op, "x", tensor_of(op, "x", x))
    scale, zero_point, options = quantize_arguments(
        op, scale, zero_point, q_min=q_min, q_max=q_max, dtype=dtype, mode=mode, seed=seed, check=check
    )
    return run(op, out, x, scale, zero_point, **options)


@direct
def fake_quantize_mask(
    x, scale, zero_point=None, *, q_min=None, q_max=None, dtype=torch.int8, mode="onnx", seed=0, check=False, out=None
):
    """Where fake_quantize has a gradient, equation (9): q_min <= round(x / scale) + zero_point <= q_max.

    Its mean is the share of x that a scale serves without clipping.

    Arguments: those of quantize.

    Returns:
        A bool tensor of x's shape and, where x is dense, its strides; False where x is NaN or infinite.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit.

    Source: equation (9); the mask of torch.fake_quantize_per_tensor_affine_cachemask.

    >>> import torch, quaver
    >>> x = torch.tensor([63.5, 63.7, 63.8, float("nan")])
    >>> quaver.fake_quantize_mask(x, torch.tensor(0.5))
    tensor([ True,  True, False, False])
    """
    op = "fake_quantize_mask"
    check_tensors(op, x=x)
    scale, zero_point, options = quantize_arguments(
        op, scale, zero_point, q_min=q_min, q_max=q_max, dtype=dtype, mode=mode, seed=seed, check=check
    )
    return run(op, out, x, scale, zero_point, **options)


@direct
def int8_linear(
    x,
    weight_q,
    weight_scale,
    bias=None,
    *,
    weight_sum=None,
    symmetric=True,
    relu=False,
    dtype=None,
    weight_packed=None,
    check=False,
    out=None,
):
    """A linear layer with int8 weights: y = relu(x @ dequantize(weight).T + bias), x quantized row by row on the way.

    dynamic_quantize(x, PerToken(), symmetric=symmetric), then int8_matmul_dequantize with the weight.

    Arguments:
        x: float32, float16 or bfloat16 [..., K].
        weight_q: int8 [N, K], symmetric.
        weight_scale: float32 [N, 1] or one element; or symmetric QuantizationParams.
        bias: float32 [N] (float16 and bfloat16 are widened).
        weight_sum: int32 [N, 1], the sums of weight_q's rows, if known: asymmetric activations need them.
        symmetric: whether activations have a zero point of 0. Asymmetric ones use all 256 codes for a one-sided range.
        relu: negative results become 0; NaN stays.
        dtype: of the result; x's dtype by default, whatever torch.autocast says.
        weight_packed: int8_prepack(weight_q.t()), on the CPU: the same results, sooner.
        check: also verify that scales are positive and finite, which waits for the device.
        out: a tensor to write and return: of the result's shape, dtype and device, contiguous, in memory of its own.

    Returns:
        [..., N] of dtype.

    Raises:
        RuntimeError for a tensor, TypeError or ValueError for another argument that does not fit; NotImplementedError
        for a weight scale that splits K.

    Source: equations (5), (6) and (7).

    >>> import torch, quaver
    >>> weight = torch.tensor([[1.0, -1.0], [0.5, 0.25]])
    >>> weight_q, params = quaver.dynamic_quantize(weight)
    >>> quaver.int8_linear(torch.tensor([[2.0, 1.0]]), weight_q, params.scale)
    tensor([[0.9921, 1.2540]])
    """
    op = "int8_linear"
    check_tensors(op, x=x, weight_q=weight_q, weight_scale=weight_scale)
    check_optional_tensors(op, bias=bias, weight_sum=weight_sum, weight_packed=weight_packed)
    check_bools(op, symmetric=symmetric, relu=relu)
    weight_scale = symmetric_scale(op, "weight_scale", weight_scale)
    refuse_split_k(op, "weight_scale", weight_scale, -1)
    if dtype is not None:
        check_float_dtype(op, dtype)
    if check:
        check_values(op, "weight_", weight_scale, None, 0, 0)
    return run(
        op,
        out,
        x,
        weight_q,
        weight_scale,
        widened(bias),
        weight_sum=weight_sum,
        symmetric=symmetric,
        relu=relu,
        dtype=dtype,
        weight_packed=weight_packed,
    )


@direct
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
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    relu=False,
    dtype=torch.float32,
    q_min=None,
    q_max=None,
    weight_packed=None,
    check=False,
    out=None,
):
    """A convolution of codes, to floats by equation (7) or to codes by (8): the int8 product of (13), scaled.

    acc[n, o, y, x] = sum over c, i, j of (x[n, c, y', x'] - x_zero_point) * weight[o, c, i, j]
    with y' = y * stride - padding + i * dilation, x' as y', and c running over o's group of channels
    result = relu(acc * (x_scale * weight_scale) + bias), and for codes quantize(result, out_scale, out_zero_point)

    Padding is with x_zero_point, the code of 0: what lies beyond x's edges adds nothing to a sum.

    Arguments:
        x: int8 or uint8 [N, C, H, W], any strides; channels_last is the fast layout.
        weight: int8 [O, C / groups, kH, kW], symmetric, any strides.
        x_scale: float32, one element; or QuantizationParams, which bring their zero point.
        weight_scale: float32, one element or [O, 1, 1, 1]; or symmetric QuantizationParams.
        out_scale: for a dtype of codes, and only then: float32, one element; or QuantizationParams, which bring zero
            point and range.
        x_zero_point, out_zero_point: int32, one element; None means 0.
        bias: float32 [O] (float16 and bfloat16 are widened), added after scaling.
        stride, padding, dilation: a number, or one for rows and one for columns, in pixels of x.
        groups: of channels, each convolved for itself; groups=C is a depthwise convolution.
        relu: negative results become 0; NaN stays.
        dtype: of the result: float32, float16, bfloat16, int8 or uint8.
        q_min, q_max: the codes to use, by default all of the dtype's.
        weight_packed: int8_prepack(weight.permute(2, 3, 1, 0).flatten(0, 2)), on the CPU with groups=1: the same
            results, sooner. Of another weight it gives unspecified results.
        check: also verify that scales are positive and finite and zero points are codes, which waits for the device.
        out: a tensor to write and return: of the result's shape, dtype and device, contiguous or channels_last, in
            memory of its own.

    Returns:
        [N, O, OH, OW] of dtype, with OH = (H + 2 padding - dilation (kH - 1) - 1) // stride + 1 and OW likewise;
        channels_last where x's strides suggest it, as for torch's own convolution, and else contiguous.

    Raises:
        RuntimeError for tensors that do not fit, or a kernel larger than x with its padding; and for a
        K = C / groups * kH * kW whose sum could leave int32, as int8_matmul. TypeError or ValueError for another
        argument that does not fit.

    Source: equations (13), (7) and (8); ONNX QLinearConv, torch.nn.functional.conv2d.

    >>> import torch, quaver
    >>> x = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.int8)
    >>> weight = torch.tensor([[[[1, -1]]]], dtype=torch.int8)
    >>> quaver.int8_conv2d(x, weight, torch.tensor(0.5), torch.tensor(0.5), padding=(0, 1))
    tensor([[[[-0.2500, -0.2500,  0.5000],
              [-0.7500, -0.2500,  1.0000]]]])
    """
    op = "int8_conv2d"
    check_tensors(op, x=x, weight=weight, x_scale=x_scale, weight_scale=weight_scale)
    check_optional_tensors(op, out_scale=out_scale, bias=bias, weight_packed=weight_packed)
    check_bools(op, relu=relu)
    x_scale, x_zero_point = single_parameters(op, "x_", x_scale, x_zero_point)
    weight_scale = symmetric_scale(op, "weight_scale", weight_scale)
    out_scale, out_zero_point, q_min, q_max = with_range(op, out_scale, out_zero_point, q_min, q_max, "out_")
    q_min, q_max = float_or_code_range(op, dtype, q_min, q_max)
    if check:
        check_values(op, "x_", x_scale, x_zero_point, *full_range_of(x))
        check_values(op, "weight_", weight_scale, None, 0, 0)
        if out_scale is not None:
            check_values(op, "out_", out_scale, out_zero_point, q_min, q_max)
    return run(
        op,
        out,
        x,
        weight,
        x_scale,
        weight_scale,
        out_scale,
        x_zero_point=x_zero_point,
        out_zero_point=out_zero_point,
        bias=widened(bias),
        stride=check_pair(op, "stride", stride, 1),
        padding=check_pair(op, "padding", padding, 0),
        dilation=check_pair(op, "dilation", dilation, 1),
        groups=check_count(op, "groups", groups),
        relu=relu,
        dtype=dtype,
        q_min=q_min,
        q_max=q_max,
        weight_packed=weight_packed,
    )
