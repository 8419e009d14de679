"""compressed-tensors' layout: what we write it decompresses to our weights, what it compresses we load to its codes."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import Embedding, Identity, Linear, ReLU

import quaver
from quaver import PerTensor, QuantConfig, QuantLinear, load_compressed_tensors, quantize_model, save_compressed_tensors
from quaver.nn import QuantEmbedding
from tests.cases import assert_bits, needed, normal
from tests.test_serialization import assert_untouched, snapshot

TOKENS = [torch.arange(12).reshape(2, 6) % 7 + seed for seed in range(3)]


class Model(torch.nn.Module):
    """A table tied to a head, a shared layer, layers that fuse, one of several takers, and one without a bias."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.table = Embedding(10, 16, padding_idx=0)
        self.up, self.relu, self.down = Linear(16, 32), ReLU(), Linear(32, 16, bias=False)
        self.shared = Linear(16, 16)
        self.again = self.shared
        self.norm = torch.nn.LayerNorm(16)
        self.head = Linear(16, 10)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        x = self.down(self.relu(self.up(self.table(tokens))))
        return self.head(self.norm(self.again(self.shared(x)) + x))


STATIC = QuantConfig(activations=PerTensor(), symmetric=False)
CONFIGS = {
    "dynamic": QuantConfig(),
    "asymmetric, tables, one weight scale": QuantConfig(weights=PerTensor(), symmetric=False, embeddings=True),
    "static": STATIC,
    "static, symmetric, one weight scale": QuantConfig(weights=PerTensor(), activations=PerTensor()),
    "parts": QuantConfig(overrides={"down": None, "head": None}),
    "mixed": QuantConfig(activations=PerTensor(), embeddings=True, overrides={"up": QuantConfig(), "again": STATIC}),
}


def quantized(config, dtype=torch.float32, seed=0):
    static = any(each.static for each in (config, *filter(None, config.overrides.values())))
    return quantize_model(Model(seed).to(dtype).eval(), config, TOKENS if static else None)


def int8(model):
    kinds = (QuantLinear, QuantEmbedding)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def read_config(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def assert_same_model(actual, expected):
    assert repr(actual) == repr(expected)
    state = expected.state_dict()
    for name, tensor in actual.state_dict().items():
        assert_bits(tensor, state.pop(name))
    assert not state
    with torch.no_grad():
        assert_bits(actual.eval()(TOKENS[1]), expected(TOKENS[1]))


# Ours and back


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_bit_comes_back(config, tmp_path):
    model = quantized(config)
    save_compressed_tensors(model, tmp_path / "new" / "folder")
    with torch.device("meta"):
        empty = Model()
    for target in (Model(seed=1), empty):
        loaded = load_compressed_tensors(tmp_path / "new" / "folder", target)
        assert loaded is target
        assert_same_model(loaded, model)
        assert loaded.shared is loaded.again


@pytest.mark.parametrize("config", [CONFIGS["dynamic"], CONFIGS["asymmetric, tables, one weight scale"]], ids=str)
def test_bfloat16_models_of_dynamic_layers(config, tmp_path):
    model = quantized(config, torch.bfloat16)
    save_compressed_tensors(model, tmp_path)
    assert load_file(tmp_path / "model.safetensors")["up.bias"].dtype == torch.bfloat16
    assert_same_model(load_compressed_tensors(tmp_path, Model(1).to(torch.bfloat16)), model)


def test_a_bias_that_is_finer_than_its_model_keeps_its_bits(tmp_path):
    layer = QuantLinear.from_float(Linear(8, 4).to(torch.bfloat16))
    layer.bias.fill_(1 / 3)
    save_compressed_tensors(layer, tmp_path)
    assert_bits(load_compressed_tensors(tmp_path, Linear(8, 4).to(torch.bfloat16)).bias, layer.bias)


def test_what_is_written(tmp_path):
    model = quantized(CONFIGS["static"])
    save_compressed_tensors(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name: (tensor.dtype, list(tensor.shape)) for name, tensor in tensors.items() if name.startswith("up.")} == {
        "up.weight": (torch.int8, [32, 16]),
        "up.weight_scale": (torch.float32, [32, 1]),
        "up.bias": (torch.float32, [32]),
        "up.input_scale": (torch.float32, [1]),
        "up.input_zero_point": (torch.int8, [1]),
    }
    assert "shared.weight" in tensors
    assert "again.weight" not in tensors
    int8 = {"num_bits": 8, "type": "int"}
    assert read_config(tmp_path) == {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "format": "int-quantized",
                "weights": {**int8, "symmetric": True, "strategy": "channel", "dynamic": False},
                "input_activations": {**int8, "symmetric": False, "strategy": "tensor", "dynamic": False},
                "output_activations": None,
            }
        },
        "ignore": [],
        "kv_cache_scheme": None,
    }


def test_float_layers_are_ignored_and_several_kinds_named(tmp_path):
    save_compressed_tensors(quantized(CONFIGS["parts"]), tmp_path)
    assert read_config(tmp_path)["ignore"] == ["down", "head"]
    save_compressed_tensors(quantized(CONFIGS["mixed"]), tmp_path)
    groups = read_config(tmp_path)["config_groups"].values()
    assert [group["targets"] for group in groups] == [["table"], ["up"], ["down", "head"], ["shared"]]
    assert read_config(tmp_path)["ignore"] == []


def test_a_config_that_is_there_keeps_the_rest(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "bert", "quantization_config": {"quant_method": "other"}, "quaver": 1}')
    save_compressed_tensors(quantized(QuantConfig()), tmp_path)
    config = json.loads(path.read_text())
    assert config.keys() == {"model_type", "quantization_config"}
    assert config["model_type"] == "bert"
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


def test_ranges_that_the_layout_has_not(tmp_path):
    """-127..127 of symmetric static layers: what lies below saturates at -127 for us."""
    layer = QuantLinear.from_float(Linear(8, 4), input=quaver.choose_qparams(normal(50, 8)))
    save_compressed_tensors(layer, tmp_path)
    x = -100 * normal(5, 8).abs()
    loaded = load_compressed_tensors(tmp_path, Linear(8, 4))
    assert (loaded.input.q_min, loaded.input.q_max) == (-127, 127)
    assert_bits(loaded(x), layer(x))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quaver"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_compressed_tensors(tmp_path, Linear(8, 4)).input.q_min == -128


# Ours, read by theirs


def theirs_of(folder, model):
    """The model with what compressed-tensors makes of the folder, weights in floats again."""
    needed("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    config = QuantizationConfig.model_validate(read_config(folder))
    apply_quantization_config(model, config, show_progress=False)
    compressor = ModelCompressor(config)
    compressor.compress_model(model)
    missing = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not missing.unexpected_keys
    assert all("again." in name or name == "head.weight" for name in missing.missing_keys)  # what is shared
    compressor.decompress_model(model)
    return model


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_theirs_decompresses_to_our_weights(config, tmp_path):
    model = quantized(config)
    save_compressed_tensors(model, tmp_path)
    untied = Model(seed=1)
    untied.again = Linear(16, 16)  # it moves no module twice
    theirs = dict(theirs_of(tmp_path, untied).named_modules())
    assert int8(model)
    for name, layer in int8(model).items():
        assert_bits(theirs[name].weight.detach(), quaver.dequantize(layer.weight_q, layer.weight_scale))
        if getattr(layer, "bias", None) is not None:
            assert_bits(theirs[name].bias.detach(), layer.bias)
        if isinstance(layer, QuantLinear) and layer.input is not None:
            assert_bits(theirs[name].input_scale.detach(), layer.input.scale)
            if not layer.symmetric:
                assert theirs[name].input_zero_point.item() == layer.input.zero_point.item()
        arguments = theirs[name].quantization_scheme.input_activations
        if isinstance(layer, QuantEmbedding):
            assert arguments is None
        else:
            assert (arguments.dynamic, arguments.symmetric) == (layer.input is None, layer.symmetric)
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            assert not hasattr(theirs[name], "quantization_scheme")


def test_theirs_runs_the_unfused_model(tmp_path):
    """Their fake quantization and our codes are the same numbers, which they add up in floats."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(Linear(16, 32), ReLU(), Linear(32, 8))
    ours = quantize_model(model, STATIC, [normal(20, 16)])
    assert (ours[0].relu, ours[0].output is not None) == (True, True)
    save_compressed_tensors(ours, tmp_path)
    theirs = theirs_of(tmp_path, copy.deepcopy(model))
    x = normal(9, 16, seed=3)
    with torch.no_grad():
        expected, actual = ours(x), theirs(x)
    one_code = float(ours[2].input.scale) * quaver.dequantize(ours[2].weight_q, ours[2].weight_scale).abs().sum(1)
    rounding = 2.0**-24 * 64 * (ours[2].input.scale * 255) * one_code / ours[2].input.scale
    near = (actual - expected).abs() <= rounding
    assert near.float().mean() > 0.9  # but where a code differs, from a quotient next to a tie
    assert ((actual - expected).abs() <= one_code + rounding).all()


def test_transformers_reads_it_and_writes_it_again(tmp_path):
    """A model of theirs: its weights are ours in floats, and what it saves is what we wrote."""
    needed("compressed_tensors")
    bert = needed("transformers.models.bert")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = bert.BertConfig(vocab_size=11, max_position_embeddings=8, **sizes)
    torch.manual_seed(0)
    model = quantize_model(bert.BertModel(config).eval())
    config.save_pretrained(tmp_path)
    save_compressed_tensors(model, tmp_path)
    theirs = bert.BertModel.from_pretrained(tmp_path, local_files_only=True)
    theirs.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        theirs(TOKENS[0])  # decompresses
    assert len(int8(model)) == 7
    for name, layer in int8(model).items():
        weight = theirs.get_submodule(name).weight.detach()
        assert_bits(weight, quaver.dequantize(layer.weight_q, layer.weight_scale))
    loaded = load_compressed_tensors(tmp_path / "again", bert.BertModel(config))
    for name, tensor in model.state_dict().items():
        assert_bits(loaded.state_dict()[name], tensor)


# Theirs, read by us


def compressed_by_them(model, config, folder, fill):
    """A folder as its ModelCompressor and safetensors make it, and the model with the codes that it made."""
    needed("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, apply_quantization_config

    apply_quantization_config(model, QuantizationConfig.model_validate(config), show_progress=False)
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "quantization_scheme"):
                fill(module)
                module.quantization_status = QuantizationStatus.FROZEN
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    compressor.update_config(folder)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return model


def by_range(module):
    """Scales that clip a little, which makes codes of -128."""
    rows = module.weight.abs().amax(1, keepdim=True)
    scale = rows if module.weight_scale.dim() == 2 else rows.amin().reshape(1)
    module.weight_scale.copy_(scale / 130)
    if hasattr(module, "input_scale"):
        module.input_scale.fill_(0.03)
        module.input_zero_point.fill_(0 if module.quantization_scheme.input_activations.symmetric else -7)


INT8 = {"num_bits": 8, "type": "int"}
TOKEN = {**INT8, "strategy": "token", "dynamic": True, "symmetric": True}
STATIC_TENSOR = {**INT8, "strategy": "tensor", "dynamic": False, "symmetric": False}
CHANNELS = {**INT8, "strategy": "channel", "symmetric": True}


def mlp():
    torch.manual_seed(0)
    return torch.nn.Sequential(Linear(16, 32), ReLU(), Linear(32, 8), Linear(8, 4), Linear(4, 2))


THEIR_CONFIGS = {
    "W8A8": {"config_groups": {"W8A8": ["Linear"]}, "ignore": ["4"]},
    "asymmetric tokens": {
        "config_groups": {
            "a": {"targets": ["re:[02]"], "weights": CHANNELS, "input_activations": {**TOKEN, "symmetric": False}}
        }
    },
    "static": {
        "config_groups": {"a": {"targets": ["Linear"], "weights": CHANNELS, "input_activations": STATIC_TENSOR}},
        "ignore": ["re:4$"],
    },
    "a name before patterns": {
        "config_groups": {
            "a": {"targets": ["re:.*"], "weights": CHANNELS, "input_activations": TOKEN},
            "b": {"targets": ["2"], "weights": CHANNELS, "input_activations": STATIC_TENSOR},
        },
    },
    "several": {
        "config_groups": {
            "a": {"targets": ["Linear"], "weights": CHANNELS, "input_activations": TOKEN},
            "b": {
                "targets": ["2", "re:3"],
                "weights": {**INT8},
                "input_activations": {**STATIC_TENSOR, "symmetric": True},
            },
        },
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", THEIR_CONFIGS.values(), ids=THEIR_CONFIGS.keys())
def test_what_they_compress_has_their_codes(config, dtype, tmp_path):
    theirs = compressed_by_them(mlp().to(dtype), config, tmp_path, by_range)
    loaded = load_compressed_tensors(tmp_path, mlp().to(dtype))
    arguments = {}
    for name, module in theirs.named_modules():
        if not hasattr(module, "quantization_scheme"):
            continue
        layer = loaded.get_submodule(name)
        arguments[name] = module.quantization_scheme.input_activations
        assert type(layer) is QuantLinear
        assert layer.dtype == dtype
        assert_bits(layer.weight_q, module.weight.detach())
        assert_bits(layer.weight_sum, module.weight.sum(1, True, dtype=torch.int32))
        assert_bits(layer.weight_scale, module.weight_scale.detach().float().reshape(-1, 1))
        assert_bits(layer.bias, module.bias.detach().float())
        assert (layer.input is None) == arguments[name].dynamic
        assert layer.symmetric == arguments[name].symmetric
        if layer.input is not None:
            assert_bits(layer.input.scale, module.input_scale.detach().float())
            assert layer.input.zero_point.item() == (0 if layer.symmetric else -7)
            assert (layer.input.q_min, layer.input.q_max) == (-128, 127)
    assert sorted(arguments) == sorted(int8(loaded))
    assert min(layer.weight_q.min() for layer in int8(loaded).values()) == -128
    x = normal(5, 16, dtype=dtype)
    with torch.no_grad():
        assert loaded(x).isfinite().all()
    if config is THEIR_CONFIGS["static"]:
        assert loaded[0](x).dtype == torch.int8  # layers that agree pass codes along


def test_tables_of_theirs(tmp_path):
    group = {"targets": ["Embedding"], "weights": CHANNELS, "format": "int-quantized"}
    theirs = compressed_by_them(
        torch.nn.Sequential(Embedding(9, 16)), {"config_groups": {"a": group}}, tmp_path, by_range
    )
    loaded = load_compressed_tensors(tmp_path, torch.nn.Sequential(Embedding(9, 16)))
    assert_bits(loaded[0].weight_q, theirs[0].weight.detach())
    tokens = torch.arange(9)
    assert_bits(loaded(tokens), quaver.dequantize(theirs[0].weight.detach(), theirs[0].weight_scale.detach()))


def test_files_in_parts(tmp_path):
    model = quantized(CONFIGS["static"])
    save_compressed_tensors(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    part_of = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(names)}
    for part in set(part_of.values()):
        save_file({name: tensors[name] for name in names if part_of[name] == part}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": part_of}))
    assert_same_model(load_compressed_tensors(tmp_path, Model(1)), model)
    for wrong, words in (
        ({names[0]: "../model-0.safetensors"}, "weight_map must have names of files beside it"),
        ({names[0]: part_of[names[1]]}, rf"model-1\.safetensors: '{names[0]}' is missing, which model"),
    ):
        index.write_text(json.dumps({"weight_map": {**part_of, **wrong}}))
        refused(tmp_path, words)
    index.write_text(json.dumps({"weight_map": {**part_of, names[0]: "model-7.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"model-7\.safetensors"):
        load_compressed_tensors(tmp_path, Model())


def test_shared_and_tied_parts_under_all_their_names(tmp_path):
    """A writer may leave them out, as transformers does, or not."""
    model = quantized(CONFIGS["parts"])
    save_compressed_tensors(model, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    assert "head.weight" not in tensors
    again = {name.replace("shared", "again"): tensor.clone() for name, tensor in tensors.items() if "shared" in name}
    save_file({**tensors, **again, "head.weight": tensors["table.weight"].clone()}, path)
    assert_same_model(load_compressed_tensors(tmp_path, Model(1)), model)
    save_file({**tensors, **again, "again.weight": -again["again.weight"]}, path)
    refused(tmp_path, "layer 'shared': one module in the model, several in the files")
    save_file({**tensors, "head.weight": -tensors["table.weight"]}, path)
    refused(tmp_path, "'table.weight' and 'head.weight' are one tensor in the model, and have two values")


def test_zero_points_that_say_nothing(tmp_path):
    layer = QuantLinear.from_float(Linear(8, 4), input=quaver.choose_qparams(normal(50, 8)))
    save_compressed_tensors(layer, tmp_path)
    path = tmp_path / "model.safetensors"
    zeros = {
        "weight_zero_point": torch.zeros(4, 1, dtype=torch.int8),
        "input_zero_point": torch.zeros(1, dtype=torch.int8),
    }
    save_file({**load_file(path), **zeros}, path)
    assert_bits(load_compressed_tensors(tmp_path, Linear(8, 4)).weight_q, layer.weight_q)
    for name in zeros:
        save_file({**load_file(path), **zeros, name: zeros[name] + 1}, path)
        refused(tmp_path, f"layer '': {name} must be 0, as of symmetric codes", Linear(8, 4))


# Refusals


def refused(folder, words, model=None):
    model = Model(seed=1) if model is None else model
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"load_compressed_tensors: .*{folder.name}: .*{words}"):
        load_compressed_tensors(folder, model)
    assert_untouched(model, before)


def test_layers_that_the_layout_cannot_hold(tmp_path):
    torch.manual_seed(0)
    params = quaver.choose_qparams(normal(50, 8), symmetric=False)
    other = quaver.choose_qparams(2 * normal(50, 8), symmetric=False)
    relu = QuantLinear.from_float(Linear(8, 8), relu=True)
    codes = QuantLinear.from_float(Linear(8, 8), output=params)
    rounded = QuantLinear.from_float(Linear(8, 8).to(torch.bfloat16), output=params)
    takes = QuantLinear.from_float(Linear(8, 8), input=params)
    takes_other = QuantLinear.from_float(Linear(8, 8), input=other)
    dynamic = QuantLinear.from_float(Linear(8, 8))

    class Mine(QuantLinear):
        pass

    no_relu, no_output = (
        "layer '0': the layout has no relu, and no Identity",
        "layer '0': the layout has no output, and no",
    )
    for layers, words in (
        ((Linear(8, 8),), "the model has no int8 layer"),
        ((Mine(8, 8),), "layer '0': must be QuantLinear or QuantEmbedding, got Mine"),
        ((relu,), no_relu),
        ((relu, dynamic), no_relu),
        ((relu, ReLU()), no_relu),
        ((codes,), no_output),
        ((codes, Identity()), no_output),
        ((codes, dynamic), no_output),
        ((codes, takes_other), no_output),
        ((rounded, takes), no_output),
    ):
        with pytest.raises(ValueError, match=f"save_compressed_tensors: .*{tmp_path.name}.*: {words}"):
            save_compressed_tensors(torch.nn.Sequential(*layers), tmp_path / "new")
        assert not (tmp_path / "new").exists()
    for layers in ((relu, Identity(), dynamic), (codes, takes)):
        save_compressed_tensors(torch.nn.Sequential(*layers), tmp_path / "new")


def change_config(folder, *path_and_value):
    config = json.loads((folder / "config.json").read_text())
    *path, last, value = path_and_value
    place = config
    for key in path:
        place = place[key]
    place[last] = value
    (folder / "config.json").write_text(json.dumps(config))


Q, G = "quantization_config", ("quantization_config", "config_groups", "group_0")
CHANGED = {
    "none": ((Q, None), "quantization_config must be an object, got None"),
    "method": ((Q, "quant_method", "gptq"), "quant_method must be 'compressed-tensors', got 'gptq'"),
    "format": ((*G, "format", "pack-quantized"), "group_0: format must be 'int-quantized', got 'pack-quantized'"),
    "cache": ((Q, "kv_cache_scheme", {}), "kv_cache_scheme must be None, got {}"),
    "sparse": ((Q, "sparsity_config", {"format": "x"}), "sparsity_config must be empty, got {'format': 'x'}"),
    "rotated": ((Q, "transform_config", {"config_groups": {}}), "transform_config must be empty"),
    "groups": ((Q, "config_groups", []), r"config_groups must be an object, got \[\]"),
    "preset": ((*G[:2], {"W8A8": ["Linear"]}), r"W8A8 must be an object, got \['Linear'\]"),
    "targets": ((*G, "targets", "Linear"), "group_0: targets must be a list of texts, got 'Linear'"),
    "pattern": ((*G, "targets", ["re:("]), r"'re:\(' is no regular expression"),
    "ignore": ((Q, "ignore", [1]), r"ignore must be a list of texts, got \[1\]"),
    "bits": ((*G, "weights", "num_bits", 4), "group_0: weights: num_bits must be 8, got 4"),
    "floats": ((*G, "weights", "type", "float"), "group_0: weights: type must be 'int', got 'float'"),
    "asymmetric": ((*G, "weights", "symmetric", False), "group_0: weights: symmetric must be True, got False"),
    "group": (
        (*G, "weights", "strategy", "group"),
        "group_0: weights: strategy must be 'channel' or 'tensor', got 'group'",
    ),
    "group size": (
        (*G, "weights", "group_size", 128),
        "group_0: weights: .* there are no groups, got True and group_size=128",
    ),
    "no weights": ((*G, "weights", None), "group_0: weights must be an object, got None"),
    "weights alone": (
        (*G, "input_activations", None),
        "layer 'up': only Embedding can have int8 weights alone in quaver",
    ),
    "outputs": ((*G, "output_activations", {}), "group_0: output_activations must be None, got {}"),
    "dynamic tensors": (
        (*G, "input_activations", "dynamic", True),
        "strategy must be 'token' and dynamic, or 'tensor' and not",
    ),
    "local": ((*G, "input_activations", "dynamic", "local"), "got 'tensor' and dynamic='local'"),
    "static tokens": ((*G, "input_activations", "strategy", "token"), "got 'token' and dynamic=False"),
    "symmetric": (
        (*G, "input_activations", "symmetric", True),
        "layer 'up': input_zero_point must be 0, as of symmetric codes",
    ),
    "one scale": (
        (*G, "weights", "strategy", "tensor"),
        r"layer 'up': weight_scale must have 1 elements, got the shape \[32, 1\]",
    ),
    "a table": (
        (*G, "targets", ["Embedding"]),
        "layer 'table': only Linear can have static activations in quaver, got Embedding",
    ),
    "dynamic": (
        (*G, "input_activations", {"strategy": "token", "dynamic": True}),
        r"layer 'up': its tensors must be \['bias', 'weight', 'weight_scale'\], got \['bias', 'input_scale', ",
    ),
    "ignored": ((Q, "ignore", ["up"]), r"'up\.weight' must be float32 \[32, 16\] for this model, got int8 \[32, 16\]"),
    "ranges": (
        ("quaver", {"input_ranges": {"up": [0, 255]}}),
        r"input_ranges must have two int8 codes for a layer, got {'up': \[0, ",
    ),
}


@pytest.mark.parametrize(("change", "words"), CHANGED.values(), ids=CHANGED.keys())
def test_configs_that_we_have_no_layers_for(change, words, tmp_path):
    save_compressed_tensors(quantized(STATIC), tmp_path)
    change_config(tmp_path, *change)
    refused(tmp_path, words)


TENSORS = {
    "missing": (
        "up.weight_scale",
        None,
        r"layer 'up': its tensors must be \['bias', 'input_scale', 'input_zero_point', 'weight', 'w",
    ),
    "unknown": ("up.weight_packed", torch.zeros(1), r"layer 'up': its tensors must be .*, got .* 'weight_packed', "),
    "shape": (
        "up.weight",
        torch.zeros(32, 15, dtype=torch.int8),
        r"layer 'up': weight must be int8 \[32, 16\], got int8 \[32, 15\]",
    ),
    "dtype": ("up.weight", torch.zeros(32, 16), r"layer 'up': weight must be int8 \[32, 16\], got float32 \[32, 16\]"),
    "scales": (
        "up.weight_scale",
        torch.ones(16, 1),
        r"layer 'up': weight_scale must have 32 elements, got the shape \[16, 1\]",
    ),
    "zero scale": ("up.weight_scale", torch.zeros(32, 1), "layer 'up': weight_scale must be positive and finite"),
    "NaN": ("up.input_scale", torch.tensor([torch.nan]), "layer 'up': input_scale must be positive and finite"),
    "infinity": ("up.input_scale", torch.tensor([torch.inf]), "layer 'up': input_scale must be positive and finite"),
    "double": (
        "up.input_scale",
        torch.ones(1).double(),
        "layer 'up': input_scale must be torch.float32 or torch.float16 or ",
    ),
    "wide": ("up.input_zero_point", torch.tensor([0]), "layer 'up': input_zero_point must be one int8, got 1 of int64"),
    "many": (
        "up.input_zero_point",
        torch.zeros(2, dtype=torch.int8),
        "layer 'up': input_zero_point must be one int8, got 2 of ",
    ),
    "bias": ("up.bias", torch.zeros(31), r"'up\.bias' must be float32 \[32\] for this model, got float32 \[31\]"),
    "norm": ("norm.bias", None, r"'norm\.bias' of the model's state is missing"),
    "left over": ("more", torch.zeros(1), "'more' is not in the model's state"),
    "half": (
        "norm.bias",
        torch.zeros(16).half(),
        r"'norm\.bias' must be float32 \[16\] for this model, got float16 \[16\]",
    ),
}


@pytest.mark.parametrize(("name", "tensor", "words"), TENSORS.values(), ids=TENSORS.keys())
def test_tensors_that_do_not_fit(name, tensor, words, tmp_path):
    save_compressed_tensors(quantized(STATIC), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop(name, None)
    save_file({**tensors, **({} if tensor is None else {name: tensor})}, tmp_path / "model.safetensors")
    refused(tmp_path, words)


def test_files_that_are_damaged(tmp_path):
    save_compressed_tensors(quantized(STATIC), tmp_path)
    for name, words in (("model.safetensors", "no safetensors file, or a part of one"), ("config.json", "")):
        content = (tmp_path / name).read_bytes()
        for length in (0, 5, len(content) // 2, len(content) - 2):
            (tmp_path / name).write_bytes(content[:length])
            refused(tmp_path, rf"{name}: .*{words}")
        (tmp_path / name).write_bytes(content)
    for content in (b"[]", b"3", b"[" * 100_000, b"\xff\xfe\xff"):
        (tmp_path / "config.json").write_bytes(content)
        refused(tmp_path, r"config\.json: ")


def test_layers_that_only_they_would_quantize(tmp_path):
    """A subclass of Linear, whose owner may rely on its weight."""
    save_compressed_tensors(QuantLinear.from_float(Linear(8, 8)), tmp_path)
    subclass = type("Mine", (Linear,), {})
    refused(tmp_path, "layer '': only Linear can have dynamic activations in quaver, got Mine", subclass(8, 8))
    refused(tmp_path, "layer '': the model must be float, got QuantLinear", QuantLinear.from_float(Linear(8, 8)))
