"""quaver: int8 quantization kernels for PyTorch that equal their pure-torch reference to the last bit."""

from quaver import library  # noqa: F401 - defines torch.ops.quaver, which everything below needs

# isort: split
from quaver import fakes, nn, observers, quant_tool, recipes, reference, vmap  # noqa: F401 - what they register
from quaver.compare import Comparison, compare, sensitivity
from quaver.compressed_tensors import load_compressed_tensors, save_compressed_tensors
from quaver.explain import MatmulPlan, explain_matmul
from quaver.library import build_info
from quaver.model import QuantConfig, quantize_model
from quaver.nn import QuantLinear
from quaver.onnx_export import to_onnx
from quaver.ops import (
    choose_qparams,
    dequantize,
    dynamic_quantize,
    fake_quantize,
    fake_quantize_mask,
    int8_conv2d,
    int8_linear,
    int8_matmul,
    int8_matmul_dequantize,
    int8_matmul_requantize,
    int8_prepack,
    quantize,
    requantize,
    rescale,
    rms_norm_quantize,
    silu_mul_quantize,
)
from quaver.qparams import PerChannel, PerGroup, PerTensor, PerToken, QuantizationParams
from quaver.selftest import selftest
from quaver.serialization import load, save
from quaver.tuning import TunedPlan, clear_tuning, load_tuning, tune_matmul
from quaver.verify import VerificationError, backend, verify

__version__ = build_info()["version"]

__all__ = [
    "Comparison",
    "MatmulPlan",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "PerToken",
    "QuantConfig",
    "QuantLinear",
    "QuantizationParams",
    "TunedPlan",
    "VerificationError",
    "backend",
    "build_info",
    "choose_qparams",
    "clear_tuning",
    "compare",
    "dequantize",
    "dynamic_quantize",
    "explain_matmul",
    "fake_quantize",
    "fake_quantize_mask",
    "fakes",
    "int8_conv2d",
    "int8_linear",
    "int8_matmul",
    "int8_matmul_dequantize",
    "int8_matmul_requantize",
    "int8_prepack",
    "load",
    "load_compressed_tensors",
    "load_tuning",
    "nn",
    "observers",
    "quant_tool",
    "quantize",
    "quantize_model",
    "recipes",
    "reference",
    "requantize",
    "rescale",
    "rms_norm_quantize",
    "save",
    "save_compressed_tensors",
    "selftest",
    "sensitivity",
    "silu_mul_quantize",
    "to_onnx",
    "tune_matmul",
    "verify",
]
