"""quantize_model with static layers: what calibration finds, what moves into the layer before, and what goes wrong."""

import copy
from functools import partial

import pytest
import torch
from torch.nn import Linear, ReLU

import quaver
from quaver import PerTensor, QuantConfig, QuantLinear, observers, quantize_model
from quaver.nn import QuantEmbedding
from tests.cases import assert_bits, normal

STATIC = QuantConfig(activations=PerTensor(), symmetric=False)
BATCHES = [normal(20, 16, seed=seed) * (seed + 1) for seed in range(3)]


class Mlp(torch.nn.Module):
    """Two branches from one activation, a ReLU module each, a sum, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.stem_relu = Linear(16, 32), ReLU()
        self.left, self.right, self.right_relu = Linear(32, 8), Linear(32, 8), ReLU()
        self.head = Linear(8, 4)

    def forward(self, x):
        x = self.stem_relu(self.stem(x))
        return self.head(self.left(x) + self.right_relu(self.right(x)))


class Keywords(torch.nn.Module):
    """One that is called by name, with a branch that no symbolic trace can follow."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.second = Linear(16, 16), ReLU(), Linear(16, 4)

    def forward(self, *, data, scale=1.0):
        hidden = self.relu(self.first(input=data))
        return self.second(hidden * scale if float(hidden.sum()) > 0 else hidden)


def int8(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}


def state_of(model):
    return copy.deepcopy(model.state_dict()), [module.training for module in model.modules()], repr(model)


def assert_untouched(model, before):
    state, training, words = before
    assert repr(model) == words
    assert [module.training for module in model.modules()] == training
    for name, tensor in model.state_dict().items():
        assert_bits(tensor, state[name])
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks


def seen_by(model, name, batches=BATCHES):
    """All that a layer is called with."""
    inputs = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    hook.remove()
    return torch.cat(inputs)


def without_fusing(model):
    """The model with each layer's static int8 module, and float tensors in between."""
    quantized = copy.deepcopy(model)
    for name, layer in model.named_modules():
        if type(layer) is Linear:
            params = quaver.choose_qparams(seen_by(model, name), symmetric=False)
            setattr(quantized, name, QuantLinear.from_float(layer, input=params))
    return quantized


# What it does


def test_scales_are_those_of_what_the_layers_saw():
    model = Mlp().eval()
    quantized = quantize_model(model, STATIC, BATCHES)
    for name, layer in int8(quantized).items():
        expected = quaver.choose_qparams(seen_by(model, name), symmetric=False)
        assert_bits(layer.input.scale.flatten(), expected.scale.flatten())
        assert_bits(layer.input.zero_point.flatten(), expected.zero_point.flatten())


def test_codes_flow_where_static_layers_alone_take_a_result():
    quantized = quantize_model(Mlp(), STATIC, BATCHES)
    assert {name: (layer.relu, layer.output is not None) for name, layer in int8(quantized).items()} == {
        "stem": (True, True),  # both branches take its codes
        "left": (False, False),  # a sum takes it
        "right": (True, False),
        "head": (False, False),
    }
    assert type(quantized.stem_relu) is type(quantized.right_relu) is torch.nn.Identity
    assert quantized.stem(BATCHES[0]).dtype == torch.int8


def test_fusing_changes_no_bit():
    model = Mlp().eval()
    quantized = quantize_model(model, STATIC, BATCHES)
    x = normal(50, 16, seed=9)
    assert_bits(quantized(x), without_fusing(model)(x))


def test_dynamic_layers_take_over_a_relu_too():
    quantized = quantize_model(Mlp())
    assert [layer.relu for layer in int8(quantized).values()] == [True, False, True, False]
    unfused = copy.deepcopy(quantized)
    for name in ("stem", "right"):
        setattr(unfused, name, QuantLinear.from_float(getattr(Mlp(), name)))
        setattr(unfused, f"{name}_relu", ReLU())
    x = normal(50, 16, seed=9)
    assert_bits(quantized(x), unfused(x))


def test_what_alone_takes_a_result_in_eval_mode_counts():
    """In training a second head reads what the first one takes."""

    class TwoHeads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.relu, self.head, self.second = Linear(16, 16), ReLU(), Linear(16, 4), Linear(16, 4)

        def forward(self, x):
            hidden = self.stem(x)
            return (
                (self.head(self.relu(hidden)), self.second(hidden)) if self.training else self.head(self.relu(hidden))
            )

    model = TwoHeads().train()
    quantized = quantize_model(model, QuantConfig(overrides={"second": None}))
    assert quantized.stem.relu
    assert model.training


def test_a_relu_that_two_layers_share_stays():
    relu = ReLU()
    model = torch.nn.Sequential(Linear(16, 16), relu, Linear(16, 16), relu)
    quantized = quantize_model(model, STATIC, BATCHES)
    assert [type(module) for module in quantized] == [QuantLinear, ReLU, QuantLinear, ReLU]
    assert not any(layer.relu or layer.output for layer in int8(quantized).values())


def test_between_layers_that_quantize_differently_floats_flow():
    config = QuantConfig(
        activations=PerTensor(), overrides={"right": QuantConfig(activations=PerTensor(), symmetric=False)}
    )
    assert quantize_model(Mlp(), config, BATCHES).stem.output is None
    config = QuantConfig(activations=PerTensor(), overrides={"right": None})
    assert quantize_model(Mlp(), config, BATCHES).stem.output is None


def test_a_model_that_cannot_be_traced_is_converted_layer_by_layer():
    batches = [{"data": batch, "scale": 2.0} for batch in BATCHES]
    quantized = quantize_model(Keywords(), STATIC, batches)
    assert {name: layer.relu for name, layer in int8(quantized).items()} == {"first": False, "second": False}
    quantized(**batches[0])


def test_in_a_model_that_cannot_be_traced_sequentials_are_fused():
    class Around(Keywords):
        def __init__(self):
            super().__init__()
            self.second = torch.nn.Sequential(Linear(16, 16), ReLU(), Linear(16, 4))

    quantized = quantize_model(Around(), STATIC, [{"data": batch} for batch in BATCHES])
    assert {name: (layer.relu, layer.output is not None) for name, layer in int8(quantized).items()} == {
        "first": (False, False),
        "second.0": (True, True),
        "second.2": (False, False),
    }


def test_batches_are_tensors_tuples_or_dicts():
    model = torch.nn.Sequential(Linear(16, 4))
    from_tensors = quantize_model(model, STATIC, BATCHES)
    from_tuples = quantize_model(model, STATIC, iter([(batch,) for batch in BATCHES]))
    from_dicts = quantize_model(model, STATIC, [{"input": batch} for batch in BATCHES])
    for other in (from_tuples, from_dicts):
        assert_bits(other[0].input_scale, from_tensors[0].input_scale)


def test_the_observer_decides():
    fixed = QuantConfig(activations=PerTensor(), observer=partial(observers.FixedRange, -2.0, 2.54))
    layer = quantize_model(torch.nn.Sequential(Linear(16, 4)), fixed, BATCHES)[0]
    assert_bits(layer.input_scale.flatten(), torch.tensor([2.54]) / torch.tensor([127.0]))


def test_one_model_calibrated_twice():
    """The first pass leaves nothing behind that the second would see."""
    model = Mlp()
    first, second = quantize_model(model, STATIC, BATCHES[:1]), quantize_model(model, STATIC, BATCHES[:1])
    other = quantize_model(model, STATIC, BATCHES)
    assert_bits(second.stem.input_scale, first.stem.input_scale)
    assert (other.stem.input_scale != first.stem.input_scale).all()


def test_an_int8_model_stays_what_it_is():
    quantized = quantize_model(Mlp(), STATIC, BATCHES)
    again = quantize_model(quantized)
    assert repr(again) == repr(quantized)


def test_a_module_that_is_called_twice_has_one_scale_for_both_and_gives_floats():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.relu = Linear(16, 16), ReLU()

        def forward(self, x):
            return self.relu(self.layer(10 * self.relu(self.layer(x))))

    model = Twice()
    quantized = quantize_model(model, STATIC, BATCHES)
    expected = quaver.choose_qparams(seen_by(model, "layer"), symmetric=False)
    assert_bits(quantized.layer.input.scale.flatten(), expected.scale.flatten())
    assert quantized.layer.output is None
    assert not quantized.layer.relu


def test_tied_weights():
    """A table and a head of one weight: the head's copy is int8, the table stays; or both are."""

    class Language(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(11, 16), Linear(16, 11, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            return self.head(self.table(tokens))

    model = Language()
    quantized = quantize_model(model)
    assert_bits(quantized.table.weight, model.table.weight)
    both = quantize_model(model, QuantConfig(embeddings=True))
    assert isinstance(both.table, QuantEmbedding)
    assert_bits(both.table.weight_q, both.head.weight_q)
    assert model.head.weight is model.table.weight
    assert both(torch.tensor([3, 4])).shape == (2, 11)


def test_normalization_does_not_learn_from_calibration():
    model = torch.nn.Sequential(Linear(16, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), Linear(8, 4)).train()
    before = state_of(model)
    quantize_model(model, STATIC, BATCHES)
    assert_untouched(model, before)


def test_inplace():
    model, expected = Mlp(), quantize_model(Mlp(), STATIC, BATCHES)
    head = model.head
    assert quantize_model(model, STATIC, BATCHES, inplace=True) is model
    assert repr(model) == repr(expected)
    assert type(head) is Linear
    assert_bits(model(BATCHES[0]), expected(BATCHES[0]))


# What goes wrong leaves the model as it was


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("config", "batches", "words"),
    [
        (STATIC, None, "static layers need calibration, such as 'stem'"),
        (STATIC, [], "calibration yielded no batch"),
        (QuantConfig(), BATCHES, "calibration is for static layers, and the config has none"),
        (STATIC, [normal(3, 15)], "shapes cannot be multiplied"),
        (STATIC, [normal(3, 16, dtype=torch.float16)], "layer 'stem': |must have the same dtype"),
        (STATIC, [BATCHES[0], None], "'NoneType'|NoneType"),
    ],
)
def test_calibration_that_fails(config, batches, words, inplace):
    model = Mlp()
    before = state_of(model)
    with pytest.raises((ValueError, RuntimeError, TypeError, AttributeError), match=words):
        quantize_model(model, config, batches, inplace=inplace)
    assert_untouched(model, before)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_layer_that_calibration_does_not_reach_is_named(inplace):
    model = Mlp()
    model.extra = Linear(4, 4)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="quantize_model: layer 'extra': "):
        quantize_model(model, STATIC, BATCHES, inplace=inplace)
    assert_untouched(model, before)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_layer_that_cannot_be_converted_is_named(inplace):
    model = torch.nn.Sequential(Linear(16, 8), Linear(8, 4).double())
    before = state_of(model)
    with pytest.raises(RuntimeError, match=r"quantize_model: layer '1': .*x must be float32.*, got float64"):
        quantize_model(model, inplace=inplace)
    assert_untouched(model, before)


def test_a_model_on_another_device_than_its_batches():
    with pytest.raises(RuntimeError, match="meta"):
        quantize_model(Mlp().to("meta"), STATIC, BATCHES)


def test_tables_that_change_as_they_are_read_are_named():
    model = torch.nn.Sequential(torch.nn.Embedding(3, 4, max_norm=1.0))
    with pytest.raises(ValueError, match="quantize_model: layer '0': QuantEmbedding: max_norm"):
        quantize_model(model, QuantConfig(embeddings=True))


# Convolutions


class Images(torch.nn.Module):
    """Convolutions with a normalization, a ReLU or both behind them, a sum around some, and a linear head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.relu = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), ReLU()
        self.depthwise, self.depthwise_relu = torch.nn.Conv2d(8, 8, 3, groups=8), ReLU()
        self.point, self.point_norm = torch.nn.Conv2d(8, 8, 1, bias=False), torch.nn.BatchNorm2d(8)
        self.head = Linear(8, 4)
        with torch.no_grad():
            for norm in (self.norm, self.point_norm):
                for tensor, spread in ((norm.weight, 0.5), (norm.bias, 1), (norm.running_mean, 1)):
                    tensor.copy_(1 + spread * torch.rand(8))
                norm.running_var.copy_(0.5 + torch.rand(8))

    def forward(self, x):
        x = self.depthwise_relu(self.depthwise(self.relu(self.norm(self.stem(x)))))
        return self.head((x + self.point_norm(self.point(x))).mean((2, 3)))


IMAGES = [normal(5, 3, 12, 10, seed=seed) for seed in range(3)]


def test_convolutions_take_over_normalizations_and_relus():
    quantized = quantize_model(Images(), STATIC, IMAGES)
    kinds = dict(quantized.named_children())
    assert [type(module).__name__ for module in kinds.values()] == [
        *("QuantConv2d", "Identity", "Identity", "QuantConv2d", "Identity", "QuantConv2d", "Identity", "QuantLinear"),
    ]
    assert {name: (kinds[name].relu, kinds[name].output is not None) for name in ("stem", "depthwise", "point")} == {
        "stem": (True, True),
        "depthwise": (True, False),  # a sum takes it too
        "point": (False, False),
    }


@torch.no_grad()
def test_folding_is_what_the_normalization_does():
    model = Images().eval()
    quantized = quantize_model(model)
    norm, point = model.point_norm, quantized.point
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = model.point.weight * factor[:, None, None, None]
    expected = quaver.choose_qparams(weight, quaver.PerChannel(0))
    torch.testing.assert_close(point.weight_scale, expected.scale)
    torch.testing.assert_close(point.bias, norm.bias - norm.running_mean * factor)
    x = IMAGES[0]
    assert torch.nn.functional.cosine_similarity(quantized(x), model(x), dim=1).min() > 0.999
    static = quantize_model(model, STATIC, IMAGES)
    assert torch.nn.functional.cosine_similarity(static(x), model(x), dim=1).min() > 0.998


def test_a_normalization_without_statistics_stays():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, track_running_stats=False))
    assert type(quantize_model(model)[1]) is torch.nn.BatchNorm2d


@torch.no_grad()
def test_comparisons_reach_behind_what_moved():
    model = Images().eval()
    comparison = quaver.compare(model, quantize_model(model, STATIC, IMAGES), IMAGES)
    assert [row["name"] for row in comparison.rows] == ["stem", "depthwise", "point", "head", "(output)"]
    assert min(row["sqnr_db"] for row in comparison.rows) > 20
    alone = quaver.sensitivity(model, STATIC, IMAGES)
    assert min(row["sqnr_db"] for row in alone.rows) > 20
