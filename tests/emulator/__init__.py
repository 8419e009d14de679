"""Runs PTX on the CPU: what nvcc made of a kernel, executed with no GPU, every access checked and counted."""

from .module import DEVICES, LaunchError, Module, Report, Result
from .ptx import PtxError
from .tensor_map import tensor_map

__all__ = ["DEVICES", "LaunchError", "Module", "PtxError", "Report", "Result", "tensor_map"]
