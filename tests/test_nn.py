"""QuantLinear: an int8 layer made from a float one, its numbers, its state and how it lives inside torch's modules."""

import copy
import io
import pickle

import pytest
import torch

from quaver import QuantLinear, reference
from tests.cases import DEVICES, FLOAT_DTYPES, assert_bits, normal

STATE = ("weight_q", "weight_scale", "weight_sum", "bias")

CONVERSIONS = {
    "half()": lambda module: module.half(),
    "bfloat16()": lambda module: module.bfloat16(),
    "double()": lambda module: module.double(),
    "to(dtype)": lambda module: module.to(torch.float16),
    "to(device, dtype)": lambda module: module.to("cpu", torch.bfloat16),
    "to(tensor)": lambda module: module.to(torch.zeros(1, dtype=torch.float16)),
}


def linear(in_features=48, out_features=20, bias=True, *, dtype=torch.float32, seed=0):
    """A torch.nn.Linear with weights of its own, far from any special value."""
    layer = torch.nn.Linear(in_features, out_features, bias=bias).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(normal(out_features, in_features, seed=seed) * 0.1)
        if bias:
            layer.bias.copy_(normal(out_features, seed=seed + 1))
    return layer


def state(layer):
    return {name: getattr(layer, name) for name in STATE}


def assert_same_state(actual, expected):
    for name, tensor in state(expected).items():
        if tensor is None:
            assert getattr(actual, name) is None
        else:
            assert_bits(getattr(actual, name), tensor)


def defined(layer, x):
    """The layer's output by the ops' definition."""
    return reference.int8_linear(x, layer.weight_q, layer.weight_scale, layer.bias, symmetric=layer.symmetric)


# From float


def test_from_float_by_hand():
    unit = 2.0**-6
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127 * unit, -0.5, 16.5 * unit], [0.0, 0.0, 0.0]]))
        layer.bias.copy_(torch.tensor([1.0, -2.0]))
    quantized = QuantLinear.from_float(layer)
    assert_bits(quantized.weight_q, torch.tensor([[127, -32, 16], [0, 0, 0]], dtype=torch.int8))  # 16.5: a tie, to even
    assert_bits(quantized.weight_scale, torch.tensor([[unit], [1.0]]))
    assert_bits(quantized.weight_sum, torch.tensor([[111], [0]], dtype=torch.int32))
    assert_bits(quantized.bias, torch.tensor([1.0, -2.0]))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_from_float_is_the_reference(dtype, bias):
    layer = linear(bias=bias, dtype=dtype)
    quantized = QuantLinear.from_float(layer)
    q, scale, _, row_sum = reference.dynamic_quantize(layer.weight.detach(), (20, 1), return_row_sum=True)
    assert_bits(quantized.weight_q, q)
    assert_bits(quantized.weight_scale, scale)
    assert_bits(quantized.weight_sum, row_sum)
    if bias:
        assert_bits(quantized.bias, layer.bias.detach().to(torch.float32))
    else:
        assert quantized.bias is None


def test_from_float_takes_a_weight_with_any_strides():
    layer = linear()
    strided = copy.deepcopy(layer)
    strided.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous().t())
    quantized = QuantLinear.from_float(strided)
    assert quantized.weight_q.is_contiguous()
    assert_same_state(quantized, QuantLinear.from_float(layer))


def test_from_float_shares_no_memory_and_changes_nothing():
    layer = linear()
    before = copy.deepcopy(layer.state_dict())
    QuantLinear.from_float(layer).bias.fill_(7.0)
    for name, tensor in layer.state_dict().items():
        assert_bits(tensor, before[name])


@pytest.mark.parametrize("training", [True, False])
def test_from_float_keeps_the_mode(training):
    assert QuantLinear.from_float(linear().train(training)).training is training


def test_from_float_refuses_float64():
    with pytest.raises(RuntimeError, match="x must be float32, float16 or bfloat16, got float64"):
        QuantLinear.from_float(linear().double())


# Forward


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_forward_is_the_reference(dtype, bias, symmetric, device):
    layer = QuantLinear.from_float(linear(bias=bias, dtype=dtype), symmetric=symmetric).to(device)
    x = normal(33, 48, dtype=dtype, seed=5).to(device)
    y = layer(x)
    assert y.dtype == dtype
    assert_bits(y, defined(layer, x))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", [(48,), (3, 48), (2, 3, 48), (2, 1, 3, 48), (0, 48), (2, 0, 48)])
def test_shapes(shape, symmetric):
    layer = QuantLinear.from_float(linear(), symmetric=symmetric)
    x = normal(*shape, seed=5)
    y = layer(x)
    assert y.shape == (*shape[:-1], 20)
    assert_bits(y, defined(layer, x))


@pytest.mark.parametrize("symmetric", [True, False])
def test_forward_is_near_the_float_layer(symmetric):
    """Each code is at most half a step from its number, which bounds how far the sum of products can move."""
    layer = linear()
    quantized = QuantLinear.from_float(layer, symmetric=symmetric)
    x = normal(33, 48, seed=5)
    _, x_step, _, _ = reference.dynamic_quantize(x, (33, 1), symmetric=symmetric)
    w_step = quantized.weight_scale.t()
    x_sum, w_sum = x.abs().sum(-1, keepdim=True), layer.weight.detach().abs().sum(-1)
    bound = x_sum * w_step / 2 + w_sum * x_step / 2 + 48 * x_step * w_step / 4
    error = (quantized(x) - layer(x).detach()).abs()
    assert (error <= bound * (1 + 1e-5)).all()
    assert error.max() > 0


def test_refuses_an_input_that_requires_grad():
    layer = QuantLinear.from_float(linear())
    x = normal(3, 48).requires_grad_()
    words = r"quaver::int8_linear: x requires grad.*call under torch\.no_grad\(\) or pass x\.detach\(\)"
    with pytest.raises(RuntimeError, match=words):
        layer(x)
    with torch.no_grad():
        expected = layer(x)
    assert_bits(layer(x.detach()), expected)


def test_refuses_another_number_of_features():
    with pytest.raises(RuntimeError, match=r"quaver::int8_linear: weight_q must have the shape \[N, 47\]"):
        QuantLinear.from_float(linear())(normal(3, 47))


# State


@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_holds_plain_tensors(bias):
    saved = QuantLinear.from_float(linear(bias=bias)).state_dict()
    assert list(saved) == [name for name in STATE if bias or name != "bias"]
    for tensor in saved.values():
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad
    assert [tensor.dtype for tensor in saved.values()][:3] == [torch.int8, torch.float32, torch.int32]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_round_trip(bias, assign):
    layer = QuantLinear.from_float(linear(bias=bias), symmetric=False)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = QuantLinear(48, 20, bias, symmetric=False)
    loaded.load_state_dict(torch.load(file, weights_only=True), assign=assign)
    assert_same_state(loaded, layer)
    x = normal(3, 48)
    assert_bits(loaded(x), layer(x))


def test_a_new_layer_computes_zero():
    assert_bits(QuantLinear(48, 20)(normal(3, 48)), torch.zeros(3, 20))


def test_it_has_no_parameters_to_train():
    assert list(QuantLinear.from_float(linear()).parameters()) == []


def test_extra_repr():
    assert repr(QuantLinear(48, 20)) == "QuantLinear(in_features=48, out_features=20, bias=True, symmetric=True)"
    assert repr(QuantLinear(48, 20, False, symmetric=False)) == (
        "QuantLinear(in_features=48, out_features=20, bias=False, symmetric=False)"
    )


# Conversions: of dtype never, of device always


@pytest.mark.parametrize("conversion", CONVERSIONS.values(), ids=CONVERSIONS.keys())
@pytest.mark.parametrize("bias", [True, False])
def test_conversions_of_dtype_leave_the_state_alone(conversion, bias):
    layer = QuantLinear.from_float(linear(bias=bias))
    converted = conversion(copy.deepcopy(layer))
    assert type(converted) is QuantLinear
    assert_same_state(converted, layer)


def test_half_of_a_model_around_it():
    """The float layers become float16, the int8 ones stay what they are, and the model runs on float16."""
    model = torch.nn.Sequential(QuantLinear.from_float(linear()), torch.nn.LayerNorm(20)).half()
    assert model[1].weight.dtype == torch.float16
    assert_same_state(model[0], QuantLinear.from_float(linear()))
    x = normal(3, 48, dtype=torch.float16)
    with torch.no_grad():
        assert model(x).dtype == torch.float16
    assert_bits(model[0](x), defined(model[0], x))


def test_meta_and_back():
    layer = QuantLinear.from_float(linear())
    empty = copy.deepcopy(layer).to("meta")
    assert empty.weight_scale.is_meta
    assert empty.weight_scale.dtype == torch.float32
    assert empty(torch.empty(3, 48, device="meta")).shape == (3, 20)
    empty.to_empty(device="cpu").load_state_dict(layer.state_dict())
    assert_same_state(empty, layer)


@pytest.mark.skipif("cuda" not in DEVICES, reason="no CUDA device")
def test_cuda_and_back():
    layer = QuantLinear.from_float(linear())
    moved = copy.deepcopy(layer).cuda()
    assert all(tensor.is_cuda for tensor in state(moved).values())
    assert_same_state(moved.cpu(), layer)


def test_share_memory():
    layer = QuantLinear.from_float(linear())
    shared = copy.deepcopy(layer).share_memory()
    assert all(tensor.is_shared() for tensor in state(shared).values())
    assert_same_state(shared, layer)


# Copies


@pytest.mark.parametrize("bias", [True, False])
def test_deepcopy(bias):
    layer = QuantLinear.from_float(linear(bias=bias), symmetric=False)
    copied = copy.deepcopy(layer)
    assert copied.symmetric is False
    assert_same_state(copied, layer)
    copied.weight_q.zero_()
    assert layer.weight_q.any()


@pytest.mark.parametrize("bias", [True, False])
def test_pickle(bias):
    layer = QuantLinear.from_float(linear(bias=bias), symmetric=False)
    loaded = pickle.loads(pickle.dumps(layer))
    assert repr(loaded) == repr(layer)
    assert_same_state(loaded, layer)
    x = normal(3, 48)
    assert_bits(loaded(x), layer(x))


def test_the_packed_weight_is_made_once_and_anew_when_the_weight_has_changed():
    layer = QuantLinear.from_float(linear())
    x = normal(3, 48)
    assert layer._packed is None
    layer(x)
    packed = layer._packed
    layer(x)
    assert layer._packed is packed
    for change in (
        lambda: layer.weight_q.neg_(),
        lambda: setattr(layer, "weight_q", layer.weight_q.flip(0)),
        lambda: layer.load_state_dict(QuantLinear.from_float(linear()).state_dict()),
        lambda: layer.double(),
    ):
        change()
        assert_bits(layer(x), defined(layer, x))
        assert layer._packed is not packed
        packed = layer._packed


def test_the_packed_weight_is_no_part_of_the_state():
    layer = QuantLinear.from_float(linear())
    layer(normal(3, 48))
    assert not [name for name in layer.state_dict() if "packed" in name]
    assert copy.deepcopy(layer)._packed is None
    with torch.inference_mode():
        fresh = QuantLinear.from_float(linear())
        assert_bits(fresh(normal(3, 48)), defined(fresh, normal(3, 48)))
        fresh.load_state_dict({**fresh.state_dict(), "weight_q": -fresh.weight_q})
        assert_bits(fresh(normal(3, 48)), defined(fresh, normal(3, 48)))


def test_a_compiled_layer_takes_the_packed_weight_that_is_there():
    layer = QuantLinear.from_float(linear())
    x = normal(3, 48)
    expected = defined(layer, x)
    layer(x)
    assert_bits(torch.compile(layer, fullgraph=True)(x), expected)


def test_an_exported_layer_takes_the_packed_weight_that_is_there():
    layer = QuantLinear.from_float(linear()).eval()
    x = normal(3, 48)
    layer(x)
    assert_bits(torch.export.export(layer, (x,)).module()(x), defined(layer, x))


def test_of_a_weight_on_another_device_nothing_is_packed():
    layer = QuantLinear.from_float(linear())
    layer(normal(3, 48))
    layer.weight_q = layer.weight_q.to("meta")
    assert layer._packed_weight() is None


def test_compiler_sees_one_op():
    """The layer traces as it is: no graph break, and shapes from the fakes."""
    layer = QuantLinear.from_float(linear(), symmetric=False).eval()
    x = normal(3, 48)
    exported = torch.export.export(layer, (x,))
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert targets == [torch.ops.quaver.int8_linear.default]
    assert_bits(exported.module()(x), defined(layer, x))
