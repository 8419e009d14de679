"""The arguments of quaver's functions: QuantizationParams taken apart, and what is not a tensor refused.

Tensors are refused by the ops themselves (csrc/checks.h); the words here have the same form.
"""

import torch
from torch.autograd import forward_ad

from quaver.qparams import (
    MODES,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
    QuantizationParams,
    full_range,
    in_words,
    qparams_range,
)


def tensor_of(op, name, value):
    """A tensor, or that of QuantizationParams where these may stand for a scale."""
    tensor = value.scale if isinstance(value, QuantizationParams) and name.endswith("scale") else value
    if not isinstance(tensor, torch.Tensor):
        wanted = "a tensor or QuantizationParams" if name.endswith("scale") else "a tensor"
        raise TypeError(f"quaver::{op}: {name} must be {wanted}, got {type(value).__name__}")
    return tensor


def check_tensors(op, **values):
    """Tensors (or, for scales, QuantizationParams) that do not ask for a gradient."""
    _check_each(op, values, optional=False)


def check_optional_tensors(op, **values):
    """The same, where None is fine."""
    _check_each(op, values, optional=True)


def _check_each(op, values, optional):
    has_gradients = torch.is_grad_enabled()
    has_tangents = forward_ad._current_level >= 0
    for name, value in values.items():
        if value is None and optional:
            continue
        tensor = value if isinstance(value, torch.Tensor) else tensor_of(op, name, value)
        if has_tangents:
            refuse_tangent(op, name, tensor)
        if has_gradients and tensor.requires_grad:
            raise RuntimeError(
                f"quaver::{op}: {name} requires grad, but rounding has no gradient here; "
                f"call under torch.no_grad() or pass {name}.detach()"
            )


def refuse_tangent(op, name, tensor):
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        raise NotImplementedError(
            f"quaver::{op}: {name} has a tangent, but forward-mode differentiation (torch.func.jvp) is not supported; "
            f"pass torch.autograd.forward_ad.unpack_dual({name}).primal"
        )


def check_bools(op, **values):
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"quaver::{op}: {name} must be a bool, got {type(value).__name__}")


def check_granularity(op, granularity):
    if not isinstance(granularity, (PerTensor, PerChannel, PerToken, PerGroup)):
        raise TypeError(
            f"quaver::{op}: granularity must be PerTensor(), PerChannel(axis), PerToken() or PerGroup(size), "
            f"got {granularity!r}"
        )


def scale_shape(op, granularity, x):
    check_granularity(op, granularity)
    return granularity.scale_shape(x.shape)


def _code_dtype(op, dtype):
    if dtype not in (torch.int8, torch.uint8):
        raise ValueError(f"quaver::{op}: dtype must be torch.int8 or torch.uint8, got {dtype}")


def check_float_dtype(op, dtype):
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"quaver::{op}: dtype must be torch.float32, torch.float16 or torch.bfloat16, got {dtype}")


def float_or_code_range(op, dtype, q_min, q_max):
    """The range of codes; what was given, for the op to refuse, where the result is of floats."""
    if dtype in (torch.int8, torch.uint8):
        return code_range(op, dtype, q_min, q_max)
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(
            f"quaver::{op}: dtype must be torch.float32, torch.float16, torch.bfloat16, torch.int8 or torch.uint8, "
            f"got {dtype}"
        )
    return q_min, q_max


def symmetric_scale(op, name, scale):
    """The scale of symmetric codes, which QuantizationParams may bring."""
    if not isinstance(scale, QuantizationParams):
        return scale
    if not scale.symmetric:
        raise ValueError(f"quaver::{op}: {name} must be symmetric QuantizationParams, got asymmetric ones")
    return scale.scale


def _ordered_range(op, dtype, q_min, q_max):
    for name, value in (("q_min", q_min), ("q_max", q_max)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"quaver::{op}: {name} must be an int or None, got {type(value).__name__}")
    low, high = full_range(dtype)
    if not low <= q_min < q_max <= high:
        raise ValueError(
            f"quaver::{op}: q_min and q_max must satisfy {low} <= q_min < q_max <= {high} for {_name(dtype)}, "
            f"got q_min={q_min} and q_max={q_max}"
        )
    return q_min, q_max


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def code_range(op, dtype, q_min, q_max):
    _code_dtype(op, dtype)
    low, high = full_range(dtype)
    if q_min is None and q_max is None:
        return low, high
    return _ordered_range(op, dtype, low if q_min is None else q_min, high if q_max is None else q_max)


def aimed_range(op, dtype, symmetric, q_min, q_max):
    _code_dtype(op, dtype)
    if symmetric and dtype == torch.uint8 and q_min != 0:
        raise ValueError(
            f"quaver::{op}: symmetric uint8 codes need q_min=0, which says that the data has one sign; "
            "use asymmetric (symmetric=False) for data of both signs"
        )
    q_min, q_max = _ordered_range(op, dtype, *qparams_range(dtype, symmetric, q_min, q_max))
    if symmetric and not q_min <= 0 < q_max:
        raise ValueError(f"quaver::{op}: symmetric codes need q_min <= 0 < q_max, got q_min={q_min} and q_max={q_max}")
    return q_min, q_max


def check_mode(op, mode, seed):
    if mode not in MODES:
        raise ValueError(f"quaver::{op}: mode must be {in_words(MODES)}, got {mode!r}")
    if not isinstance(seed, (int, torch.SymInt)) or isinstance(seed, bool):
        raise TypeError(f"quaver::{op}: seed must be an int, got {type(seed).__name__}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"quaver::{op}: seed must fit int64, got {seed}")


def checked_eps(op, eps):
    if eps is None:
        return None
    if not isinstance(eps, (int, float)) or isinstance(eps, bool):
        raise TypeError(f"quaver::{op}: eps must be a number or None, got {type(eps).__name__}")
    if not 0 < eps <= torch.finfo(torch.float32).max:
        raise ValueError(f"quaver::{op}: eps must be positive and finite, got {eps}")
    return float(eps)


# QuantizationParams where scale and zero_point go.


def _unpacked(op, scale, zero_point, prefix):
    """Scale and zero point as the ops take them, and the params they came from."""
    if not isinstance(scale, QuantizationParams):
        return scale, int32(op, f"{prefix}zero_point", zero_point), None
    if zero_point is not None:
        raise TypeError(
            f"quaver::{op}: {prefix}zero_point must not be given beside QuantizationParams, which bring their own"
        )
    return scale.scale, int32(op, f"{prefix}zero_point", scale.correction), scale


def with_range(op, scale, zero_point, q_min, q_max, prefix=""):
    scale, zero_point, params = _unpacked(op, scale, zero_point, prefix)
    if params is None:
        return scale, zero_point, q_min, q_max
    if q_min is not None or q_max is not None:
        raise TypeError(
            f"quaver::{op}: q_min and q_max must not be given beside QuantizationParams, which bring their own"
        )
    return scale, zero_point, params.q_min, params.q_max


def quantize_arguments(op, scale, zero_point, *, q_min, q_max, dtype, mode, seed, check):
    """Scale and zero point as the ops take them, and the options of quantize and its kin."""
    check_tensors(op, scale=scale)
    scale, zero_point, q_min, q_max = with_range(op, scale, zero_point, q_min, q_max)
    codes = code_range(op, dtype, q_min, q_max)
    check_mode(op, mode, seed)
    if check:
        check_values(op, "", scale, zero_point, *codes)
    return scale, zero_point, {"q_min": q_min, "q_max": q_max, "dtype": dtype, "mode": mode, "seed": seed}


def single_parameters(op, prefix, scale, zero_point):
    scale, zero_point, _ = _unpacked(op, scale, zero_point, prefix)
    return scale, zero_point


def row_parameters(op, scale, zero_point):
    scale, zero_point, _ = _unpacked(op, scale, zero_point, "a_")
    refuse_split_k(op, "a_scale", scale, -1)
    return scale, zero_point


def column_parameters(op, prefix, scale, zero_point):
    scale, zero_point, _ = _unpacked(op, scale, zero_point, prefix)
    refuse_split_k(op, f"{prefix}scale", scale, -2)
    return scale, zero_point


def refuse_split_k(op, name, scale, k_dim):
    if scale.dim() >= 2 and scale.size(k_dim) > 1 and scale.numel() > 1:
        raise NotImplementedError(
            f"quaver::{op}: {name} must not split K (groups along K have no int8 product to scale), "
            f"got the shape {list(scale.shape)}; the scale of a transposed matrix is transposed too"
        )


def int32(op, name, zero_point):
    """Zero points of other integer types as int32; tensors of anything else are the op's to refuse."""
    if zero_point is None:
        return None
    check_tensors(op, **{name: zero_point})
    if zero_point.dtype in (torch.int8, torch.uint8, torch.int64):
        return zero_point.to(torch.int32)
    return zero_point


def check_count(op, name, value):
    if not isinstance(value, (int, torch.SymInt)) or isinstance(value, bool):
        raise TypeError(f"quaver::{op}: {name} must be an int, got {type(value).__name__}")
    if not 1 <= value < 2**63:
        raise ValueError(f"quaver::{op}: {name} must be at least 1, got {value}")
    return value


def check_pair(op, name, value, least):
    """A number for rows and columns, or one for each, as a pair."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    for number in pair:
        if not isinstance(number, (int, torch.SymInt)) or isinstance(number, bool):
            raise TypeError(f"quaver::{op}: {name} must be an int or a pair of them, got {value!r}")
    if len(pair) != 2 or min(pair) < least or max(pair) >= 2**31:
        raise ValueError(f"quaver::{op}: {name} must be two numbers from {least} to {2**31 - 1}, got {list(pair)}")
    return pair


def check_requantize_mode(op, mode):
    if mode not in ("float", "fixed"):
        raise ValueError(f"quaver::{op}: mode must be 'float' or 'fixed', got {mode!r}")


def widened(bias):
    if isinstance(bias, torch.Tensor) and bias.dtype in (torch.float16, torch.bfloat16):
        return bias.to(torch.float32)
    return bias


# check=True: values on the device, read back.


def full_range_of(codes):
    return full_range(codes.dtype) if codes.dtype in (torch.int8, torch.uint8) else (-128, 255)


def _whole(tensor):
    """Of a DTensor all its parts, so that all processes judge alike."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def check_values(op, prefix, scale, zero_point, q_min, q_max):
    scale = _whole(scale)
    good = torch.isfinite(scale) & (scale > 0)
    if not bool(good.all()):
        raise ValueError(f"quaver::{op}: {prefix}scale must be positive and finite, got {scale[~good][0].item()}")
    check_zero_point(op, prefix, zero_point, q_min, q_max)


def check_zero_point(op, prefix, zero_point, q_min, q_max):
    if zero_point is None:
        return
    zero_point = _whole(zero_point)
    good = (zero_point >= q_min) & (zero_point <= q_max)
    if not bool(good.all()):
        raise ValueError(
            f"quaver::{op}: {prefix}zero_point must lie within {q_min}..{q_max}, got {zero_point[~good][0].item()}"
        )
