"""quantize_model: which layers it swaps, which it leaves alone, and what stays of the model around them."""

import copy

import pytest
import torch
from torch.nn import Linear

import quaver
from quaver import PerTensor, QuantConfig, QuantLinear, quantize_model, reference
from tests.cases import assert_bits, normal


class Block(torch.nn.Module):
    """Names with dots in them, a layer that is no Linear, and one without bias."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.ModuleDict(
            {"query": Linear(16, 16), "key": Linear(16, 16), "norm": torch.nn.LayerNorm(16)}
        )
        self.head = Linear(16, 4, bias=False)

    def forward(self, x):
        return self.head(self.encoder["norm"](self.encoder["query"](x) * self.encoder["key"](x)))


class Tied(torch.nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = Linear(8, 8)
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(x))


class OwnLinear(Linear):
    pass


def names_of_int8_layers(model):
    return [name for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, QuantLinear)]


# What it does


@pytest.mark.parametrize("symmetric", [True, False])
def test_every_linear_is_swapped_and_equals_the_reference(symmetric):
    model = Block()
    quantized = quantize_model(model, QuantConfig(symmetric=symmetric))
    assert names_of_int8_layers(quantized) == ["encoder.query", "encoder.key", "head"]

    x = normal(5, 16)

    def linear(layer, x):
        weight = layer.weight.detach()
        q, scale, _, _ = reference.dynamic_quantize(weight, (weight.shape[0], 1))
        bias = None if layer.bias is None else layer.bias.detach()
        return reference.int8_linear(x, q, scale, bias, symmetric=symmetric)

    with torch.no_grad():
        hidden = model.encoder["norm"](linear(model.encoder["query"], x) * linear(model.encoder["key"], x))
        assert_bits(quantized(x), linear(model.head, hidden))


def test_symmetric_reaches_the_layers():
    assert quantize_model(Block()).head.symmetric is True
    assert quantize_model(Block(), QuantConfig(symmetric=False)).head.symmetric is False


def test_the_model_itself_is_not_touched():
    model = Block()
    before = copy.deepcopy(model.state_dict())
    quantized = quantize_model(model)
    assert quantized is not model
    assert names_of_int8_layers(model) == []
    assert quantized.encoder["norm"].weight.data_ptr() != model.encoder["norm"].weight.data_ptr()
    for name, tensor in model.state_dict().items():
        assert_bits(tensor, before[name])


def test_inplace():
    model = Block()
    expected = quantize_model(model)
    norm = model.encoder["norm"]
    assert quantize_model(model, inplace=True) is model
    assert model.encoder["norm"] is norm
    assert names_of_int8_layers(model) == names_of_int8_layers(expected)
    x = normal(5, 16)
    with torch.no_grad():
        assert_bits(model(x), expected(x))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_stays(training):
    assert {module.training for module in quantize_model(Block().train(training)).modules()} == {training}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_a_smaller_float_type(dtype):
    quantized = quantize_model(Block().to(dtype))
    with torch.no_grad():
        assert quantized(normal(5, 16, dtype=dtype)).dtype == dtype


def test_a_saved_model_is_loaded_into_a_new_one():
    trained, fresh = Block(), Block()
    quantized, loaded = quantize_model(trained), quantize_model(fresh)
    loaded.load_state_dict(quantized.state_dict())
    x = normal(5, 16)
    with torch.no_grad():
        assert_bits(loaded(x), quantized(x))


# Which layers


def kept(*patterns):
    """A config that leaves these layers as they are."""
    return QuantConfig(overrides=dict.fromkeys(patterns))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"head": None}, ["encoder.query", "encoder.key"]),
        ({"*.k?y": None, "h*": None}, ["encoder.query"]),
        ({"encoder.*": QuantConfig(), "*": None}, ["encoder.query", "encoder.key"]),
        ({"*.[qx]uery": None, "encoder.*": QuantConfig(), "head": None}, ["encoder.key"]),
        ({"*": None, "head": QuantConfig()}, []),
    ],
)
def test_the_first_override_that_matches_decides(overrides, expected):
    assert names_of_int8_layers(quantize_model(Block(), QuantConfig(overrides=overrides))) == expected


def test_an_override_says_how():
    config = QuantConfig(symmetric=False, overrides={"head": QuantConfig(weights=PerTensor())})
    quantized = quantize_model(Block(), config)
    assert quantized.encoder["query"].symmetric is False
    assert quantized.encoder["query"].weight_scale.shape == (16, 1)
    assert quantized.head.symmetric is True
    assert quantized.head.weight_scale.shape == (1, 1)


@pytest.mark.parametrize("pattern", ["encoder.value", "Head", "encoder.norm", "encoder", ""])
def test_a_pattern_that_matches_no_layer_is_refused(pattern):
    """A typing error must not silently quantize something else: not in case, nor by naming what is no Linear."""
    words = rf"the pattern '{pattern}' of overrides matches none of \['encoder.key', 'encoder.query', 'head'\]"
    with pytest.raises(ValueError, match=words):
        quantize_model(Block(), kept(pattern))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": 0}, "weights must be PerChannel or PerTensor, got int"),
        ({"activations": quaver.PerChannel(0)}, "activations must be PerToken or PerTensor, got PerChannel"),
        ({"symmetric": 1}, "symmetric must be bool, got int"),
        ({"embeddings": None}, "embeddings must be bool, got NoneType"),
        ({"observer": "minmax"}, "observer must be callable, got str"),
        ({"overrides": ["head"]}, "overrides must be Mapping, got list"),
        ({"overrides": {"head": False}}, r"overrides\['head'\] must be QuantConfig or NoneType, got bool"),
        ({"overrides": {1: None}}, "a pattern of overrides must be str, got int"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(TypeError, match=f"^QuantConfig: {words}$"):
        QuantConfig(**options)


def test_weights_along_k_are_refused():
    with pytest.raises(ValueError, match=r"weights must be PerChannel\(0\) or PerTensor\(\), got PerChannel\(axis=1\)"):
        QuantConfig(weights=quaver.PerChannel(1))


def test_what_is_no_config_is_refused():
    with pytest.raises(TypeError, match="quantize_model: config must be a QuantConfig, got bool"):
        quantize_model(Block(), True)


def test_a_refusal_leaves_the_model_alone():
    model = Block()
    with pytest.raises(ValueError, match="matches none"):
        quantize_model(model, kept("nothing"), inplace=True)
    assert names_of_int8_layers(model) == []


def test_a_model_without_linear_layers():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU())
    assert names_of_int8_layers(quantize_model(model)) == []


# A layer under several names


def test_a_shared_layer_stays_shared():
    quantized = quantize_model(Tied())
    assert isinstance(quantized.first, QuantLinear)
    assert quantized.first is quantized.second
    with torch.no_grad():
        assert quantized(normal(3, 8)).shape == (3, 8)


def test_one_name_includes_a_shared_layer():
    quantized = quantize_model(Tied(), QuantConfig(overrides={"second": QuantConfig(), "*": None}))
    assert isinstance(quantized.first, QuantLinear)
    assert quantized.first is quantized.second


def test_one_name_excludes_a_shared_layer():
    quantized = quantize_model(Tied(), kept("second"))
    assert type(quantized.first) is Linear
    assert quantized.first is quantized.second


def test_a_shared_block():
    block = torch.nn.Sequential(Linear(8, 8))
    model = torch.nn.ModuleDict({"a": block, "b": block})
    quantized = quantize_model(model)
    assert isinstance(quantized["a"][0], QuantLinear)
    assert quantized["a"] is quantized["b"]
    assert names_of_int8_layers(quantize_model(model, kept("b.0"))) == []


# What is a Linear


def test_subclasses_are_left_alone():
    model = torch.nn.Sequential(OwnLinear(8, 8), Linear(8, 8))
    assert names_of_int8_layers(quantize_model(model)) == ["1"]


def test_attention_is_left_alone():
    """torch.nn.MultiheadAttention reads its out_proj's weight itself; the projection is a subclass, for that reason."""
    attention = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    quantized = quantize_model(attention)
    assert names_of_int8_layers(quantized) == []
    x = normal(2, 3, 16)
    with torch.no_grad():
        assert_bits(quantized(x, x, x)[0], attention(x, x, x)[0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")  # the float model's
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_torch_encoder_runs_its_int8_layers(stacked, padding):
    """In eval mode torch.nn.TransformerEncoder would hand float weights to a fused kernel, past the layers' forward."""
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    model = torch.nn.TransformerEncoder(layer, 2).eval() if stacked else layer
    quantized = quantize_model(model)
    calls = []
    for module in quantized.modules():
        if isinstance(module, QuantLinear):
            forward = module.forward
            module.forward = lambda x, forward=forward: calls.append(x.shape) or forward(x)
    x = normal(2, 5, 16)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if padding else None
    with torch.no_grad():
        actual, expected = (each(x, src_key_padding_mask=mask) for each in (quantized, model))
    assert calls == [(2, 5, 16), (2, 5, 32)] * (2 if stacked else 1)
    real = slice(None) if mask is None else ~mask
    assert torch.nn.functional.cosine_similarity(actual[real], expected[real], dim=-1).min() > 0.999


def test_torch_encoder_without_int8_layers_keeps_its_fused_path():
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    assert quantize_model(layer, kept("*")).activation_relu_or_gelu == layer.activation_relu_or_gelu


def test_a_model_that_is_a_linear():
    model = Linear(8, 4)
    quantized = quantize_model(model, QuantConfig(symmetric=False))
    assert repr(quantized) == "QuantLinear(in_features=8, out_features=4, bias=True, symmetric=False)"
    assert type(model) is Linear


def test_a_model_that_is_a_linear_cannot_be_swapped_inplace():
    with pytest.raises(ValueError, match=r"a layer itself cannot be swapped inplace"):
        quantize_model(Linear(8, 4), inplace=True)
