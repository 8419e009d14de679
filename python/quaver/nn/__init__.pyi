# The modules with their types; their docstrings are where they are defined.
from typing import Any

import torch
from torch import Tensor

from quaver.qparams import PerChannel, PerTensor, QuantizationParams

class QuantLinear(torch.nn.Module):
    in_features: int
    out_features: int
    symmetric: bool
    relu: bool
    dtype: torch.dtype
    weight_q: Tensor
    weight_scale: Tensor
    weight_sum: Tensor
    bias: Tensor | None
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        symmetric: bool = True,
        relu: bool = False,
        input: QuantizationParams | None = None,
        output: QuantizationParams | None = None,
        weights: PerChannel | PerTensor = ...,
        dtype: torch.dtype = ...,
        device: torch.device | str | int | None = None,
    ) -> None: ...
    @classmethod
    def from_float(
        cls,
        linear: torch.nn.Linear,
        *,
        symmetric: bool = True,
        relu: bool = False,
        input: QuantizationParams | None = None,
        output: QuantizationParams | None = None,
        weights: PerChannel | PerTensor = ...,
        weight_params: QuantizationParams | None = None,
    ) -> QuantLinear: ...
    @property
    def input(self) -> QuantizationParams | None: ...
    @property
    def output(self) -> QuantizationParams | None: ...
    def forward(self, input: Tensor) -> Tensor: ...
    def __call__(self, input: Tensor) -> Tensor: ...

class QuantConv2d(torch.nn.Module):
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    symmetric: bool
    relu: bool
    dtype: torch.dtype
    weight_q: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        symmetric: bool = True,
        relu: bool = False,
        input: QuantizationParams | None = None,
        output: QuantizationParams | None = None,
        weights: PerChannel | PerTensor = ...,
        dtype: torch.dtype = ...,
        device: torch.device | str | int | None = None,
    ) -> None: ...
    @classmethod
    def from_float(
        cls,
        conv: torch.nn.Conv2d,
        *,
        symmetric: bool = True,
        relu: bool = False,
        input: QuantizationParams | None = None,
        output: QuantizationParams | None = None,
        weights: PerChannel | PerTensor = ...,
        weight_params: QuantizationParams | None = None,
    ) -> QuantConv2d: ...
    @property
    def input(self) -> QuantizationParams | None: ...
    @property
    def output(self) -> QuantizationParams | None: ...
    def forward(self, input: Tensor) -> Tensor: ...
    def __call__(self, input: Tensor) -> Tensor: ...

class QuantEmbedding(torch.nn.Module):
    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    dtype: torch.dtype
    weight_q: Tensor
    weight_scale: Tensor
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: torch.dtype = ...,
        device: torch.device | str | int | None = None,
    ) -> None: ...
    @classmethod
    def from_float(cls, embedding: torch.nn.Embedding) -> QuantEmbedding: ...
    def forward(self, input: Tensor) -> Tensor: ...
    def __call__(self, input: Tensor) -> Tensor: ...

class FakeQuantLinear(torch.nn.Linear):
    symmetric: bool
    relu: bool
    observer: Any
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        symmetric: bool = True,
        relu: bool = False,
        observer: Any = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    @classmethod
    def from_float(
        cls, linear: torch.nn.Linear, *, symmetric: bool = True, relu: bool = False, observer: Any = None
    ) -> FakeQuantLinear: ...
    def to_int8(self) -> QuantLinear: ...
    @property
    def input(self) -> QuantizationParams | None: ...
    def forward(self, input: Tensor) -> Tensor: ...
    def __call__(self, input: Tensor) -> Tensor: ...

class FakeQuantConv2d(torch.nn.Conv2d):
    symmetric: bool
    relu: bool
    observer: Any
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        symmetric: bool = True,
        relu: bool = False,
        observer: Any = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    @classmethod
    def from_float(
        cls, conv: torch.nn.Conv2d, *, symmetric: bool = True, relu: bool = False, observer: Any = None
    ) -> FakeQuantConv2d: ...
    def to_int8(self) -> QuantConv2d: ...
    @property
    def input(self) -> QuantizationParams | None: ...
    def forward(self, input: Tensor) -> Tensor: ...
    def __call__(self, input: Tensor) -> Tensor: ...
