"""QuantConv2d and FakeQuantConv2d: the op with a module's state around it, and what trains for it."""

import copy
import pickle
from itertools import product

import pytest
import torch

import quaver
from quaver import observers, reference
from quaver.nn import FakeQuantConv2d, QuantConv2d
from tests.cases import DEVICES, FLOAT_DTYPES, assert_bits, normal
from tests.test_nn import CONVERSIONS

GEOMETRIES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1": {"kernel_size": 1},
    "strided": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
    "grouped": {"kernel_size": 3, "groups": 2},
    "depthwise": {"kernel_size": 3, "groups": 6, "padding": 1},
    "same": {"kernel_size": (3, 5), "padding": "same"},
}


def conv(channels=8, *, bias=True, dtype=torch.float32, seed=0, **geometry):
    channels = 6 if geometry.get("groups") == 6 else channels
    layer = torch.nn.Conv2d(6, channels, bias=bias, **(geometry or GEOMETRIES["3x3"])).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(normal(*layer.weight.shape, seed=seed) * 0.2)
        if bias:
            layer.bias.copy_(normal(channels, seed=seed + 1))
    return layer


SEEN = normal(4, 6, 11, 9, seed=5)


def params(x=SEEN, symmetric=False):
    return quaver.choose_qparams(x, symmetric=symmetric)


def defined(layer, x):
    """The layer's output by the ops' definitions."""
    images = x.unsqueeze(0) if x.dim() == 3 else x
    given = layer.input
    if given is None:
        q, scale, zero_point, _ = reference.dynamic_quantize(images, (1, 1, 1, 1), symmetric=layer.symmetric)
    else:
        scale, zero_point = given.scale, given.zero_point
        limits = {"q_min": given.q_min, "q_max": given.q_max}
        q = images if images.dtype == torch.int8 else reference.quantize(images, scale, zero_point, **limits)
    out, options = layer.output, {}
    if out is not None:
        options = {"out_zero_point": out.zero_point, "q_min": out.q_min, "q_max": out.q_max}
    float_dtype = layer.dtype if x.dtype == torch.int8 else x.dtype
    y = reference.int8_conv2d(
        q,
        layer.weight_q,
        scale,
        layer.weight_scale,
        None if out is None else out.scale,
        x_zero_point=zero_point,
        bias=layer.bias,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        relu=layer.relu,
        dtype=float_dtype if out is None else torch.int8,
        **options,
    )
    return y.squeeze(0) if x.dim() == 3 else y


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_every_kind_is_the_reference(geometry, dtype, device):
    layer = conv(dtype=dtype, **geometry)
    for given, output, relu in product(
        (None, params(), params(symmetric=True)), (None, params(5 * SEEN)), (False, True)
    ):
        made = QuantConv2d.from_float(layer, input=given, output=output, relu=relu, symmetric=False).to(device)
        for x in (normal(2, 6, 9, 10, dtype=dtype, seed=6), normal(6, 9, 10, dtype=dtype, seed=6)):
            for view in (x, x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x):
                y = made(view.to(device))
                assert y.shape == layer(x).shape
                assert_bits(y, defined(made, view.to(device)))


def test_weights_and_bias_are_the_float_layers():
    layer = conv()
    made = QuantConv2d.from_float(layer)
    q, scale, _, _ = reference.dynamic_quantize(layer.weight.detach(), (8, 1, 1, 1))
    assert_bits(made.weight_q, q)
    assert_bits(made.weight_scale, scale)
    assert_bits(made.bias, layer.bias.detach())
    assert made.weight_q.is_contiguous(memory_format=torch.channels_last)
    single = QuantConv2d.from_float(layer, weights=quaver.PerTensor())
    assert single.weight_scale.shape == (1, 1, 1, 1)
    assert_bits(single(SEEN), defined(single, SEEN))


def test_codes_flow_from_layer_to_layer():
    first, second = conv(), conv(seed=3)
    second = torch.nn.Conv2d(8, 4, 3, groups=2)
    between = params(first(SEEN).relu().detach())
    start = QuantConv2d.from_float(first, input=params(), relu=True, output=between)
    end = QuantConv2d.from_float(second, input=between)
    alone = QuantConv2d.from_float(first, input=params())
    assert start(SEEN).dtype == torch.int8
    assert_bits(end(start(SEEN)), end(alone(SEEN).relu()))


def test_state_and_copies():
    made = QuantConv2d.from_float(conv(), input=params(), output=params(5 * SEEN), relu=True)
    assert list(made.state_dict()) == [
        *("weight_q", "weight_scale", "bias"),
        *("input_scale", "input_zero_point", "output_scale", "output_zero_point"),
    ]
    expected = made(SEEN)
    fresh = QuantConv2d(6, 8, 3, padding=1, input=params(9 * SEEN), output=params(2 * SEEN), relu=True)
    fresh.load_state_dict(made.state_dict())
    for copied in (fresh, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(copied) == repr(made)
        assert_bits(copied(SEEN), expected)
    for conversion in CONVERSIONS.values():
        assert_bits(conversion(copy.deepcopy(made))(SEEN), expected)


def test_the_packed_weight_follows_the_weight():
    made = QuantConv2d.from_float(conv())
    made(SEEN)
    packed = made._packed
    made(SEEN)
    assert made._packed is packed
    made.weight_q.neg_()
    assert_bits(made(SEEN), defined(made, SEEN))
    grouped = QuantConv2d.from_float(conv(**GEOMETRIES["grouped"]))
    grouped(SEEN)
    assert grouped._packed is None


def test_compiled_and_exported():
    made = QuantConv2d.from_float(conv(), input=params(), relu=True).eval()
    expected = made(SEEN)
    assert_bits(torch.compile(made, fullgraph=True)(SEEN), expected)
    assert_bits(torch.export.export(made, (SEEN,)).module()(SEEN), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert_bits(made(SEEN), expected)


def test_repr():
    made = QuantConv2d.from_float(conv(bias=False, **GEOMETRIES["grouped"]), output=params())
    assert repr(made) == (
        "QuantConv2d(6, 8, kernel_size=(3, 3), stride=(1, 1), groups=2, bias=False, symmetric=True, output=asymmetric)"
    )


def test_refusals():
    with pytest.raises(ValueError, match="QuantConv2d: padding_mode must be 'zeros', got 'reflect'"):
        QuantConv2d.from_float(torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match=r"padding='same' must be the same on both sides, got kernel_size=\(2, 3\)"):
        QuantConv2d.from_float(torch.nn.Conv2d(3, 4, (2, 3), padding="same"))
    with pytest.raises(ValueError, match=r"QuantConv2d: input must be per tensor"):
        QuantConv2d(3, 4, 3, input=quaver.choose_qparams(SEEN, quaver.PerChannel(1)))
    with pytest.raises(RuntimeError, match="requires grad"):
        QuantConv2d.from_float(conv())(SEEN.clone().requires_grad_())


# Training


KINDS = {
    "symmetric": lambda: {"symmetric": True},
    "asymmetric": lambda: {"symmetric": False},
    "static": lambda: {"observer": observers.MovingAverage(symmetric=False)},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_training_has_the_int8_layers_bits_and_the_fake_layers_gradient(geometry, kind):
    layer = FakeQuantConv2d.from_float(conv(**geometry), relu=True, **kind())
    layer(SEEN * 2)
    layer.eval()
    x = normal(2, 6, 9, 10, seed=6).requires_grad_()
    y = layer(x)
    with torch.no_grad():
        assert_bits(y.detach(), layer.to_int8()(x))

    gradient = normal(*y.shape, seed=7)
    y.backward(gradient)
    other, other_x = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    other.zero_grad()
    given = layer.input or quaver.choose_qparams(x.detach(), symmetric=layer.symmetric)
    weight = quaver.fake_quantize(other.weight, quaver.choose_qparams(other.weight.detach(), quaver.PerChannel(0)))
    around = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
    floats = torch.nn.functional.conv2d(quaver.fake_quantize(other_x, given), weight, other.bias, **around)
    floats.backward(torch.where(y > 0, gradient, 0))
    torch.testing.assert_close(x.grad, other_x.grad)
    torch.testing.assert_close(layer.weight.grad, other.weight.grad)
    torch.testing.assert_close(layer.bias.grad, other.bias.grad)
