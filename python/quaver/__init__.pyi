# The public names with their types; their docstrings are where they are defined.
from collections.abc import Iterable
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from quaver import fakes as fakes
from quaver import nn as nn
from quaver import observers as observers
from quaver import quant_tool as quant_tool
from quaver import recipes as recipes
from quaver import reference as reference
from quaver.compare import Comparison as Comparison
from quaver.explain import MatmulPlan as MatmulPlan
from quaver.model import QuantConfig as QuantConfig
from quaver.nn import QuantLinear as QuantLinear
from quaver.qparams import PerChannel as PerChannel
from quaver.qparams import PerGroup as PerGroup
from quaver.qparams import PerTensor as PerTensor
from quaver.qparams import PerToken as PerToken
from quaver.qparams import QuantizationParams as QuantizationParams
from quaver.tuning import TunedPlan as TunedPlan
from quaver.verify import VerificationError as VerificationError

__version__: str

_Granularity: TypeAlias = PerTensor | PerChannel | PerToken | PerGroup
_Scale: TypeAlias = Tensor | QuantizationParams

def backend(name: Literal["reference"]) -> AbstractContextManager[object]: ...
def build_info() -> dict[str, Any]: ...
def choose_qparams(
    x: Tensor,
    granularity: _Granularity = ...,
    *,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    eps: float | None = None,
) -> QuantizationParams: ...
def compare(float_model: torch.nn.Module, int8_model: torch.nn.Module, batches: Iterable[Any]) -> Comparison: ...
def dequantize(
    q: Tensor,
    scale: _Scale,
    zero_point: Tensor | None = None,
    *,
    dtype: torch.dtype = ...,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
@overload
def dynamic_quantize(
    x: Tensor,
    granularity: _Granularity = ...,
    *,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    eps: float | None = None,
    return_row_sum: Literal[False] = False,
    out: tuple[Tensor, QuantizationParams] | None = None,
) -> tuple[Tensor, QuantizationParams]: ...
@overload
def dynamic_quantize(
    x: Tensor,
    granularity: _Granularity = ...,
    *,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    eps: float | None = None,
    return_row_sum: Literal[True],
    out: tuple[Tensor, QuantizationParams, Tensor] | None = None,
) -> tuple[Tensor, QuantizationParams, Tensor]: ...
def fake_quantize(
    x: Tensor,
    scale: _Scale,
    zero_point: Tensor | None = None,
    *,
    q_min: int | None = None,
    q_max: int | None = None,
    dtype: torch.dtype = ...,
    mode: str = "onnx",
    seed: int = 0,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def fake_quantize_mask(
    x: Tensor,
    scale: _Scale,
    zero_point: Tensor | None = None,
    *,
    q_min: int | None = None,
    q_max: int | None = None,
    dtype: torch.dtype = ...,
    mode: str = "onnx",
    seed: int = 0,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def int8_conv2d(
    x: Tensor,
    weight: Tensor,
    x_scale: _Scale,
    weight_scale: _Scale,
    out_scale: _Scale | None = None,
    *,
    x_zero_point: Tensor | None = None,
    out_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    relu: bool = False,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    weight_packed: Tensor | None = None,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def int8_linear(
    x: Tensor,
    weight_q: Tensor,
    weight_scale: _Scale,
    bias: Tensor | None = None,
    *,
    weight_sum: Tensor | None = None,
    symmetric: bool = True,
    relu: bool = False,
    dtype: torch.dtype | None = None,
    weight_packed: Tensor | None = None,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def int8_matmul(
    a: Tensor,
    b: Tensor,
    *,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
    a_sum: Tensor | None = None,
    b_sum: Tensor | None = None,
    b_packed: Tensor | None = None,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def int8_matmul_dequantize(
    a: Tensor,
    b: Tensor,
    a_scale: _Scale,
    b_scale: _Scale,
    *,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
    a_sum: Tensor | None = None,
    b_sum: Tensor | None = None,
    bias: Tensor | None = None,
    relu: bool = False,
    dtype: torch.dtype = ...,
    b_packed: Tensor | None = None,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def int8_matmul_requantize(
    a: Tensor,
    b: Tensor,
    a_scale: _Scale,
    b_scale: _Scale,
    out_scale: _Scale,
    *,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
    out_zero_point: Tensor | None = None,
    a_sum: Tensor | None = None,
    b_sum: Tensor | None = None,
    bias: Tensor | None = None,
    relu: bool = False,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    mode: str = "float",
    b_packed: Tensor | None = None,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def int8_prepack(b: Tensor) -> Tensor: ...
def quantize(
    x: Tensor,
    scale: _Scale,
    zero_point: Tensor | None = None,
    *,
    q_min: int | None = None,
    q_max: int | None = None,
    dtype: torch.dtype = ...,
    mode: str = "onnx",
    seed: int = 0,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def quantize_model(
    model: torch.nn.Module,
    config: QuantConfig = ...,
    calibration: Iterable[Any] | None = None,
    *,
    inplace: bool = False,
    progress: bool = True,
) -> torch.nn.Module: ...
def rescale(
    acc: Tensor,
    a_scale: _Scale,
    b_scale: _Scale,
    *,
    bias: Tensor | None = None,
    relu: bool = False,
    dtype: torch.dtype = ...,
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
def requantize(
    acc: Tensor,
    a_scale: _Scale,
    b_scale: _Scale,
    out_scale: _Scale,
    *,
    out_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    relu: bool = False,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    mode: str = "float",
    check: bool = False,
    out: Tensor | None = None,
) -> Tensor: ...
@overload
def rms_norm_quantize(
    x: Tensor,
    weight: Tensor,
    *,
    residual: None = None,
    eps: float = 1e-6,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    return_row_sum: Literal[False] = False,
    out: tuple[Tensor, QuantizationParams] | None = None,
) -> tuple[Tensor, QuantizationParams]: ...
@overload
def rms_norm_quantize(
    x: Tensor,
    weight: Tensor,
    *,
    residual: None = None,
    eps: float = 1e-6,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    return_row_sum: Literal[True],
    out: tuple[Tensor, QuantizationParams, Tensor] | None = None,
) -> tuple[Tensor, QuantizationParams, Tensor]: ...
@overload
def rms_norm_quantize(
    x: Tensor,
    weight: Tensor,
    *,
    residual: Tensor,
    eps: float = 1e-6,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    return_row_sum: Literal[False] = False,
    out: tuple[Tensor, QuantizationParams, Tensor] | None = None,
) -> tuple[Tensor, QuantizationParams, Tensor]: ...
@overload
def rms_norm_quantize(
    x: Tensor,
    weight: Tensor,
    *,
    residual: Tensor,
    eps: float = 1e-6,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    return_row_sum: Literal[True],
    out: tuple[Tensor, QuantizationParams, Tensor, Tensor] | None = None,
) -> tuple[Tensor, QuantizationParams, Tensor, Tensor]: ...
def explain_matmul(a: Tensor, b: Tensor, gpu: str = "A100", *, out_dtype: torch.dtype = ...) -> MatmulPlan: ...
def sensitivity(
    model: torch.nn.Module,
    config: QuantConfig = ...,
    calibration: Iterable[Any] | None = None,
    batches: Iterable[Any] | None = None,
) -> Comparison: ...
def selftest(seconds: float = 60, *, device: torch.device | str | None = None, seed: int = 0) -> None: ...
@overload
def silu_mul_quantize(
    gate: Tensor,
    up: Tensor,
    *,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    return_row_sum: Literal[False] = False,
    out: tuple[Tensor, QuantizationParams] | None = None,
) -> tuple[Tensor, QuantizationParams]: ...
@overload
def silu_mul_quantize(
    gate: Tensor,
    up: Tensor,
    *,
    symmetric: bool = True,
    dtype: torch.dtype = ...,
    q_min: int | None = None,
    q_max: int | None = None,
    return_row_sum: Literal[True],
    out: tuple[Tensor, QuantizationParams, Tensor] | None = None,
) -> tuple[Tensor, QuantizationParams, Tensor]: ...
def load_compressed_tensors(folder: str | PathLike[str], model: torch.nn.Module) -> torch.nn.Module: ...
def save_compressed_tensors(model: torch.nn.Module, folder: str | PathLike[str]) -> None: ...
def load(path: str | PathLike[str], model: torch.nn.Module) -> torch.nn.Module: ...
def save(model: torch.nn.Module, path: str | PathLike[str]) -> None: ...
def to_onnx(
    model: torch.nn.Module,
    path: str | PathLike[str],
    args: Any,
    *,
    exact: bool = False,
    dynamic_shapes: Any = None,
) -> None: ...
def clear_tuning() -> None: ...
def load_tuning(path: str | PathLike[str]) -> int: ...
def tune_matmul(a: Tensor, b: Tensor, *, path: str | PathLike[str] | None = None) -> TunedPlan: ...
def verify() -> AbstractContextManager[object]: ...
