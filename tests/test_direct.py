"""The direct way of a call to its op: which calls go it, and that no call can tell, neither by bits nor by words."""

import functools
import inspect
import random

import pytest
import torch
from torch.autograd import forward_ad

import quaver
from quaver import library
from quaver.direct import direct
from quaver.draw import Draw
from tests import fuzz
from tests.cases import assert_bits, codes, normal, scales

ops = torch.ops.quaver

# Those that take granularities, or give QuantizationParams, have something to do themselves.
NOT_DIRECT = ("choose_qparams", "dynamic_quantize", "rms_norm_quantize", "silu_mul_quantize")
DIRECT = [op for op in library.OPS if op not in NOT_DIRECT]

# Dtypes as schemas have them.
NUMBER_OF = {torch.uint8: 0, torch.int8: 1, torch.float16: 5, torch.float32: 6, torch.bfloat16: 15, None: None}

ZERO = torch.tensor(0, dtype=torch.int32)
X, SCALE = normal(4, 6), torch.tensor(0.1)
ACC = codes(4, 6).int()


class TakenOverError(Exception):
    """The function was called."""


def watched(op):
    """quaver's function, which raises where it would have something to do itself."""

    @functools.wraps(getattr(quaver, op).__wrapped__)
    def function(*args, **options):
        raise TakenOverError

    return direct(function)


def drawn(op, seed):
    return Draw(random.Random(f"{seed} {op}"), most=300).call(op)


def test_those_that_are_direct():
    assert [op for op in library.OPS if hasattr(getattr(quaver, op), "__wrapped__")] == DIRECT


@pytest.mark.parametrize("op", DIRECT)
def test_arguments_are_the_ops(op):
    """In its order, and with its defaults, but that one number stands for a pair."""
    of_function = inspect.signature(getattr(quaver, op)).parameters
    of_op = getattr(ops, op).default._schema.arguments
    assert list(of_function) == [*(argument.name for argument in of_op), "check", "out"]
    for argument in of_op:
        parameter = of_function[argument.name]
        assert argument.kwarg_only == (parameter.kind is parameter.KEYWORD_ONLY)
        if not argument.has_default_value():
            assert parameter.default is parameter.empty
        elif argument.name in ("stride", "padding", "dilation"):
            assert argument.default_value == [parameter.default] * 2
        elif argument.name == "dtype":
            assert NUMBER_OF[parameter.default] == argument.default_value
        else:
            assert argument.default_value == parameter.default


@pytest.mark.parametrize("op", DIRECT)
def test_plain_calls_are_direct(op):
    call = watched(op)
    positions = [argument.name for argument in getattr(ops, op).default._schema.arguments if not argument.kwarg_only]
    for seed in range(20):
        arguments = drawn(op, seed)
        for name, value in arguments.items():
            arguments[name] = tuple(value) if isinstance(value, list) else value
        expected = getattr(ops, op)(**arguments)
        assert_bits(call(**arguments), expected)
        first = [arguments.pop(name, None) for name in positions]
        assert_bits(call(*first, **arguments), expected)


def test_a_place_is_written_directly():
    out = torch.empty(4, 6, dtype=torch.int8)
    before = out._version
    assert watched("quantize")(X, SCALE, out=out) is out
    assert out._version == before + 1
    assert_bits(out, ops.quantize(X, SCALE))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64])
def test_zero_points_are_converted(dtype):
    call, converted = watched("quantize"), torch.tensor(3, dtype=dtype)
    expected = ops.quantize(X, SCALE, torch.tensor(3, dtype=torch.int32))
    assert_bits(call(X, SCALE, converted), expected)
    assert_bits(call(X, SCALE, zero_point=converted), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_biases_are_converted(dtype):
    bias = normal(6).to(dtype)
    expected = ops.rescale(ACC, SCALE, SCALE, bias=bias.float())
    assert_bits(watched("rescale")(ACC, SCALE, SCALE, bias=bias), expected)


def test_a_bias_of_integers_stays_what_it_is():
    bias = torch.arange(6, dtype=torch.int32)
    expected = ops.requantize(ACC, SCALE, SCALE, SCALE, bias=bias, mode="fixed")
    assert_bits(watched("requantize")(ACC, SCALE, SCALE, SCALE, bias=bias, mode="fixed"), expected)


def test_defaults_are_for_the_function_to_say():
    watched("quantize")(X, SCALE, None, q_min=None, q_max=None, mode="onnx", seed=0, check=False, out=None)


PARAMS = quaver.choose_qparams(X)

# (op, arguments) that are for the function
TAKEN_OVER = {
    "QuantizationParams": ("quantize", {"x": X, "scale": PARAMS}),
    "check": ("quantize", {"x": X, "scale": SCALE, "check": True}),
    "a gradient": ("quantize", {"x": X.clone().requires_grad_(), "scale": SCALE}),
    "a fixed bias of int64": (
        "requantize",
        {"acc": ACC, "a_scale": SCALE, "b_scale": SCALE, "out_scale": SCALE, "mode": "fixed"}
        | {"bias": torch.arange(6)},
    ),
    "a gradient of a bias": (
        "rescale",
        {"acc": ACC, "a_scale": SCALE, "b_scale": SCALE, "bias": normal(6).half().requires_grad_()},
    ),
    "a zero point of another dtype": ("quantize", {"x": X, "scale": SCALE, "zero_point": ZERO.short()}),
    "a gradient of a scale": ("fake_quantize", {"x": X, "scale": SCALE.clone().requires_grad_()}),
    "a Parameter": ("quantize", {"x": torch.nn.Parameter(X, requires_grad=False), "scale": SCALE}),
    "a number for a bool": ("rescale", {"acc": ACC, "a_scale": SCALE, "b_scale": SCALE, "relu": 1}),
    "a bool for a number": ("quantize", {"x": X, "scale": SCALE, "q_min": True}),
    "a number for a dtype": ("quantize", {"x": X, "scale": SCALE, "dtype": 1}),
    "an unknown name": ("quantize", {"x": X, "scale": SCALE, "nothing": None}),
    "nothing for a tensor": ("quantize", {"x": None, "scale": SCALE}),
    "what the op refuses": ("quantize", {"x": X, "scale": SCALE.double()}),
    "a place that the op refuses": ("quantize", {"x": X, "scale": SCALE, "out": torch.empty(3)}),
    "one number for a pair": (
        "int8_conv2d",
        {"x": codes(1, 2, 3, 3), "weight": codes(2, 2, 1, 1), "x_scale": SCALE, "weight_scale": SCALE, "stride": 2},
    ),
    "a pair of other things": (
        "int8_conv2d",
        {"x": codes(1, 2, 3, 3), "weight": codes(2, 2, 1, 1), "x_scale": SCALE, "weight_scale": SCALE}
        | {"stride": (True, 1)},
    ),
}


@pytest.mark.parametrize(("op", "arguments"), TAKEN_OVER.values(), ids=TAKEN_OVER)
def test_what_is_for_the_function(op, arguments):
    with pytest.raises(TakenOverError):
        watched(op)(**arguments)


def test_too_many_arguments_are_for_the_function():
    with pytest.raises(TakenOverError):
        watched("quantize")(X, SCALE, ZERO, -128)


def test_tangents_are_for_the_function():
    with forward_ad.dual_level(), pytest.raises(TakenOverError):
        watched("quantize")(X, SCALE)


def test_without_gradients_parameters_of_a_model_are_direct():
    with torch.no_grad():
        watched("quantize")(X.clone().requires_grad_(), SCALE)


def test_graphs_are_made_of_the_function():
    """What a compiler sees has no exceptions to catch."""
    seen = []

    def backend(graph, _):
        seen.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch.compile(quaver.quantize, backend=backend, fullgraph=True)(X, SCALE)
    assert seen == [ops.quantize.default]


def test_an_error_has_no_other_behind_it():
    with pytest.raises(RuntimeError, match="scale must be float32") as caught:
        quaver.quantize(X, SCALE.double())
    assert caught.value.__context__ is None


@pytest.mark.parametrize("op", DIRECT)
def test_no_call_can_tell(op):
    """Random calls, most with an argument or two that were changed: the bits, or the words, of the function itself."""
    call, function, form = getattr(quaver, op), getattr(quaver, op).__wrapped__, getattr(ops, op).default
    refused = 0
    for seed in range(120):
        draw = Draw(random.Random(f"{seed} {op}"), most=200)
        arguments = draw.call(op)
        if draw.chance(0.8):
            arguments = fuzz.changed_call(draw, form, arguments)
        actual, error = fuzz.outcome(lambda arguments=arguments: call(**arguments))
        expected, wanted = fuzz.outcome(lambda arguments=arguments: function(**arguments))
        assert (type(error), str(error)) == (type(wanted), str(wanted)), arguments
        if wanted is not None:
            refused += 1
        elif not expected.is_meta:
            assert_bits(actual, expected)
    assert 30 < refused < 110


def test_scales_of_channels_and_rows_are_direct():
    """The form that layers call."""
    q, weight = codes(5, 8), codes(3, 8)
    row, column, bias = scales(5, 1), scales(1, 3), normal(3)
    actual = watched("int8_matmul_dequantize")(q, weight.t(), row, column, bias=bias, relu=True, dtype=torch.bfloat16)
    assert_bits(
        actual, quaver.reference.int8_matmul_dequantize(q, weight.t(), row, column, bias=bias, relu=True).bfloat16()
    )
