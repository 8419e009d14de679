# The functions with their types; their docstrings are where they are defined.
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from quaver import Comparison, QuantConfig, QuantLinear

def smooth_quant(
    model: torch.nn.Module,
    calibration: Iterable[Any],
    *,
    alpha: float | Literal["search"] = 0.5,
    pairs: Mapping[str, Sequence[str]] | None = None,
    config: QuantConfig = ...,
) -> torch.nn.Module: ...
def clip_weights(model: torch.nn.Module, *, steps: int = 100, least: float = 0.5) -> torch.nn.Module: ...
def correct_bias(
    float_model: torch.nn.Module, int8_model: torch.nn.Module, batches: Iterable[Any]
) -> torch.nn.Module: ...
def equalize(model: torch.nn.Module, *, rounds: int = 20) -> torch.nn.Module: ...

class OutlierLinear(torch.nn.Module):
    rest: QuantLinear
    channels: Tensor
    weight: Tensor
    def __init__(self, rest: QuantLinear, channels: Tensor, weight: Tensor) -> None: ...
    @classmethod
    def from_float(cls, linear: torch.nn.Linear, channels: Tensor, **options: Any) -> OutlierLinear: ...
    def forward(self, input: Tensor) -> Tensor: ...
    def __call__(self, input: Tensor) -> Tensor: ...

def keep_outliers(
    model: torch.nn.Module,
    calibration: Iterable[Any],
    *,
    threshold: float = 6.0,
    most: float = 0.1,
    config: QuantConfig = ...,
) -> torch.nn.Module: ...
def fall_back(
    model: torch.nn.Module,
    config: QuantConfig,
    calibration: Sequence[Any],
    *,
    budget: float = 0.1,
    to: Literal["dynamic", "float"] = "dynamic",
    batches: Iterable[Any] | None = None,
    ranking: Comparison | None = None,
) -> torch.nn.Module: ...
