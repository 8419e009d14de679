"""The recipes: what each promises of the float model, and what it does to the error of int8."""

import copy

import pytest
import torch

import quaver
from quaver import PerTensor, QuantConfig
from quaver.recipes import clip_weights, correct_bias, equalize, fall_back, keep_outliers, smooth_quant
from quaver.recipes.equalization import fold_norms
from quaver.recipes.outliers import OutlierLinear
from tests.cases import assert_bits, normal

STATIC = QuantConfig(activations=PerTensor(), symmetric=False)


def rms(model, other, *batches):
    """How far two models' results are from each other."""
    with torch.no_grad():
        return torch.cat([(model(x) - other(x)).flatten() for x in batches]).square().mean().sqrt().item()


def unchanged(model):
    """The model, and a function that asks whether it is what it was."""
    before = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]

    def check():
        assert [module.training for module in model.modules()] == before[1]
        for name, tensor in model.state_dict().items():
            assert_bits(tensor, before[0][name])

    return check


class Block(torch.nn.Module):
    """A norm before two layers, one of which makes what a third takes through a product; and a norm that is shared."""

    def __init__(self, norm=torch.nn.LayerNorm):
        super().__init__()
        torch.manual_seed(0)
        self.norm = norm(32)
        self.gate, self.up, self.down = torch.nn.Linear(32, 48), torch.nn.Linear(32, 48), torch.nn.Linear(48, 32)
        self.last_norm, self.head = norm(32), torch.nn.Linear(32, 8)
        with torch.no_grad():
            self.norm.weight[5], self.norm.weight[9] = 60, 25  # channels of large numbers
            self.up.weight[3] *= 40

    def forward(self, x):
        h = self.norm(x)
        x = x + self.down(torch.sigmoid(self.gate(h)) * self.up(h))
        return self.head(self.last_norm(x)) + x[..., :8]


PAIRS = {"norm": ["gate", "up"], "up": ["down"], "last_norm": ["head"]}


# SmoothQuant


@pytest.mark.parametrize("norm", [torch.nn.LayerNorm, torch.nn.RMSNorm])
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["traced", "named"])
def test_smooth_quant_leaves_the_float_model_as_it_is(norm, pairs):
    model, x = Block(norm), normal(3, 20, 32)
    check = unchanged(model)
    smooth = smooth_quant(model, [x], pairs=pairs)
    check()
    assert rms(smooth, model, x, normal(50, 32, seed=1)) < 1e-4
    assert not torch.equal(smooth.norm.weight, model.norm.weight)
    assert torch.equal(smooth.up.bias, model.up.bias) == (pairs is None)  # a trace shows no way through a product


@pytest.mark.parametrize("config", [QuantConfig(), STATIC], ids=["dynamic", "static"])
def test_smooth_quant_makes_int8_better(config):
    model, calibration, x = Block(), [normal(200, 32)], normal(100, 32, seed=1)

    def error(float_model):
        given = calibration if config.static else None
        return rms(quaver.quantize_model(float_model, config, given), model, x)

    plain = error(model)
    assert error(smooth_quant(model, calibration, pairs=PAIRS)) < plain / 1.5
    searched = smooth_quant(model, calibration, pairs=PAIRS, alpha="search", config=config)
    assert error(searched) < plain / 1.5
    assert rms(searched, model, x) < 1e-4


def test_smooth_quant_by_hand():
    """s = sqrt(4 / 1) for channel 0, sqrt(1 / 4) for channel 1; a channel that is always 0 stays."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(torch.tensor([4.0, 1.0, 0.0])))
        model[1].weight.copy_(torch.tensor([[1.0, 4.0, 7.0], [0.5, -2.0, 0.0]]))
    smooth = smooth_quant(model, [torch.tensor([[1.0, -1.0, 1.0]])])
    assert_bits(smooth[0].weight.diag().detach(), torch.tensor([2.0, 2.0, 0.0]))
    assert_bits(smooth[1].weight.detach(), torch.tensor([[2.0, 2.0, 7.0], [1.0, -1.0, 0.0]]))


def test_smooth_quant_by_patterns():
    """* is the same text on both sides."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b_c = Block(), Block()

        def forward(self, x):
            return self.a(x) + self.b_c(x)

    model = Two()
    smooth = smooth_quant(model, [normal(9, 32)], pairs={"*.norm": ["*.gate", "*.up"]})
    assert not torch.equal(smooth.b_c.norm.weight, model.b_c.norm.weight)
    assert_bits(smooth.b_c.last_norm.weight.detach(), model.b_c.last_norm.weight.detach())


def test_smooth_quant_leaves_shared_parameters_to_others():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm = torch.nn.Embedding(10, 8), torch.nn.LayerNorm(8)
            self.head = torch.nn.Linear(8, 10, bias=False)
            self.head.weight = self.table.weight
            with torch.no_grad():
                self.norm.weight[2] = 50

        def forward(self, tokens):
            return self.head(self.norm(self.table(tokens)))

    model, tokens = Tied(), torch.arange(10)
    smooth = smooth_quant(model, [tokens])
    assert rms(smooth, model, tokens) < 1e-4
    assert_bits(smooth.table.weight.detach(), model.table.weight.detach())
    assert_bits(clip_weights(model).table.weight.detach(), model.table.weight.detach())


def test_a_trace_is_believed_where_defaults_change_nothing():
    """Code that asks whether an argument was given goes one way with a symbol, and another with None."""

    class Optional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.q, self.kv = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
            with torch.no_grad():
                self.norm.weight[2] = 50

        def forward(self, x, context=None):
            x = self.norm(x)
            context = x if context is None else context
            return self.q(x) + self.kv(context)

    model, x = Optional(), normal(9, 8)
    assert rms(smooth_quant(model, [x]), model, x) < 1e-5

    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.relu = torch.nn.Linear(8, 8), torch.nn.ReLU()

        def forward(self, x, residual=None):
            h = self.first(x)
            return self.relu(h) + (h if residual is None else residual)

    model = Residual()
    with torch.no_grad():
        assert rms(quaver.quantize_model(model), model, x) < 0.1


def test_makers_are_what_multiplies_channels():
    prelu = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.PReLU(16), torch.nn.Linear(16, 4))
    x = normal(9, 8)
    assert_bits(smooth_quant(prelu, [x])(x).detach(), prelu(x).detach())
    with pytest.raises(ValueError, match=r"^smooth_quant: a maker's weight must multiply .*, and PReLU's does not$"):
        smooth_quant(prelu, [x], pairs={"1": ["2"]})

    class Untraceable(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 8))

        def forward(self, x):
            return self.net(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match=r"^smooth_quant: the model cannot be traced"):
        smooth_quant(Untraceable(), [x])
    with pytest.raises(ValueError, match=r"^equalize: the model cannot be traced$"):
        equalize(Untraceable())


def test_smooth_quant_does_not_take_what_is_no_number():
    model, x = Block(), normal(30, 32)
    with_nan = x.clone()
    with_nan[3, 4], with_nan[5] = torch.nan, torch.inf
    smooth = smooth_quant(model, [with_nan], alpha="search", pairs=PAIRS)
    assert rms(smooth, model, x) < 1e-4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": "auto"}, "alpha must be from 0 to 1, or 'search', got 'auto'"),
        ({"pairs": {"norm": ["gate"], "nor*": ["up"]}}, "'norm' or one of its takers comes twice in pairs"),
        ({"pairs": {"norm": ["gate", "gate"]}}, "'norm' or one of its takers comes twice in pairs"),
        ({"pairs": {"*.*": ["gate"]}}, r"a pattern of pairs may have one \* and nothing else, got '\*\.\*'"),
        ({"alpha": 1.5}, "alpha must be from 0 to 1, or 'search', got 1.5"),
        ({"pairs": {"nothing*": ["up"]}}, "the pattern 'nothing\\*' of pairs matches no module"),
        ({"pairs": {"norm": ["last_norm"]}}, "'last_norm' of pairs must be a torch.nn.Linear, got LayerNorm"),
        ({"pairs": {"norm": ["down"]}}, "'norm' must make channels that each of \\['down'\\] takes"),
    ],
)
def test_smooth_quant_refuses(options, words):
    with pytest.raises(ValueError, match=f"^smooth_quant: {words}$"):
        smooth_quant(Block(), [normal(4, 32)], **options)
    with pytest.raises(ValueError, match=r"^smooth_quant: calibration yielded no batch$"):
        smooth_quant(Block(), [])


# Clipping


def test_clip_weights():
    model, x = Block(), normal(100, 32)
    with torch.no_grad():
        model.head.weight.copy_(normal(8, 32, seed=3))
    check = unchanged(model)
    clipped = clip_weights(model)
    check()
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            before, after = layer.weight, clipped.get_submodule(name).weight
            assert (after.abs() <= before.abs()).all()

            def error(weight, before=before):
                q, params = quaver.dynamic_quantize(weight.detach())
                return (quaver.dequantize(q, params) - before).square().sum(1)

            assert (error(after) <= error(before)).all()
    assert rms(clipped, model, x) < 0.2


def test_clip_weights_of_convolutions_and_steps():
    conv = torch.nn.Conv2d(4, 6, 3)
    clipped = clip_weights(conv, steps=3, least=0.9)
    shares = (clipped.weight.flatten(1).abs().amax(1) / conv.weight.flatten(1).abs().amax(1)).tolist()
    assert all(min(abs(share - each) for each in (0.9, 0.95, 1.0)) < 1e-6 for share in shares)
    for options in ({"steps": 0}, {"steps": 1.5}, {"least": 0}, {"least": 1.1}):
        with pytest.raises(ValueError, match=r"^clip_weights: "):
            clip_weights(conv, **options)


# Bias


class Net(torch.nn.Module):
    """Convolutions with norms and ReLUs, and a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = torch.nn.Sequential(
            *(torch.nn.Conv2d(3, 12, 3, bias=False), torch.nn.BatchNorm2d(12), torch.nn.ReLU()),
            *(torch.nn.Conv2d(12, 12, 3, groups=12), torch.nn.ReLU(), torch.nn.Conv2d(12, 16, 1), torch.nn.ReLU()),
        )
        self.head = torch.nn.Linear(16, 5)
        with torch.no_grad():
            self.body[0].weight[2] *= 30
            self.body[1].running_mean.normal_()
            self.body[1].running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def images(seed=0, count=16):
    return normal(count, 3, 9, 9, seed=seed).abs()


@pytest.mark.parametrize("static", [True, False])
def test_correct_bias(static):
    """With one scale for each weight tensor, whose rounding the narrow channels feel."""
    model = Net().eval()
    config = QuantConfig(weights=PerTensor(), activations=PerTensor() if static else quaver.PerToken(), symmetric=False)
    int8 = quaver.quantize_model(model, config, [images()] if static else None)
    check, check_int8 = unchanged(model), unchanged(int8)
    corrected = correct_bias(model, int8, [images(), images(1)])
    check()
    check_int8()
    assert rms(corrected, model, images(2)) < rms(int8, model, images(2))
    assert corrected.body[0].bias is not None


def test_correct_bias_leaves_out_what_is_no_number():
    layer = torch.nn.Linear(16, 4)
    int8 = quaver.quantize_model(layer, QuantConfig(weights=PerTensor()))
    x = torch.rand(100, 16)
    x[3, 2], x[7] = torch.nan, torch.inf
    assert correct_bias(layer, int8, [x]).bias.isfinite().all()


def test_correct_bias_gives_a_bias_and_refuses():
    layer = torch.nn.Linear(16, 4, bias=False)
    int8 = quaver.quantize_model(layer, QuantConfig(weights=PerTensor()))
    x = torch.rand(500, 16)
    corrected = correct_bias(layer, int8, [x])
    assert corrected.bias.shape == (4,)
    assert (corrected(x) - layer(x)).mean(0).abs().max() < 1e-6
    with pytest.raises(ValueError, match=r"^correct_bias: batches yielded none$"):
        correct_bias(layer, int8, [])
    with pytest.raises(ValueError, match=r"^correct_bias: float_model has no layer '0'$"):
        correct_bias(layer, torch.nn.Sequential(int8), [x])


# Equalization


def test_equalize():
    model, x = Net().eval(), images()
    check = unchanged(model)
    same = equalize(model)
    check()
    assert rms(same, model, x) < 1e-4 * model(x).abs().max().item()
    assert type(same.body[1]) is torch.nn.Identity
    config = QuantConfig(weights=PerTensor(), symmetric=False)
    assert rms(quaver.quantize_model(same, config), model, x) < rms(quaver.quantize_model(model, config), model, x) / 2
    first, second = same.body[0].weight.flatten(1).abs().amax(1), same.body[3].weight.flatten(1).abs().amax(1)
    assert torch.allclose(first, second, rtol=1e-3)


def test_equalize_stops_at_other_activations_and_at_forks():
    for activation in (torch.nn.ReLU6(), torch.nn.Sigmoid()):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), activation, torch.nn.Conv2d(4, 5, 1)).eval()
        same = equalize(model)
        assert_bits(same[0].weight.detach(), model[0].weight.detach())

    class Fork(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            h = self.first(x)
            return self.second(h) + h

    fork = Fork()
    assert_bits(equalize(fork).first.weight.detach(), fork.first.weight.detach())
    with pytest.raises(ValueError, match=r"^equalize: rounds must be an int of 1 or more, got 0$"):
        equalize(fork, rounds=0)


def test_equalize_half_models():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(2, 1, 1)).half()
    with torch.no_grad():
        model[0].weight.fill_(10)
        model[2].weight.fill_(1e-4)
    same, x = equalize(model), torch.ones(1, 1, 2, 2, dtype=torch.float16)
    assert torch.allclose(same(x), model(x), rtol=1e-2)
    assert same[0].weight.dtype == torch.float16


def test_equalize_grouped_and_linear_chains():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1),
        torch.nn.Conv2d(4, 8, 3, groups=4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 6, 1, groups=2),
    ).eval()
    same, x = equalize(model), images()
    assert rms(same, model, x) < 1e-5
    assert not torch.equal(same[0].weight, model[0].weight)
    linears = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4)).eval()
    assert rms(equalize(linears), linears, normal(9, 8)) < 1e-5


def test_fold_norms():
    model = Net().eval()
    expected, x = model(images()), images()
    fold_norms(model)
    assert torch.allclose(model(x), expected, atol=1e-5)
    assert type(model.body[1]) is torch.nn.Identity


# Outliers


@torch.no_grad()
def test_keep_outliers():
    model, x = Block(), normal(100, 32)
    check = unchanged(model)
    mixed = keep_outliers(model, [x], threshold=30)
    check()
    assert isinstance(mixed.gate, OutlierLinear)
    assert mixed.gate.channels.tolist() == [5, 9]
    assert not any(module.training for module in keep_outliers(copy.deepcopy(model).eval(), [x]).modules())
    assert type(mixed.head) is quaver.QuantLinear
    assert rms(mixed, model, x) < rms(quaver.quantize_model(model), model, x) / 2
    h = mixed.norm(x)
    part = mixed.gate.rest(h.index_fill(-1, mixed.gate.channels, 0))
    expected = part + h[:, [5, 9]] @ mixed.gate.weight.t()
    assert_bits(mixed.gate(h).detach(), expected.detach())


def test_keep_outliers_keeps_no_more_than_it_may():
    model, x = torch.nn.Linear(20, 4), 100 * normal(50, 20).abs() + torch.arange(20) * 1000
    mixed = keep_outliers(model, [x], most=0.15)
    assert mixed.channels.tolist() == [17, 18, 19]
    assert type(keep_outliers(model, [x], most=0)) is quaver.QuantLinear
    half = keep_outliers(copy.deepcopy(model).bfloat16(), [x.bfloat16()])
    assert half(x.bfloat16()).dtype == torch.bfloat16
    compiled = torch.compile(mixed, fullgraph=True, backend="eager")
    assert_bits(compiled(x), mixed(x))


def test_keep_outliers_refuses():
    layer = torch.nn.Linear(4, 4)
    for options, words in (
        ({"threshold": 0}, "threshold must be positive, got 0"),
        ({"most": 2}, "most must be from 0 to 1, got 2"),
        ({"config": STATIC}, "the config must have dynamic activations"),
    ):
        with pytest.raises(ValueError, match=f"^keep_outliers: {words}$"):
            keep_outliers(layer, [normal(2, 4)], **options)
    with pytest.raises(ValueError, match=r"^keep_outliers: calibration yielded no batch$"):
        keep_outliers(layer, [])


# Falling back


def test_fall_back():
    model, calibration = Block(), [normal(100, 32)]
    x = normal(100, 32, seed=1)
    check = unchanged(model)
    plain = quaver.quantize_model(model, STATIC, calibration)
    mixed = fall_back(model, STATIC, calibration, budget=0.4)
    check()
    alone = quaver.sensitivity(model, STATIC, calibration)
    worst = min((row for row in alone.rows if row["name"] != "(output)"), key=lambda row: row["sqnr_db"])["name"]
    assert mixed.fallen_back[0] == worst
    assert mixed.get_submodule(worst).input is None
    assert rms(mixed, model, x) < rms(plain, model, x)
    sizes = {name: layer.weight.numel() for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert sum(sizes[name] for name in mixed.fallen_back) <= 0.4 * sum(sizes.values())
    floats = fall_back(model, STATIC, calibration, budget=1, to="float")
    assert len(floats.fallen_back) == 4
    assert rms(floats, model, x) == 0
    assert fall_back(model, STATIC, calibration, budget=0).fallen_back == []
    assert len(fall_back(model, STATIC, calibration, budget=1).fallen_back) == 4


def test_fall_back_takes_a_ranking(monkeypatch):
    model, calibration = Block(), [normal(100, 32)]
    ranking = quaver.sensitivity(model, STATIC, calibration)
    worst_first = fall_back(model, STATIC, calibration, budget=1).fallen_back
    monkeypatch.setattr("quaver.recipes.fallback.sensitivity", None)  # it is not asked again
    assert fall_back(model, STATIC, calibration, budget=1, ranking=ranking).fallen_back == worst_first
    other = torch.nn.Sequential(torch.nn.Linear(32, 32))
    with pytest.raises(
        ValueError, match=r"^fall_back: ranking must be what sensitivity found for the layers of .* '0'$"
    ):
        fall_back(other, STATIC, calibration, ranking=ranking)
    with pytest.raises(TypeError, match=r"^fall_back: ranking must be a Comparison, got dict$"):
        fall_back(model, STATIC, calibration, ranking={})


def test_fall_back_knows_names_from_patterns():
    """A layer of that name, with an override of its own, and data that can be had once."""
    model = torch.nn.ModuleDict({"a[0]": torch.nn.Linear(32, 32)})

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model

        def forward(self, x):
            return self.layers["a[0]"](x)

    mixed = fall_back(Odd(), STATIC, (normal(9, 32) for _ in range(2)), budget=1)
    assert mixed.fallen_back == ["layers.a[0]"]
    assert mixed.layers["a[0]"].input is None
    plain = torch.nn.Sequential(torch.nn.Linear(32, 32))
    config = QuantConfig(activations=PerTensor(), overrides={"0": STATIC})
    assert fall_back(plain, config, [normal(9, 32)], budget=1)[0].input is None


def test_fall_back_refuses():
    for options, words in (
        ({"budget": 1.5}, "budget must be from 0 to 1, got 1.5"),
        ({"to": "int4"}, "to must be 'dynamic' or 'float', got 'int4'"),
    ):
        with pytest.raises(ValueError, match=f"^fall_back: {words}$"):
            fall_back(Block(), STATIC, [normal(2, 32)], **options)
