"""The source notebook's module `quant_tool`: its six names with its signatures, over quaver's ops.

It gives the numbers that the notebooks print. Where the notebook's formulas fail it gives the right answer instead: a
range without 0 is widened to hold it, a constant channel keeps its value, float16 is computed in float32, and neither
NaN nor values near 3e38 spoil a scale.
"""

from dataclasses import dataclass

import torch

from quaver import ops
from quaver.qparams import PerChannel, PerTensor, full_range


@dataclass
class QuantizationParams:
    """The notebook's parameters: unlike quaver.QuantizationParams its zero point is float32, though a whole number.

    Per tensor, both tensors have no dimension; per channel, they have x's dimensions, all but the channel's of size 1.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    q_min: int
    q_max: int


def get_symmetric_qparams(
    x: torch.Tensor,
    per_channel: bool = False,
    channel_dim: int = 0,
    dtype=torch.int8,
    eps: float = 1e-8,
) -> QuantizationParams:
    """scale = max|x| / q_max, at least eps, and 1 for zeros; zero point 0; all of the dtype's codes.

    >>> get_symmetric_qparams(torch.tensor([1.27, -0.5]))
    QuantizationParams(scale=tensor(0.0100), zero_point=tensor(0.), q_min=-128, q_max=127)
    """
    return _qparams(x, per_channel, channel_dim, dtype, eps, symmetric=True)


def get_asymmetric_qparams(
    x: torch.Tensor,
    per_channel: bool = False,
    channel_dim: int = 0,
    dtype=torch.int8,
    eps: float = 1e-8,
) -> QuantizationParams:
    """scale = (max - min) / (q_max - q_min), at least eps, and 1 for zeros; zero point = round(q_min - min / scale).

    The notebook rounds before it subtracts from q_min, which gives the neighbouring zero point about once in two
    million ranges: where min / scale is an ulp or so beside a tie.

    >>> get_asymmetric_qparams(torch.tensor([0.0, 2.55]))
    QuantizationParams(scale=tensor(0.0100), zero_point=tensor(-128.), q_min=-128, q_max=127)
    """
    return _qparams(x, per_channel, channel_dim, dtype, eps, symmetric=False)


def _qparams(x, per_channel, channel_dim, dtype, eps, symmetric):
    q_min, q_max = full_range(dtype)
    granularity = PerChannel(channel_dim) if per_channel else PerTensor()
    params = ops.choose_qparams(x, granularity, symmetric=symmetric, dtype=dtype, q_min=q_min, q_max=q_max, eps=eps)
    shape = params.scale.shape if per_channel else ()
    zero_point = params.zero_point.to(torch.float32)
    return QuantizationParams(params.scale.reshape(shape), zero_point.reshape(shape), q_min, q_max)


def quantize_tensor(x: torch.Tensor, qparams: QuantizationParams) -> torch.Tensor:
    """q = clip(round(x / scale + zero_point), q_min, q_max), int8 (or uint8 where q_max is beyond 127).

    >>> quantize_tensor(torch.tensor([1.27, -0.5]), get_symmetric_qparams(torch.tensor([1.27, -0.5])))
    tensor([127, -50], dtype=torch.int8)
    """
    return ops.quantize(
        x,
        qparams.scale,
        qparams.zero_point.to(torch.int32),
        q_min=qparams.q_min,
        q_max=qparams.q_max,
        dtype=torch.uint8 if qparams.q_max > 127 else torch.int8,
        mode="affine",
    )


def dequantize_tensor(q: torch.Tensor, qparams: QuantizationParams) -> torch.Tensor:
    """x_hat = (q - zero_point) * scale, float32.

    >>> params = get_symmetric_qparams(torch.tensor([1.27, -0.5]))
    >>> dequantize_tensor(torch.tensor([127, -50], dtype=torch.int8), params)
    tensor([ 1.2700, -0.5000])
    """
    return ops.dequantize(q, qparams.scale, qparams.zero_point.to(torch.int32))


def quantize_dequant(
    x: torch.Tensor,
    per_channel: bool = False,
    channel_dim: int = 0,
    dtype=torch.int8,
    sym: bool = True,
):
    """Quantize and dequantize in one call: (q, x_hat, qparams).

    >>> q, x_hat, qparams = quantize_dequant(torch.tensor([1.27, -0.5]), sym=False)
    >>> q, x_hat
    (tensor([ 127, -128], dtype=torch.int8), tensor([ 1.2702, -0.4998]))
    """
    get_qparams = get_symmetric_qparams if sym else get_asymmetric_qparams
    qparams = get_qparams(x, dtype=dtype, per_channel=per_channel, channel_dim=channel_dim)
    q = quantize_tensor(x, qparams)
    return q, dequantize_tensor(q, qparams), qparams
