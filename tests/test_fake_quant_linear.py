"""FakeQuantLinear: the int8 layer's bits forwards, the gradient of ARITHMETIC.md (9) backwards."""

import copy

import pytest
import torch

import quaver
from quaver import observers
from quaver.nn import FakeQuantLinear
from tests.cases import DEVICES, assert_bits, needed, normal
from tests.test_nn import linear

KINDS = {
    "symmetric": {"symmetric": True},
    "asymmetric": {"symmetric": False},
    "static symmetric": {"observer": lambda: observers.MovingAverage(symmetric=True)},
    "static asymmetric": {"observer": lambda: observers.MovingAverage(symmetric=False)},
}


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return {name: value() if callable(value) else value for name, value in KINDS[request.param].items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_the_result_is_the_int8_layers(kind, relu, dtype, device):
    layer = FakeQuantLinear.from_float(linear(dtype=dtype).to(device), relu=relu, **kind)
    for seed in range(3):
        layer(normal(30, 48, dtype=dtype, seed=seed).to(device) * (seed + 1))
    layer.eval()
    int8 = layer.to_int8()
    for shape in ((30, 48), (48,), (2, 3, 48)):
        x = 2 * normal(*shape, dtype=dtype, seed=8).to(device)
        with torch.no_grad():
            assert_bits(layer(x), int8(x))


def test_the_gradient_is_the_fake_quantized_layers(kind):
    layer = FakeQuantLinear.from_float(linear(), **kind)
    x = normal(30, 48, seed=5).requires_grad_()
    gradient = normal(30, 20, seed=6)
    layer(x).backward(gradient)

    other, other_x = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    other.zero_grad()
    given = layer.input or quaver.choose_qparams(x.detach(), quaver.PerToken(), symmetric=layer.symmetric)
    weight = quaver.fake_quantize(other.weight, quaver.choose_qparams(other.weight.detach(), quaver.PerChannel(0)))
    torch.nn.functional.linear(quaver.fake_quantize(other_x, given), weight, other.bias).backward(gradient)
    assert_bits(x.grad, other_x.grad)
    assert_bits(layer.weight.grad, other.weight.grad)
    assert_bits(layer.bias.grad, other.bias.grad)
    assert x.grad.abs().sum() > 0


def test_where_codes_are_clipped_and_behind_a_relu_there_is_no_gradient():
    layer = FakeQuantLinear.from_float(linear(2, 1), observer=observers.FixedRange(-1, 1), relu=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.bias.zero_()
    x = torch.tensor([[0.5, 0.0], [5.0, 0.0], [0.0, 0.5]], requires_grad=True)  # within, beyond, below 0 behind
    layer(x).sum().backward()
    assert x.grad.tolist() == [[1.0, -1.0], [0.0, -1.0], [0.0, 0.0]]


def test_the_observer_sees_training_alone():
    layer = FakeQuantLinear.from_float(linear(), observer=observers.MinMax())
    layer(normal(30, 48))
    scale = layer.input_scale.clone()
    layer.eval()(100 * normal(30, 48))
    assert_bits(layer.input_scale, scale)
    layer.train()(100 * normal(30, 48))
    assert layer.input_scale > scale
    assert set(layer.state_dict()) == {"weight", "bias", "input_scale", "input_zero_point"}


def test_from_float_trains_the_parameters_that_are_there():
    float_layer = linear()
    layer = FakeQuantLinear.from_float(float_layer)
    assert layer.weight is float_layer.weight
    assert layer.bias is float_layer.bias


def test_compiled():
    layer = FakeQuantLinear.from_float(linear(), symmetric=False, relu=True)
    x = normal(30, 48)
    expected = layer(x)
    compiled = torch.compile(layer, fullgraph=True)(x)
    assert_bits(compiled, expected)
    expected.sum().backward()
    gradient = layer.weight.grad.clone()
    layer.zero_grad()
    compiled.sum().backward()
    torch.testing.assert_close(layer.weight.grad, gradient)


def test_repr():
    assert repr(FakeQuantLinear(4, 2, symmetric=False, relu=True)) == (
        "FakeQuantLinear(in_features=4, out_features=2, bias=True, symmetric=False, relu=True)"
    )


def test_training_reaches_the_float_models_accuracy():
    """A small network on scikit-learn's digits: within half a point, and its int8 model gives the same bits."""
    datasets = needed("sklearn.datasets")
    images, labels = (torch.from_numpy(array) for array in datasets.load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]

    def trained(model):
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(300):
            batch = train[torch.randint(len(train), (128,), generator=torch.Generator().manual_seed(step))]
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.eval()

    @torch.no_grad()
    def accuracy(model):
        return (model(images[test]).argmax(1) == labels[test]).float().mean().item()

    def network(first, second):
        torch.manual_seed(1)
        return torch.nn.Sequential(first(64, 32), torch.nn.ReLU(), second(32, 10))

    plain = trained(network(torch.nn.Linear, torch.nn.Linear))

    def observed(*sizes):
        return FakeQuantLinear(*sizes, observer=observers.MovingAverage(symmetric=False))

    fake = trained(network(observed, observed))
    int8 = torch.nn.Sequential(fake[0].to_int8(), fake[1], fake[2].to_int8())
    with torch.no_grad():
        assert_bits(int8(images[test]), fake(images[test]))
    assert accuracy(plain) > 0.94
    assert accuracy(int8) >= accuracy(plain) - 0.005
