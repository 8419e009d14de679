"""What is refused, and in which words: by the ops, by their fakes for the compiler, by the functions over the ops."""

import re
from functools import partial
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

import quaver
from quaver import PerChannel, PerGroup, PerTensor, PerToken
from tests import cases, test_out
from tests.cases import DEVICES

ops = torch.ops.quaver

CSRC = Path(__file__).parent.parent / "csrc"


def tensor(*shape, dtype=torch.float32):
    """How to make a tensor, on whatever device and in whatever mode the call then happens."""
    return partial(torch.ones, shape, dtype=dtype)


int8 = partial(tensor, dtype=torch.int8)
uint8 = partial(tensor, dtype=torch.uint8)
int32 = partial(tensor, dtype=torch.int32)
int64 = partial(tensor, dtype=torch.int64)
float64 = partial(tensor, dtype=torch.float64)


def made(arguments):
    return {key: value() if isinstance(value, partial) else value for key, value in arguments.items()}


def call(name, arguments):
    return getattr(ops, name)(**made(arguments))


def refusal(name, arguments, mode):
    """The words with which an op refuses, or None."""
    try:
        with mode:
            call(name, arguments)
    except RuntimeError as error:
        return str(error)
    return None


# The ops. What follows starts from a call that is accepted and changes one argument or two.

PRODUCT = {
    "a": int8(3, 4),
    "b": uint8(4, 5),
    "a_sum": int32(3, 1),
    "b_sum": int32(1, 5),
    "a_zero_point": int32(3, 1),
    "b_zero_point": int32(1, 5),
}
SCALED_PRODUCT = {**PRODUCT, "a_scale": tensor(3, 1), "b_scale": tensor(1, 5), "bias": tensor(5)}
ACCEPTED = {
    "choose_qparams": {"x": tensor(4, 6), "scale_shape": [4, 1]},
    "quantize": {"x": tensor(4, 6), "scale": tensor(4, 1), "zero_point": int32(4, 1)},
    "dynamic_quantize": {"x": tensor(4, 6), "scale_shape": [4, 1]},
    "rms_norm_quantize": {"x": tensor(4, 6), "weight": tensor(6), "residual": tensor(4, 6)},
    "silu_mul_quantize": {"gate": tensor(4, 6), "up": tensor(4, 6)},
    "int8_matmul": PRODUCT,
    "int8_matmul_dequantize": SCALED_PRODUCT,
    "int8_matmul_requantize": {**SCALED_PRODUCT, "out_scale": tensor(1, 5), "out_zero_point": int32(1, 5)},
    "rescale": {
        "acc": int32(3, 5),
        "a_scale": tensor(3, 1),
        "b_scale": tensor(1, 5),
        "bias": tensor(5),
    },
    "requantize": {
        "acc": int32(3, 5),
        "a_scale": tensor(3, 1),
        "b_scale": tensor(1, 5),
        "out_scale": tensor(1, 5),
        "out_zero_point": int32(1, 5),
        "bias": tensor(5),
    },
    "dequantize": {"q": int8(4, 6), "scale": tensor(4, 1), "zero_point": int32(4, 1)},
    "fake_quantize": {"x": tensor(4, 6), "scale": tensor(4, 1), "zero_point": int32(4, 1)},
    "fake_quantize_mask": {"x": tensor(4, 6), "scale": tensor(4, 1), "zero_point": int32(4, 1)},
    "int8_linear": {
        "x": tensor(3, 4),
        "weight_q": int8(5, 4),
        "weight_scale": tensor(5, 1),
        "bias": tensor(5),
        "weight_sum": int32(5, 1),
    },
    "int8_conv2d": {
        "x": uint8(2, 4, 5, 6),
        "weight": int8(6, 2, 3, 3),
        "x_scale": tensor(1),
        "weight_scale": tensor(6, 1, 1, 1),
        "out_scale": tensor(),
        "x_zero_point": int32(1),
        "out_zero_point": int32(),
        "bias": tensor(6),
        "groups": 2,
        "dtype": torch.int8,
    },
}
CONV = ("int8_conv2d",)
FLOAT_CONV = {"out_scale": None, "out_zero_point": None, "dtype": torch.float32}
PAIR = "must be two numbers from {} to 2147483647, got"
MATMULS = ("int8_matmul", "int8_matmul_dequantize", "int8_matmul_requantize")
LAST_STAGES = ("rescale", "requantize")
SCALED = ("int8_matmul_dequantize", "int8_matmul_requantize", *LAST_STAGES)
REQUANTIZING = ("int8_matmul_requantize", "requantize")
OF_ROWS = ("rms_norm_quantize", "silu_mul_quantize")
QUANTIZING = ("quantize", "fake_quantize", "fake_quantize_mask")
CHOOSING = ("choose_qparams", "dynamic_quantize")
AIMING = (*CHOOSING, *OF_ROWS)
WITH_RANGE = (*AIMING, *QUANTIZING, *REQUANTIZING)
FLOATS = "must be float32, float16 or bfloat16, got"
SYMMETRIC_UINT8 = (
    "symmetric uint8 codes need q_min=0, which says that the data has one sign; "
    "use asymmetric (symmetric=False) for data of both signs"
)
MODES = "must be 'onnx', 'affine', 'reciprocal' or 'stochastic', got"
SCALE_SHAPE = "scale_shape must have as many sizes as x has dimensions, each dividing x's [4, 6], got"
SCALE = "scale must have one element, or as many dimensions as {} with sizes that divide its [4, 6], got"
ROW = "the shape [3, 1] (a row's value [..., M, 1]), got"
COLUMN = "the shape [1, 5] (a column's value [..., 1, N]), got"
ROWS = "must have rows of at most 16384 elements, which are held until their scale is known, got"
EXACT = "zero points, so that every sum is exact in int32, got"

# (ops, what is changed, words after "quaver::op: ")
REFUSED = (
    ((*CHOOSING, *QUANTIZING, "int8_linear"), {"x": float64(4, 6)}, f"x {FLOATS} float64"),
    ((*CHOOSING, *QUANTIZING), {"x": int8(4, 6)}, f"x {FLOATS} int8"),
    (("dequantize", "int8_matmul_dequantize", "int8_linear"), {"dtype": torch.int32}, f"dtype {FLOATS} int32"),
    (("dequantize",), {"dtype": torch.complex64}, f"dtype {FLOATS} complex64"),
    (("dequantize",), {"dtype": torch.complex128}, f"dtype {FLOATS} complex128"),
    (("dequantize",), {"dtype": torch.float8_e4m3fn}, f"dtype {FLOATS} another dtype"),
    ((*QUANTIZING, "int8_linear"), {"x": None}, "x must be a tensor, got None"),
    (("dequantize",), {"q": None}, "q must be a tensor, got None"),
    ((*QUANTIZING, "dequantize"), {"scale": None}, "scale must be a tensor, got None"),
    (MATMULS, {"a": None}, "a must be a tensor, got None"),
    (MATMULS, {"b": None}, "b must be a tensor, got None"),
    (SCALED, {"a_scale": None}, "a_scale must be a tensor, got None"),
    (SCALED, {"b_scale": None}, "b_scale must be a tensor, got None"),
    (REQUANTIZING, {"out_scale": None}, "out_scale must be a tensor, got None"),
    (("int8_linear",), {"weight_q": None}, "weight_q must be a tensor, got None"),
    (("int8_linear",), {"weight_scale": None}, "weight_scale must be a tensor, got None"),
    (("dequantize",), {"q": tensor(4, 6)}, "q must be int8 or uint8, got float32"),
    (("dequantize",), {"q": tensor(4, 6, dtype=torch.bool)}, "q must be int8 or uint8, got bool"),
    (("dequantize",), {"q": tensor(4, 6, dtype=torch.int16)}, "q must be int8 or uint8, got int16"),
    (MATMULS, {"a": int32(3, 4)}, "a must be int8 or uint8, got int32"),
    (MATMULS, {"b": tensor(4, 5, dtype=torch.float16)}, "b must be int8 or uint8, got float16"),
    (WITH_RANGE, {"dtype": torch.int16}, "dtype must be int8 or uint8, got int16"),
    (WITH_RANGE, {"dtype": torch.bfloat16}, "dtype must be int8 or uint8, got bfloat16"),
    (
        (*CHOOSING, *QUANTIZING, "int8_linear"),
        {"x": tensor(1, 1, 1, 1, 1, 4, 4)},
        "x must have at most 6 dimensions, got 7",
    ),
    (("dequantize",), {"q": int8(1, 1, 1, 1, 1, 4, 4)}, "q must have at most 6 dimensions, got 7"),
    (MATMULS, {"a": int8(1, 1, 1, 1, 1, 3, 4)}, "a must have at most 6 dimensions, got 7"),
    (MATMULS, {"b": int8(1, 1, 1, 1, 1, 4, 5)}, "b must have at most 6 dimensions, got 7"),
    # Scales and zero points beside x and q
    ((*QUANTIZING, "dequantize"), {"scale": float64(4, 1)}, "scale must be float32, got float64"),
    ((*QUANTIZING, "dequantize"), {"zero_point": tensor(4, 1)}, "zero_point must be int32, got float32"),
    ((*QUANTIZING, "dequantize"), {"zero_point": int8(4, 1)}, "zero_point must be int32, got int8"),
    (QUANTIZING, {"scale": tensor(3, 1)}, f"{SCALE.format('x')} [3, 1]"),
    (QUANTIZING, {"scale": tensor(0, 1)}, f"{SCALE.format('x')} [0, 1]"),
    (QUANTIZING, {"scale": tensor(8, 1)}, f"{SCALE.format('x')} [8, 1]"),
    (QUANTIZING, {"scale": tensor(4)}, f"{SCALE.format('x')} [4]"),
    (("dequantize",), {"scale": tensor(1, 4, 1)}, f"{SCALE.format('q')} [1, 4, 1]"),
    ((*QUANTIZING, "dequantize"), {"zero_point": int32(1)}, "zero_point must have the shape of scale [4, 1], got [1]"),
    ((*QUANTIZING, "dequantize"), {"zero_point": int32(4)}, "zero_point must have the shape of scale [4, 1], got [4]"),
    ((*QUANTIZING, "dequantize"), {"scale": tensor()}, "zero_point must have the shape of scale [], got [4, 1]"),
    (QUANTIZING, {"mode": "nearest"}, f"mode {MODES} 'nearest'"),
    # The range of codes
    (
        (*QUANTIZING, *REQUANTIZING),
        {"q_min": -129},
        "q_min and q_max must satisfy -128 <= q_min < q_max <= 127 for int8, got q_min=-129 and q_max=127",
    ),
    (
        (*QUANTIZING, *REQUANTIZING),
        {"q_min": 3, "q_max": 3},
        "q_min and q_max must satisfy -128 <= q_min < q_max <= 127 for int8, got q_min=3 and q_max=3",
    ),
    (
        (*QUANTIZING, *REQUANTIZING),
        {"q_max": 256, "dtype": torch.uint8},
        "q_min and q_max must satisfy 0 <= q_min < q_max <= 255 for uint8, got q_min=0 and q_max=256",
    ),
    (
        AIMING,
        {"q_max": 2**40},
        f"q_min and q_max must satisfy -128 <= q_min < q_max <= 127 for int8, got q_min=-127 and q_max={2**40}",
    ),
    (
        AIMING,
        {"q_min": -129, "symmetric": False},
        "q_min and q_max must satisfy -128 <= q_min < q_max <= 127 for int8, got q_min=-129 and q_max=127",
    ),
    (AIMING, {"q_min": 1}, "symmetric codes need q_min <= 0 < q_max, got q_min=1 and q_max=127"),
    (AIMING, {"q_max": 0}, "symmetric codes need q_min <= 0 < q_max, got q_min=-127 and q_max=0"),
    (AIMING, {"dtype": torch.uint8}, SYMMETRIC_UINT8),
    (AIMING, {"dtype": torch.uint8, "q_min": 1}, SYMMETRIC_UINT8),
    ((*CHOOSING, "rms_norm_quantize"), {"eps": 0.0}, "eps must be positive and finite, got 0"),
    ((*CHOOSING, "rms_norm_quantize"), {"eps": -1234567.8}, "eps must be positive and finite, got -1.23457e+06"),
    ((*CHOOSING, "rms_norm_quantize"), {"eps": 1e39}, "eps must be positive and finite, got 1e+39"),
    (
        (*CHOOSING, "rms_norm_quantize"),
        {"eps": 3.4028235e38},
        "eps must be positive and finite, got 3.40282e+38",
    ),  # past the largest
    ((*CHOOSING, "rms_norm_quantize"), {"eps": float("inf")}, "eps must be positive and finite, got inf"),
    ((*CHOOSING, "rms_norm_quantize"), {"eps": float("nan")}, "eps must be positive and finite, got nan"),
    # Granularities
    (CHOOSING, {"scale_shape": [4]}, f"{SCALE_SHAPE} [4]"),
    (CHOOSING, {"scale_shape": [4, 5]}, f"{SCALE_SHAPE} [4, 5]"),
    (CHOOSING, {"scale_shape": [0, 1]}, f"{SCALE_SHAPE} [0, 1]"),
    (CHOOSING, {"x": tensor(4, 0), "scale_shape": [4, 2**40]}, f"{SCALE_SHAPE.replace('6', '0')} [4, {2**40}]"),
    (
        ("quantize",),
        {"x": tensor(4, 0), "scale": tensor(4, 2), "zero_point": None},
        f"{SCALE.format('x').replace('6', '0')} [4, 2]",
    ),
    (CHOOSING, {"scale_shape": [-4, 1]}, f"{SCALE_SHAPE} [-4, 1]"),
    (
        ("dynamic_quantize",),
        {"x": tensor(), "scale_shape": [], "return_row_sum": True},
        "return_row_sum needs an x with at least 1 dimension, got 0",
    ),
    # Rows that are made and quantized
    (OF_ROWS[:1], {"x": float64(4, 6)}, f"x {FLOATS} float64"),
    (OF_ROWS[:1], {"x": tensor()}, "x must have at least 1 dimension, got 0"),
    (OF_ROWS[:1], {"x": tensor(1, 1, 1, 1, 1, 4, 6)}, "x must have at most 6 dimensions, got 7"),
    (OF_ROWS[:1], {"x": tensor(2, 16_385)}, f"x {ROWS} 16385"),
    (OF_ROWS[:1], {"x": None}, "x must be a tensor, got None"),
    (OF_ROWS[:1], {"weight": None}, "weight must be a tensor, got None"),
    (OF_ROWS[1:], {"gate": None}, "gate must be a tensor, got None"),
    (OF_ROWS[1:], {"up": None}, "up must be a tensor, got None"),
    (OF_ROWS[:1], {"weight": int8(6)}, f"weight {FLOATS} int8"),
    (OF_ROWS[:1], {"weight": tensor(4)}, "weight must have the shape [6], got [4]"),
    (OF_ROWS[:1], {"weight": tensor(1, 6)}, "weight must have the shape [6], got [1, 6]"),
    (OF_ROWS[:1], {"residual": tensor(4, 6, dtype=torch.float16)}, "residual must be float32, got float16"),
    (OF_ROWS[:1], {"residual": tensor(6)}, "residual must have the shape of x [4, 6], got [6]"),
    (OF_ROWS[1:], {"gate": int8(4, 6)}, f"gate {FLOATS} int8"),
    (OF_ROWS[1:], {"gate": tensor(), "up": tensor()}, "gate must have at least 1 dimension, got 0"),
    (OF_ROWS[1:], {"gate": tensor(16_385), "up": tensor(16_385)}, f"gate {ROWS} 16385"),
    (OF_ROWS[1:], {"up": tensor(4, 6, dtype=torch.bfloat16)}, "up must be float32, got bfloat16"),
    (OF_ROWS[1:], {"up": tensor(1, 6)}, "up must have the shape of gate [4, 6], got [1, 6]"),
    # Products
    (MATMULS, {"a": int8(4)}, "a must have at least 2 dimensions, got 1"),
    (MATMULS, {"b": int8()}, "b must have at least 2 dimensions, got 0"),
    (MATMULS, {"a": int8(3, 5)}, "a [..., M, K] and b [..., K, N] must share K, got a [3, 5] and b [4, 5]"),
    (
        MATMULS,
        {"a": int8(2, 3, 4), "b": int8(3, 4, 5)},
        "the batch dimensions of a [2, 3, 4] and b [3, 4, 5] must broadcast",
    ),
    (
        MATMULS,
        {"a": int8(1, 33_026), "b": uint8(33_026, 1)},
        f"K must be at most 33025 for int8 x uint8 with {EXACT} 33026",
    ),
    (
        MATMULS,
        {"a": uint8(1, 33_026), "b": uint8(33_026, 1), "a_zero_point": None, "b_zero_point": None},
        f"K must be at most 33025 for uint8 x uint8 without {EXACT} 33026",
    ),
    (
        MATMULS,
        {"a": uint8(1, 65_794), "b": int8(65_794, 1), "a_zero_point": None, "b_zero_point": None},
        f"K must be at most 65793 for uint8 x int8 without {EXACT} 65794",
    ),
    (
        MATMULS,
        {"a": int8(1, 131_072), "b": int8(131_072, 1), "a_zero_point": None, "b_zero_point": None},
        f"K must be at most 131071 for int8 x int8 without {EXACT} 131072",
    ),
    (MATMULS, {"a_zero_point": tensor(3, 1)}, "a_zero_point must be int32, got float32"),
    (MATMULS, {"a_zero_point": int32(3)}, f"a_zero_point must have one element or {ROW} [3]"),
    (MATMULS, {"a_zero_point": int32(1, 3)}, f"a_zero_point must have one element or {ROW} [1, 3]"),
    (MATMULS, {"a_zero_point": int32(1, 3, 1)}, f"a_zero_point must have one element or {ROW} [1, 3, 1]"),
    (MATMULS, {"a_zero_point": int32(0, 1)}, f"a_zero_point must have one element or {ROW} [0, 1]"),
    (MATMULS, {"b_zero_point": int64(1, 5)}, "b_zero_point must be int32, got int64"),
    (MATMULS, {"b_zero_point": int32(5, 1)}, f"b_zero_point must have one element or {COLUMN} [5, 1]"),
    (MATMULS, {"a_sum": int64(3, 1)}, "a_sum must be int32, got int64"),
    (MATMULS, {"a_sum": int32(1)}, f"a_sum must have {ROW} [1]"),
    (MATMULS, {"b_sum": int8(1, 5)}, "b_sum must be int32, got int8"),
    (MATMULS, {"b_sum": int32()}, f"b_sum must have {COLUMN} []"),
    (
        MATMULS,
        {"a": int8(2, 7, 3, 4), "a_zero_point": int32(7, 7, 3, 1)},
        "a_zero_point must have one element or the shape [2, 7, 3, 1] (a row's value [..., M, 1]), got [7, 7, 3, 1]",
    ),
    (
        MATMULS,
        {"a": int8(2, 3, 4), "b_zero_point": int32(2, 1, 1)},
        "b_zero_point must have one element or the shape [2, 1, 5] (a column's value [..., 1, N]), got [2, 1, 1]",
    ),
    (SCALED, {"a_scale": float64(3, 1)}, "a_scale must be float32, got float64"),
    (SCALED, {"a_scale": tensor(2, 1)}, f"a_scale must have one element or {ROW} [2, 1]"),
    (SCALED, {"a_scale": tensor(3, 2)}, f"a_scale must have one element or {ROW} [3, 2]"),
    (SCALED, {"b_scale": tensor(1, 5, dtype=torch.bfloat16)}, "b_scale must be float32, got bfloat16"),
    (SCALED, {"b_scale": tensor(2, 5)}, f"b_scale must have one element or {COLUMN} [2, 5]"),
    (SCALED, {"bias": tensor(5, dtype=torch.float16)}, "bias must be float32, got float16"),
    (SCALED, {"bias": tensor(1, 5)}, "bias must have the shape [5], got [1, 5]"),
    (SCALED, {"bias": tensor()}, "bias must have the shape [5], got []"),
    (REQUANTIZING, {"out_scale": int32(1, 5)}, "out_scale must be float32, got int32"),
    (REQUANTIZING, {"out_scale": tensor(3, 1)}, f"out_scale must have one element or {COLUMN} [3, 1]"),
    (REQUANTIZING, {"out_zero_point": tensor()}, "out_zero_point must be int32, got float32"),
    (REQUANTIZING, {"out_zero_point": int32(5)}, f"out_zero_point must have one element or {COLUMN} [5]"),
    (REQUANTIZING, {"bias": int32(5)}, "bias must be float32, got int32"),
    (REQUANTIZING, {"mode": "fixed", "bias": tensor(5)}, "bias must be int32, got float32"),
    (REQUANTIZING, {"mode": "fixed", "bias": int32(4)}, "bias must have the shape [5], got [4]"),
    (REQUANTIZING, {"mode": "onnx"}, "mode must be 'float' or 'fixed', got 'onnx'"),
    (LAST_STAGES, {"acc": tensor(3, 5)}, "acc must be int32, got float32"),
    (LAST_STAGES, {"acc": int64(3, 5)}, "acc must be int32, got int64"),
    (LAST_STAGES, {"acc": int32(1, 1, 1, 1, 1, 3, 5)}, "acc must have at most 6 dimensions, got 7"),
    (
        LAST_STAGES,
        {"acc": int32(5)},
        "a_scale must have one element or the shape [1, 1] (a row's value [..., M, 1]), got [3, 1]",
    ),
    (
        LAST_STAGES,
        {"acc": int32(2, 3, 5), "b_scale": tensor(3, 1, 5)},
        "b_scale must have one element or the shape [2, 1, 5] (a column's value [..., 1, N]), got [3, 1, 5]",
    ),
    # Linear layers
    (("int8_linear",), {"x": tensor()}, "x must have at least 1 dimension, got 0"),
    (("int8_linear",), {"weight_q": uint8(5, 4)}, "weight_q must be int8, got uint8"),
    (("int8_linear",), {"weight_q": int8(4, 5)}, "weight_q must have the shape [N, 4] for x [3, 4], got [4, 5]"),
    (("int8_linear",), {"weight_q": int8(1, 5, 4)}, "weight_q must have the shape [N, 4] for x [3, 4], got [1, 5, 4]"),
    (("int8_linear",), {"weight_scale": float64(5, 1)}, "weight_scale must be float32, got float64"),
    (
        ("int8_linear",),
        {"weight_scale": tensor(5)},
        "weight_scale must have one element or the shape [5, 1], got [5]",
    ),
    (("int8_linear",), {"weight_sum": int64(5, 1)}, "weight_sum must be int32, got int64"),
    (("int8_linear",), {"weight_sum": int32(1)}, "weight_sum must have the shape [5, 1], got [1]"),
    (("int8_linear",), {"bias": tensor(5, dtype=torch.float16)}, "bias must be float32, got float16"),
    (("int8_linear",), {"bias": tensor(4)}, "bias must have the shape [5], got [4]"),
    (
        ("int8_linear",),
        {"x": tensor(1, 131_072), "weight_q": int8(5, 131_072)},
        f"K must be at most 131071 for int8 x int8 without {EXACT} 131072",
    ),
    (
        ("int8_linear",),
        {"x": tensor(33_026), "weight_q": int8(5, 33_026), "symmetric": False},
        f"K must be at most 33025 for int8 x int8 with {EXACT} 33026",
    ),
    # Convolutions
    (CONV, {"x": tensor(2, 4, 5, 6)}, "x must be int8 or uint8, got float32"),
    (CONV, {"x": None}, "x must be a tensor, got None"),
    (CONV, {"x": int8(4, 5, 6)}, "x must have 4 dimensions, [N, C, H, W], got 3"),
    (CONV, {"x": int8(2, 1, 1, 4, 5, 6)}, "x must have 4 dimensions, [N, C, H, W], got 6"),
    (CONV, {"weight": None}, "weight must be a tensor, got None"),
    (CONV, {"weight": uint8(6, 2, 3, 3)}, "weight must be int8, got uint8"),
    (CONV, {"weight": int8(6, 2, 3)}, "weight must have 4 dimensions, [O, C / groups, kH, kW], got 3"),
    (CONV, {"groups": 0}, "groups must be at least 1, got 0"),
    (CONV, {"groups": -2}, "groups must be at least 1, got -2"),
    (
        CONV,
        {"groups": 3},
        "groups must divide the channels of x and of the result, got groups=3 for 4 and 6",
    ),
    (
        CONV,
        {"weight": int8(5, 2, 3, 3)},
        "groups must divide the channels of x and of the result, got groups=2 for 4 and 5",
    ),
    (
        CONV,
        {"weight": int8(6, 4, 3, 3)},
        "weight must have the shape [O, 2, kH, kW] for x [2, 4, 5, 6] and groups=2, got [6, 4, 3, 3]",
    ),
    (CONV, {"weight": int8(6, 2, 0, 3)}, "weight must have a kernel of 1 x 1 or more, got 0 x 3"),
    (CONV, {"stride": [1, 0]}, f"stride {PAIR.format(1)} [1, 0]"),
    (CONV, {"stride": [1, 2, 3]}, f"stride {PAIR.format(1)} [1, 2, 3]"),
    (CONV, {"padding": [-1, 0]}, f"padding {PAIR.format(0)} [-1, 0]"),
    (CONV, {"padding": [2**31, 0]}, f"padding {PAIR.format(0)} [{2**31}, 0]"),
    (CONV, {"dilation": [0, 1]}, f"dilation {PAIR.format(1)} [0, 1]"),
    (
        CONV,
        {"padding": [0, 2**31 - 1]},
        f"x with its padding must have fewer than 2^31 rows and columns, got [5, {2**32 + 4}]",
    ),
    (
        CONV,
        {"dilation": [1, 3]},
        "the kernel with its dilation must not be larger than x with its padding, got [3, 7] for [5, 6]",
    ),
    (
        CONV,
        {"x": int8(2, 4, 1, 6), "padding": [0, 1]},
        "the kernel with its dilation must not be larger than x with its padding, got [3, 3] for [1, 8]",
    ),
    (
        CONV,
        {"x": int8(1, 2, 1, 33_026), "weight": int8(6, 1, 1, 33_026)},
        f"K must be at most 33025 for int8 x int8 with {EXACT} 33026",
    ),
    (CONV, {"x_scale": None}, "x_scale must be a tensor, got None"),
    (CONV, {"x_scale": float64(1)}, "x_scale must be float32, got float64"),
    (CONV, {"x_scale": tensor(2, 1, 1, 1)}, "x_scale must have one element, got [2, 1, 1, 1]"),
    (CONV, {"x_zero_point": int64(1)}, "x_zero_point must be int32, got int64"),
    (CONV, {"x_zero_point": int32(4)}, "x_zero_point must have one element, got [4]"),
    (CONV, {"weight_scale": None}, "weight_scale must be a tensor, got None"),
    (CONV, {"weight_scale": int32(6, 1, 1, 1)}, "weight_scale must be float32, got int32"),
    (
        CONV,
        {"weight_scale": tensor(6)},
        "weight_scale must have one element or the shape [6, 1, 1, 1], got [6]",
    ),
    (CONV, {"out_scale": float64()}, "out_scale must be float32, got float64"),
    (CONV, {"out_scale": tensor(6)}, "out_scale must have one element, got [6]"),
    (CONV, {"out_scale": None}, "out_scale must be given for a dtype of codes, got None for int8"),
    (CONV, {"out_zero_point": tensor()}, "out_zero_point must be int32, got float32"),
    (CONV, {"bias": tensor(6, dtype=torch.float16)}, "bias must be float32, got float16"),
    (CONV, {"bias": tensor(6, 1, 1)}, "bias must have the shape [6], got [6, 1, 1]"),
    (
        CONV,
        {"dtype": torch.int32},
        "dtype must be float32, float16, bfloat16, int8 or uint8, got int32",
    ),
    *(
        (
            CONV,
            {**FLOAT_CONV, **asked},
            "out_scale, out_zero_point, q_min and q_max are for a dtype of codes, got float32",
        )
        for asked in ({"out_scale": tensor()}, {"out_zero_point": int32()}, {"q_min": 0}, {"q_max": 9})
    ),
    (
        CONV,
        {"q_min": 3, "q_max": 3},
        "q_min and q_max must satisfy -128 <= q_min < q_max <= 127 for int8, got q_min=3 and q_max=3",
    ),
)
EVERY_REFUSAL = [(name, changes, f"quaver::{name}: {words}") for names, changes, words in REFUSED for name in names]


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_the_refusals_start_from_is_accepted(name):
    call(name, ACCEPTED[name])
    with FakeTensorMode():
        call(name, ACCEPTED[name])


@pytest.mark.parametrize(("name", "changes", "words"), EVERY_REFUSAL, ids=[words for *_, words in EVERY_REFUSAL])
def test_ops_refuse(name, changes, words):
    arguments = {**ACCEPTED[name], **changes}
    for device in DEVICES:
        assert refusal(name, arguments, torch.device(device)) == words
    assert refusal(name, arguments, FakeTensorMode()) == words


@pytest.mark.parametrize("name", ACCEPTED)
def test_of_two_faults_op_and_fake_name_the_same(name):
    faults = [changes for refused, changes, _ in EVERY_REFUSAL if refused == name]
    fake = FakeTensorMode()
    for one, other in combinations(faults, 2):
        arguments = {**ACCEPTED[name], **one, **other}
        # A call without any tensor is refused by torch's dispatcher, which knows no device for it.
        if one.keys().isdisjoint(other) and any(isinstance(value, partial) for value in arguments.values()):
            words = refusal(name, arguments, fake)
            for device in DEVICES:
                assert refusal(name, arguments, torch.device(device)) == words


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, arguments in ACCEPTED.items()
        for argument, value in list(arguments.items())[1:]
        if isinstance(value, partial)
    ],
)
def test_other_devices_are_refused(name, argument):
    like = next(iter(ACCEPTED[name]))
    elsewhere = {**ACCEPTED[name], argument: partial(ACCEPTED[name][argument], device="cuda:0")}
    words = f"quaver::{name}: {argument} must be on {{}} like {like}, got {{}}"
    assert refusal(name, elsewhere, FakeTensorMode()) == words.format("cpu", "cuda:0")
    with FakeTensorMode(), torch.device("cuda"):
        at_home = {**ACCEPTED[name], argument: partial(ACCEPTED[name][argument], device="cpu")}
        with pytest.raises(RuntimeError, match=re.escape(words.format("cuda:0", "cpu"))):
            call(name, at_home)
    if torch.cuda.is_available():
        assert refusal(name, elsewhere, torch.device("cpu")) == words.format("cpu", "cuda:0")

    # The CPU's own check, which the dispatcher leaves to other devices' kernels.
    arguments = made(ACCEPTED[name])
    arguments[argument] = arguments[argument].to("meta")
    with pytest.raises(RuntimeError, match=re.escape(words.format("cpu", ""))):
        getattr(ops, name).default.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), **arguments)


def test_every_refusal_of_the_sources_is_tried():
    tried = (*EVERY_REFUSAL, *test_out.REFUSED)
    words = " ".join(words.replace("\\", "") for *_, words in tried) + " must be on "
    found = 0
    for path in CSRC.glob("*.h"):
        for statement in re.findall(r"(?ms)^ *(?:QUAVER_CHECK|refuse)\((.*?)\);$", path.read_text()):
            literal = max(re.findall(r'"([^"]*)"', statement), key=len)
            assert literal in words, f"{path.name} refuses with {literal!r}: not among this file's"
            found += 1
    assert found > 20


# The functions: what is no tensor, and what a machine cannot do.

X = torch.ones(4, 6)
Q = torch.ones(4, 6, dtype=torch.int8)
B = torch.ones(6, 5, dtype=torch.int8)
W = torch.ones(5, 6, dtype=torch.int8)
ACC = torch.ones(4, 5, dtype=torch.int32)
ONE = torch.tensor(1.0)
WEIGHT = torch.ones(6)
ZERO = torch.tensor(0, dtype=torch.int32)
IMAGES = torch.ones(2, 3, 4, 5, dtype=torch.int8)
KERNEL = torch.ones(5, 3, 1, 1, dtype=torch.int8)
PARAMS = quaver.choose_qparams(X, symmetric=False)
X_GRAD = torch.ones(4, 6, requires_grad=True)
ONE_GRAD = torch.tensor(1.0, requires_grad=True)
RANGE = "q_min and q_max must satisfy {0} <= q_min < q_max <= {1} for {2}, got"
GRANULARITY = "granularity must be PerTensor(), PerChannel(axis), PerToken() or PerGroup(size), got"
BESIDE = "must not be given beside QuantizationParams, which bring their own"
SPLIT = "must not split K (groups along K have no int8 product to scale), got the shape"
TRANSPOSE = "; the scale of a transposed matrix is transposed too"
CODE_DTYPE = "dtype must be torch.int8 or torch.uint8, got"
FLOAT_DTYPE = "dtype must be torch.float32, torch.float16 or torch.bfloat16, got"
EVERY_DTYPE = "dtype must be torch.float32, torch.float16, torch.bfloat16, torch.int8 or torch.uint8, got"
POSITIVE = "must be positive and finite, got"
NO_GRADIENT = "requires grad, but rounding has no gradient here; call under torch.no_grad() or pass"

dequantized = quaver.int8_matmul_dequantize


def requantized(out_scale, **options):
    return quaver.int8_matmul_requantize(Q, B, ONE, ONE, out_scale, **options)


def last_stage(a_scale=ONE, **options):
    return quaver.requantize(ACC, a_scale, ONE, ONE, **options)


def convolved(weight_scale=ONE, **options):
    return quaver.int8_conv2d(IMAGES, KERNEL, ONE, weight_scale, **options)


def normed(**options):
    return quaver.rms_norm_quantize(X, WEIGHT, **options)


def of_both(words, *arguments, **options):
    """The same refusal by both functions that choose parameters."""
    return {
        f"choose_qparams: {words}": lambda: quaver.choose_qparams(X, *arguments, **options),
        f"dynamic_quantize: {words}": lambda: quaver.dynamic_quantize(X, *arguments, **options),
    }


REFUSED_BY_FUNCTIONS = {
    TypeError: {
        "choose_qparams: x must be a tensor, got list": lambda: quaver.choose_qparams([1.0]),
        "quantize: x must be a tensor, got float": lambda: quaver.quantize(1.0, ONE),
        "quantize: scale must be a tensor or QuantizationParams, got float": lambda: quaver.quantize(X, 0.1),
        "quantize: zero_point must be a tensor, got int": lambda: quaver.quantize(X, ONE, 3),
        "quantize: seed must be an int, got float": lambda: quaver.quantize(X, ONE, seed=1.0),
        "fake_quantize: x must be a tensor, got float": lambda: quaver.fake_quantize(1.0, ONE),
        "fake_quantize: scale must be a tensor or QuantizationParams, got float": lambda: quaver.fake_quantize(X, 0.1),
        "fake_quantize_mask: x must be a tensor, got int": lambda: quaver.fake_quantize_mask(1, ONE),
        "dynamic_quantize: x must be a tensor, got NoneType": lambda: quaver.dynamic_quantize(None),
        "int8_matmul: a must be a tensor, got int": lambda: quaver.int8_matmul(1, B),
        "int8_matmul: b must be a tensor, got list": lambda: quaver.int8_matmul(Q, [1]),
        "int8_matmul: a_zero_point must be a tensor, got int": lambda: quaver.int8_matmul(Q, B, a_zero_point=1),
        "int8_matmul: b_zero_point must be a tensor, got int": lambda: quaver.int8_matmul(Q, B, b_zero_point=1),
        "int8_matmul_dequantize: a_scale must be a tensor or QuantizationParams, got float": lambda: dequantized(
            Q, B, 0.1, ONE
        ),
        "int8_matmul_dequantize: b_scale must be a tensor or QuantizationParams, got float": lambda: dequantized(
            Q, B, ONE, 0.1
        ),
        "int8_matmul_requantize: out_scale must be a tensor or QuantizationParams, got float": lambda: requantized(0.1),
        "int8_matmul_requantize: out_zero_point must be a tensor, got int": lambda: requantized(ONE, out_zero_point=1),
        "requantize: acc must be a tensor, got list": lambda: quaver.requantize([1], ONE, ONE, ONE),
        "requantize: a_scale must be a tensor or QuantizationParams, got float": lambda: last_stage(0.1),
        "requantize: relu must be a bool, got int": lambda: last_stage(relu=1),
        "requantize: out_zero_point must be a tensor, got int": lambda: last_stage(out_zero_point=1),
        "rms_norm_quantize: x must be a tensor, got list": lambda: quaver.rms_norm_quantize([1.0], WEIGHT),
        "rms_norm_quantize: weight must be a tensor, got int": lambda: quaver.rms_norm_quantize(X, 1),
        "rms_norm_quantize: residual must be a tensor, got float": lambda: normed(residual=1.0),
        "rms_norm_quantize: eps must be a number, got NoneType": lambda: normed(eps=None),
        "rms_norm_quantize: return_row_sum must be a bool, got int": lambda: normed(return_row_sum=1),
        "silu_mul_quantize: up must be a tensor, got NoneType": lambda: quaver.silu_mul_quantize(X, None),
        "silu_mul_quantize: symmetric must be a bool, got int": lambda: quaver.silu_mul_quantize(X, X, symmetric=0),
        "dequantize: scale must be a tensor or QuantizationParams, got int": lambda: quaver.dequantize(Q, 1),
        "int8_linear: weight_scale must be a tensor or QuantizationParams, got float": lambda: quaver.int8_linear(
            X, W, 0.1
        ),
        "dequantize: q must be a tensor, got list": lambda: quaver.dequantize([1], ONE),
        "int8_matmul: b_sum must be a tensor, got list": lambda: quaver.int8_matmul(Q, B, b_sum=[1]),
        "int8_matmul_dequantize: bias must be a tensor, got int": lambda: dequantized(Q, B, ONE, ONE, bias=3),
        "int8_matmul_dequantize: relu must be a bool, got NoneType": lambda: dequantized(Q, B, ONE, ONE, relu=None),
        "int8_linear: weight_q must be a tensor, got NoneType": lambda: quaver.int8_linear(X, None, ONE),
        "int8_linear: weight_sum must be a tensor, got int": lambda: quaver.int8_linear(X, W, ONE, weight_sum=1),
        "int8_linear: symmetric must be a bool, got str": lambda: quaver.int8_linear(X, W, ONE, symmetric="no"),
        "int8_linear: relu must be a bool, got int": lambda: quaver.int8_linear(X, W, ONE, relu=1),
        "int8_conv2d: x must be a tensor, got int": lambda: quaver.int8_conv2d(1, KERNEL, ONE, ONE),
        "int8_conv2d: weight_scale must be a tensor or QuantizationParams, got float": lambda: convolved(0.1),
        "int8_conv2d: out_scale must be a tensor or QuantizationParams, got float": lambda: convolved(out_scale=0.1),
        "int8_conv2d: x_zero_point must be a tensor, got int": lambda: convolved(x_zero_point=1),
        "int8_conv2d: bias must be a tensor, got int": lambda: convolved(bias=1),
        "int8_conv2d: weight_packed must be a tensor, got int": lambda: convolved(weight_packed=1),
        "int8_conv2d: relu must be a bool, got int": lambda: convolved(relu=1),
        "int8_conv2d: stride must be an int or a pair of them, got 1.5": lambda: convolved(stride=1.5),
        "int8_conv2d: padding must be an int or a pair of them, got 'same'": lambda: convolved(padding="same"),
        "int8_conv2d: dilation must be an int or a pair of them, got (1, True)": lambda: convolved(dilation=(1, True)),
        "int8_conv2d: groups must be an int, got float": lambda: convolved(groups=1.0),
        f"int8_conv2d: out_zero_point {BESIDE}": lambda: convolved(out_scale=PARAMS, out_zero_point=ZERO),
        f"int8_conv2d: q_min and q_max {BESIDE}": lambda: convolved(out_scale=PARAMS, q_min=0),
        **of_both("symmetric must be a bool, got int", symmetric=1),
        **of_both(f"{GRANULARITY} {PerTensor!r}", PerTensor),
        **of_both(f"{GRANULARITY} 'per_tensor'", "per_tensor"),
        **of_both(f"{GRANULARITY} 0", 0),
        **of_both("q_min must be an int or None, got float", q_min=0.0),
        **of_both("q_max must be an int or None, got bool", q_max=True),
        **of_both("eps must be a number or None, got str", eps="1e-8"),
        f"quantize: zero_point {BESIDE}": lambda: quaver.quantize(X, PARAMS, ZERO),
        f"quantize: q_min and q_max {BESIDE}": lambda: quaver.quantize(X, PARAMS, q_min=-1),
        f"dequantize: zero_point {BESIDE}": lambda: quaver.dequantize(Q, PARAMS, ZERO),
        f"int8_matmul_dequantize: a_zero_point {BESIDE}": lambda: dequantized(Q, B, PARAMS, ONE, a_zero_point=ZERO),
        f"int8_matmul_dequantize: b_zero_point {BESIDE}": lambda: dequantized(Q, B, ONE, PARAMS, b_zero_point=ZERO),
        f"int8_matmul_requantize: out_zero_point {BESIDE}": lambda: requantized(PARAMS, out_zero_point=ZERO),
        f"int8_matmul_requantize: q_min and q_max {BESIDE}": lambda: requantized(PARAMS, q_max=9),
    },
    ValueError: {
        **of_both(f"{CODE_DTYPE} torch.int32", dtype=torch.int32),
        f"quantize: {CODE_DTYPE} torch.float32": lambda: quaver.quantize(X, ONE, dtype=torch.float32),
        f"int8_matmul_requantize: {CODE_DTYPE} None": lambda: requantized(ONE, dtype=None),
        f"int8_matmul_dequantize: {FLOAT_DTYPE} torch.int8": lambda: dequantized(Q, B, ONE, ONE, dtype=torch.int8),
        f"dequantize: {FLOAT_DTYPE} torch.float64": lambda: quaver.dequantize(Q, ONE, dtype=torch.float64),
        f"int8_linear: {FLOAT_DTYPE} torch.float64": lambda: quaver.int8_linear(X, W, ONE, dtype=torch.float64),
        **of_both(SYMMETRIC_UINT8, dtype=torch.uint8),
        **of_both("symmetric codes need q_min <= 0 < q_max, got q_min=-9 and q_max=-1", q_min=-9, q_max=-1),
        **of_both(f"{RANGE.format(-128, 127, 'int8')} q_min=9 and q_max=3", q_min=9, q_max=3),
        f"quantize: {RANGE.format(0, 255, 'uint8')} q_min=-1 and q_max=255": (
            lambda: quaver.quantize(X, ONE, q_min=-1, dtype=torch.uint8)
        ),
        f"int8_matmul_requantize: {RANGE.format(-128, 127, 'int8')} q_min=-128 and q_max=128": (
            lambda: requantized(ONE, q_max=128)
        ),
        "int8_matmul_requantize: mode must be 'float' or 'fixed', got 'int'": lambda: requantized(ONE, mode="int"),
        "requantize: mode must be 'float' or 'fixed', got None": lambda: last_stage(mode=None),
        f"requantize: {CODE_DTYPE} torch.int32": lambda: last_stage(dtype=torch.int32),
        f"requantize: {RANGE.format(0, 255, 'uint8')} q_min=9 and q_max=9": (
            lambda: last_stage(q_min=9, q_max=9, dtype=torch.uint8)
        ),
        "rms_norm_quantize: eps must be positive and finite, got 0": lambda: normed(eps=0),
        f"rms_norm_quantize: {SYMMETRIC_UINT8}": lambda: normed(dtype=torch.uint8),
        f"silu_mul_quantize: {CODE_DTYPE} torch.int32": lambda: quaver.silu_mul_quantize(X, X, dtype=torch.int32),
        f"requantize: a_scale {POSITIVE} -1.0": lambda: last_stage(-ONE, check=True),
        "requantize: out_zero_point must lie within -128..127, got 300": (
            lambda: last_stage(out_zero_point=ZERO + 300, check=True)
        ),
        f"quantize: mode {MODES} 'nearest'": lambda: quaver.quantize(X, ONE, mode="nearest"),
        **of_both("eps must be positive and finite, got 0", eps=0),
        **of_both("eps must be positive and finite, got -1e-08", eps=-1e-8),
        **of_both("eps must be positive and finite, got inf", eps=float("inf")),
        **of_both("eps must be positive and finite, got nan", eps=float("nan")),
        "int8_linear: weight_scale must be symmetric QuantizationParams, got asymmetric ones": (
            lambda: quaver.int8_linear(X, W, PARAMS)
        ),
        "int8_conv2d: weight_scale must be symmetric QuantizationParams, got asymmetric ones": lambda: convolved(
            PARAMS
        ),
        f"int8_conv2d: {EVERY_DTYPE} None": lambda: convolved(dtype=None),
        f"int8_conv2d: {RANGE.format(0, 255, 'uint8')} q_min=0 and q_max=300": (
            lambda: convolved(out_scale=ONE, dtype=torch.uint8, q_max=300)
        ),
        f"int8_conv2d: stride {PAIR.format(1)} [0, 0]": lambda: convolved(stride=0),
        f"int8_conv2d: padding {PAIR.format(0)} [1]": lambda: convolved(padding=[1]),
        "int8_conv2d: groups must be at least 1, got 0": lambda: convolved(groups=0),
        f"int8_conv2d: weight_scale {POSITIVE} -1.0": lambda: convolved(-ONE, check=True),
        f"int8_conv2d: out_scale {POSITIVE} 0.0": (lambda: convolved(out_scale=0 * ONE, dtype=torch.int8, check=True)),
        "int8_conv2d: x_zero_point must lie within -128..127, got 128": (
            lambda: convolved(x_zero_point=ZERO + 128, check=True)
        ),
        # check=True reads values
        f"quantize: scale {POSITIVE} 0.0": lambda: quaver.quantize(X, ONE.new_tensor([[1.0, 0.0]]), check=True),
        f"quantize: scale {POSITIVE} nan": lambda: quaver.quantize(X, ONE * float("nan"), check=True),
        f"dequantize: scale {POSITIVE} inf": lambda: quaver.dequantize(Q, ONE / 0, check=True),
        f"int8_matmul_dequantize: a_scale {POSITIVE} -1.0": lambda: dequantized(Q, B, -ONE, ONE, check=True),
        f"int8_matmul_requantize: out_scale {POSITIVE} 0.0": lambda: requantized(ONE * 0, check=True),
        f"int8_linear: weight_scale {POSITIVE} -1.0": lambda: quaver.int8_linear(X, W, -ONE, check=True),
        "quantize: zero_point must lie within -128..127, got 128": (
            lambda: quaver.quantize(X, ONE, ZERO + 128, check=True)
        ),
        "quantize: zero_point must lie within -5..9, got -6": (
            lambda: quaver.quantize(X, ONE, ZERO - 6, q_min=-5, q_max=9, check=True)
        ),
        "dequantize: zero_point must lie within -128..127, got -129": (
            lambda: quaver.dequantize(Q, ONE, ZERO - 129, check=True)
        ),
        "int8_matmul: b_zero_point must lie within -128..127, got 200": (
            lambda: quaver.int8_matmul(Q, B, b_zero_point=ZERO + 200, check=True)
        ),
    },
    NotImplementedError: {
        f"int8_matmul_dequantize: a_scale {SPLIT} [4, 2]{TRANSPOSE}": lambda: dequantized(Q, B, torch.ones(4, 2), ONE),
        f"int8_matmul_dequantize: b_scale {SPLIT} [2, 5]{TRANSPOSE}": lambda: dequantized(Q, B, ONE, torch.ones(2, 5)),
        f"int8_matmul_requantize: b_scale {SPLIT} [3, 1]{TRANSPOSE}": (
            lambda: quaver.int8_matmul_requantize(Q, B, ONE, torch.ones(3, 1), ONE)
        ),
        f"requantize: a_scale {SPLIT} [4, 2]{TRANSPOSE}": lambda: last_stage(torch.ones(4, 2)),
        f"int8_linear: weight_scale {SPLIT} [5, 3]{TRANSPOSE}": lambda: quaver.int8_linear(X, W, torch.ones(5, 3)),
    },
    RuntimeError: {
        "quantize: zero_point must be int32, got float32": lambda: quaver.quantize(X, ONE, ONE),
        "dequantize: zero_point must be int32, got float32": lambda: quaver.dequantize(Q, ONE, ONE),
        "int8_matmul: a_zero_point must be int32, got float32": lambda: quaver.int8_matmul(Q, B, a_zero_point=ONE),
        f"choose_qparams: x {NO_GRADIENT} x.detach()": lambda: quaver.choose_qparams(X_GRAD),
        f"quantize: x {NO_GRADIENT} x.detach()": lambda: quaver.quantize(X_GRAD, ONE),
        f"dynamic_quantize: x {NO_GRADIENT} x.detach()": lambda: quaver.dynamic_quantize(X_GRAD),
        f"rms_norm_quantize: residual {NO_GRADIENT} residual.detach()": lambda: normed(residual=X_GRAD),
        f"silu_mul_quantize: gate {NO_GRADIENT} gate.detach()": lambda: quaver.silu_mul_quantize(X_GRAD, X),
        f"dequantize: scale {NO_GRADIENT} scale.detach()": lambda: quaver.dequantize(Q, ONE_GRAD),
        f"quantize: scale {NO_GRADIENT} scale.detach()": lambda: quaver.quantize(X, ONE_GRAD),
        f"fake_quantize: scale {NO_GRADIENT} scale.detach()": lambda: quaver.fake_quantize(X, ONE_GRAD),
        f"fake_quantize_mask: x {NO_GRADIENT} x.detach()": lambda: quaver.fake_quantize_mask(X_GRAD, ONE),
        f"int8_matmul_dequantize: b_scale {NO_GRADIENT} b_scale.detach()": lambda: dequantized(Q, B, ONE, ONE_GRAD),
        f"requantize: b_scale {NO_GRADIENT} b_scale.detach()": lambda: quaver.requantize(ACC, ONE, ONE_GRAD, ONE),
        f"int8_linear: bias {NO_GRADIENT} bias.detach()": (
            lambda: quaver.int8_linear(X, W, ONE, torch.ones(5, requires_grad=True))
        ),
        f"int8_linear: x {NO_GRADIENT} x.detach()": lambda: quaver.int8_linear(X_GRAD, W, ONE),
        f"int8_conv2d: weight_scale {NO_GRADIENT} weight_scale.detach()": lambda: convolved(ONE_GRAD),
        "int8_conv2d: out_scale must be given for a dtype of codes, got None for int8": (
            lambda: convolved(dtype=torch.int8)
        ),
    },
}


@pytest.mark.parametrize(
    ("error", "words", "function"),
    [(error, *case) for error, cases in REFUSED_BY_FUNCTIONS.items() for case in cases.items()],
)
def test_functions_refuse(error, words, function):
    with pytest.raises(error) as refused:
        function()
    assert type(refused.value) is error
    assert str(refused.value) == f"quaver::{words}"


@pytest.mark.parametrize(
    ("granularity", "x", "words"),
    [
        (PerChannel(2), X, "PerChannel: axis must be between -2 and 1 for x [4, 6], got 2"),
        (PerChannel(-3), X, "PerChannel: axis must be between -2 and 1 for x [4, 6], got -3"),
        (PerGroup(4), X, "PerGroup: size must divide x's last dimension 6, got 4"),
        (PerGroup(0), X, "PerGroup: size must divide x's last dimension 6, got 0"),
        (PerGroup(-3), X, "PerGroup: size must divide x's last dimension 6, got -3"),
        (PerGroup(2), ONE, "PerGroup: x must have at least 1 dimension, got 0"),
        (PerChannel(0), ONE, "PerChannel: x must have at least 1 dimension, got 0"),
        (PerToken(), ONE, "PerToken: x must have at least 1 dimension, got 0"),
    ],
)
def test_granularities_refuse(granularity, x, words):
    for function in (quaver.choose_qparams, quaver.dynamic_quantize):
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            function(x, granularity)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PerChannel("a"), "PerChannel: axis must be an int, got str"),
        (lambda: PerChannel(1.0), "PerChannel: axis must be an int, got float"),
        (lambda: PerGroup(2.0), "PerGroup: size must be an int, got float"),
        (lambda: PerGroup(True), "PerGroup: size must be an int, got bool"),
    ],
)
def test_granularities_are_made_of_ints(make, words):
    with pytest.raises(TypeError, match=f"^{re.escape(words)}$"):
        make()


def test_without_grad_mode_what_requires_grad_is_taken():
    with torch.no_grad():
        params = quaver.choose_qparams(X_GRAD, PerTensor())
        q, _ = quaver.dynamic_quantize(X_GRAD)
        assert torch.equal(quaver.quantize(X_GRAD, params), q)
        assert not quaver.dequantize(Q, ONE_GRAD).requires_grad
        assert not quaver.int8_linear(X_GRAD, W, ONE).requires_grad
    with torch.inference_mode():
        quaver.int8_linear(X_GRAD, W, ONE)


# Values that nobody checked: the codes are unspecified, but nothing else is.

NO_SCALES = (0.0, -0.0, -1.0, 1e-45, float("inf"), float("-inf"), float("nan"))
NO_ZERO_POINTS = (-(2**31), 2**31 - 1, -(2**30), 1000, -1000)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_no_value_crashes(dtype, device):
    x = torch.tensor([[1.0, -3e38, float("nan"), float("inf"), -0.0, 7.0]] * 4, device=device)
    a = torch.full((4, 70), 255, device=device).to(dtype)
    b = a.t()
    for scale, zero_point in product(NO_SCALES, NO_ZERO_POINTS):
        s = torch.tensor(scale, device=device)
        z = torch.tensor(zero_point, dtype=torch.int32, device=device)
        for mode in cases.MODES:
            assert ops.quantize(x, s, z, dtype=dtype, mode=mode).shape == x.shape
            assert ops.fake_quantize(x, s, z, dtype=dtype, mode=mode).shape == x.shape
            assert ops.fake_quantize_mask(x, s, z, dtype=dtype, mode=mode).dtype == torch.bool
        assert ops.dequantize(a, s, z).shape == a.shape
        zero_points = {"a_zero_point": z, "b_zero_point": z}
        wrong = {"a_sum": z.expand(4, 1), "b_sum": z.expand(1, 4)}
        assert ops.int8_matmul(a, b, **zero_points, **wrong).shape == (4, 4)
        assert ops.int8_matmul_dequantize(a, b, s, s, **zero_points, dtype=torch.float16).dtype == torch.float16
        q = ops.int8_matmul_requantize(a, b, s, s, s, **zero_points, out_zero_point=z, dtype=dtype)
        assert (q.shape, q.dtype) == ((4, 4), dtype)
        for mode, acc in product(("float", "fixed"), (-(2**31), -1, 2**31 - 1)):
            options = {"out_zero_point": z, "dtype": dtype, "mode": mode}
            whole = torch.full((3, 5), acc, dtype=torch.int32, device=device)
            assert ops.requantize(whole, s, s, s, **options).shape == (3, 5)
            assert ops.int8_matmul_requantize(a, b, s, torch.ones_like(s), s, **options).shape == (4, 4)
        y = ops.int8_linear(x, torch.ones(5, 6, dtype=torch.int8, device=device), s, symmetric=False)
        assert (y.shape, y.dtype) == ((4, 5), torch.float32)
