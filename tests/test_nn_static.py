"""QuantLinear with static activations, a fused ReLU and results in codes: what flows from layer to layer."""

import copy
import pickle
from itertools import product

import pytest
import torch

import quaver
from quaver import QuantLinear, reference
from tests.cases import DEVICES, FLOAT_DTYPES, assert_bits, normal
from tests.test_nn import CONVERSIONS, linear

SEEN = normal(200, 48, seed=5)


def params(x=SEEN, symmetric=False):
    return quaver.choose_qparams(x, symmetric=symmetric)


def layer(*, symmetric=False, output=None, relu=False, dtype=torch.float32):
    return QuantLinear.from_float(linear(dtype=dtype), input=params(symmetric=symmetric), output=output, relu=relu)


def defined(layer, x):
    """The layer's output by the ops' definitions."""
    rows = x.unsqueeze(0) if x.dim() == 1 else x
    if layer.input is None:
        q, a_scale, a_zero_point, _ = reference.dynamic_quantize(rows, (*rows.shape[:-1], 1), symmetric=layer.symmetric)
    else:
        a_scale, a_zero_point = layer.input.scale, layer.input.zero_point
        limits = {"q_min": layer.input.q_min, "q_max": layer.input.q_max}
        q = rows if rows.dtype == torch.int8 else reference.quantize(rows, a_scale, a_zero_point, **limits)
    args = (q, layer.weight_q.t(), a_scale, layer.weight_scale.t())
    options = {"a_zero_point": a_zero_point, "bias": layer.bias, "relu": layer.relu}
    if layer.output is None:
        y = reference.int8_matmul_dequantize(*args, **options, dtype=layer.dtype if x.dtype == torch.int8 else x.dtype)
    else:
        out = layer.output
        limits = {"q_min": out.q_min, "q_max": out.q_max}
        y = reference.int8_matmul_requantize(*args, out.scale, out_zero_point=out.zero_point, **limits, **options)
    return y.squeeze(0) if x.dim() == 1 else y


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_kind_is_the_reference(symmetric, dtype, device):
    outputs = (None, params(10 * SEEN, True), params(10 * SEEN, False))
    for relu, output, static in product((False, True), outputs, (False, True)):
        options = {"relu": relu, "output": output, "symmetric": symmetric}
        made = QuantLinear.from_float(
            linear(dtype=dtype), input=params(symmetric=symmetric) if static else None, **options
        ).to(device)
        assert made.symmetric is symmetric
        for shape in ((33, 48), (48,), (2, 3, 48), (0, 48)):
            x = normal(*shape, dtype=dtype, seed=6).to(device)
            y = made(x)
            assert y.shape == (*shape[:-1], 20)
            assert y.dtype == (torch.int8 if output else dtype)
            assert_bits(y, defined(made, x))


@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_are_taken_as_they_are(symmetric):
    made = layer(symmetric=symmetric)
    x = normal(5, 48, seed=6)
    assert_bits(made(quaver.quantize(x, made.input)), made(x))
    half = layer(symmetric=symmetric, dtype=torch.float16)
    assert half(quaver.quantize(x, made.input)).dtype == torch.float16


def test_by_hand():
    """Codes 1 and -2 of scale 1/2 and zero point 1: 0 and -1.5. Weights 127 and 64 of scale 1/128."""
    float_layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        float_layer.weight.copy_(torch.tensor([[127 / 128, 0.5]]))
        float_layer.bias.copy_(torch.tensor([1.0]))
    half = quaver.QuantizationParams(torch.tensor([0.5]), torch.tensor([1], dtype=torch.int32), -128, 127)
    made = QuantLinear.from_float(float_layer, input=half)
    x = torch.tensor([[1, -2]], dtype=torch.int8)
    assert_bits(made(x), torch.tensor([[0.25]]))  # -1.5 / 2 + 1
    assert_bits(QuantLinear.from_float(float_layer, input=half, output=half)(x), torch.tensor([[1]], dtype=torch.int8))
    assert_bits(made(torch.tensor([[0.0, -100.0]])), torch.tensor([[1 - 64.5 / 2]]))  # beyond -128 it saturates


def test_no_float_exists_between_layers():
    """linear, ReLU, linear: codes all the way, equal to the layers by themselves with a float tensor in between."""
    first, second = linear(48, 32), linear(32, 20, seed=3)
    between = params(first(SEEN).relu().detach())
    start = QuantLinear.from_float(first, input=params(), relu=True, output=between)
    end = QuantLinear.from_float(second, input=between)
    alone = QuantLinear.from_float(first, input=params())
    x = normal(9, 48, seed=7)
    assert start(x).dtype == torch.int8
    assert_bits(end(start(x)), end(alone(x).relu()))


def test_state_holds_the_parameters():
    made = layer(output=params(10 * SEEN))
    names = ["weight_q", "weight_scale", "weight_sum", "bias"]
    names += ["input_scale", "input_zero_point", "output_scale", "output_zero_point"]
    assert list(made.state_dict()) == names
    other = QuantLinear.from_float(linear(seed=9), input=params(3 * SEEN), output=params(7 * SEEN))
    other.load_state_dict(made.state_dict())
    x = normal(3, 48)
    assert_bits(other(x), made(x))


@pytest.mark.parametrize("conversion", CONVERSIONS.values(), ids=CONVERSIONS.keys())
def test_conversions_of_dtype_leave_the_state_alone(conversion):
    made = layer(output=params(10 * SEEN))
    converted = conversion(copy.deepcopy(made))
    for (name, tensor), (_, kept) in zip(made.state_dict().items(), converted.state_dict().items(), strict=True):
        assert_bits(kept, tensor), name


def test_copies():
    made = layer(output=params(10 * SEEN), relu=True)
    x = normal(3, 48)
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(copied) == repr(made)
        assert_bits(copied(x), made(x))


def test_changing_the_given_parameters_later_changes_nothing():
    given = params()
    made = QuantLinear.from_float(linear(), input=given)
    expected = made(SEEN)
    given.scale.mul_(2)
    assert_bits(made(SEEN), expected)


def test_weights_with_one_scale_and_with_given_ones():
    float_layer, x = linear(), normal(5, 48)
    single = QuantLinear.from_float(float_layer, weights=quaver.PerTensor())
    assert single.weight_scale.shape == (1, 1)
    assert_bits(single(x), defined(single, x))
    chosen = quaver.choose_qparams(float_layer.weight.detach() / 2, quaver.PerChannel(0))  # clips
    clipped = QuantLinear.from_float(float_layer, weight_params=chosen)
    assert_bits(clipped.weight_q, quaver.quantize(float_layer.weight.detach(), chosen))
    assert_bits(clipped.weight_sum, clipped.weight_q.sum(1, True, dtype=torch.int32))
    assert_bits(clipped(x), defined(clipped, x))


def test_repr():
    assert repr(layer(relu=True, output=params(symmetric=True))) == (
        "QuantLinear(in_features=48, out_features=20, bias=True, symmetric=False, relu=True, "
        "input=asymmetric, output=symmetric)"
    )


@pytest.mark.parametrize("output", [None, params(10 * SEEN)], ids=["float", "codes"])
def test_compiled_and_exported(output):
    made = layer(output=output, relu=True).eval()
    x = normal(9, 48)
    expected = made(x)
    assert_bits(torch.compile(made, fullgraph=True)(x), expected)
    assert_bits(torch.export.export(made, (x,)).module()(x), expected)
    with torch.inference_mode():
        assert_bits(made(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_bits(made(x), expected)


# Refusals


def test_codes_for_a_dynamic_layer_are_refused():
    with pytest.raises(RuntimeError, match="int8_linear: x must be float32, float16 or bfloat16, got int8"):
        QuantLinear.from_float(linear())(torch.zeros(2, 48, dtype=torch.int8))


def test_an_input_that_requires_grad_is_refused():
    with pytest.raises(RuntimeError, match="quantize: x requires grad"):
        layer()(normal(2, 48).requires_grad_())


@pytest.mark.parametrize("name", ["input", "output"])
def test_parameters_that_do_not_fit_are_refused(name):
    wanted = f"QuantLinear: {name} must be"
    with pytest.raises(TypeError, match=f"{wanted} QuantizationParams or None, got Tensor"):
        QuantLinear(4, 4, **{name: torch.ones(1)})
    with pytest.raises(ValueError, match=rf"{wanted} per tensor, got scales of the shape \[200, 1\]"):
        QuantLinear(4, 4, **{name: quaver.choose_qparams(SEEN, quaver.PerToken())})
    with pytest.raises(ValueError, match=rf"{wanted} for int8 codes, got the range 0\.\.255"):
        QuantLinear(4, 4, **{name: quaver.choose_qparams(SEEN, symmetric=False, dtype=torch.uint8)})
    asymmetric = quaver.choose_qparams(linear().weight.detach(), quaver.PerChannel(0), symmetric=False)
    with pytest.raises(ValueError, match="parameters of a weight must be symmetric"):
        QuantLinear.from_float(linear(), weight_params=asymmetric)


@pytest.mark.parametrize("weights", [quaver.PerChannel(1), quaver.PerToken()], ids=str)
def test_weights_whose_scales_split_k_are_refused(weights):
    with pytest.raises(ValueError, match=r"QuantLinear: weights must be PerChannel\(0\) or PerTensor\(\), got Per"):
        QuantLinear.from_float(linear(), weights=weights)
