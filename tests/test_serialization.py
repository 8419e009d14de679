"""save and load: a round trip keeps every bit; a file that is not whole, not ours or not of this model changes none."""

import copy
import json
import os
import stat
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import Embedding, Identity, Linear, ReLU

import quaver
from quaver import PerTensor, QuantConfig, QuantLinear, quantize_model
from quaver.nn import FakeQuantLinear, QuantEmbedding
from quaver.tensor_file import LARGEST_HEADER, digest
from tests.cases import FLOAT_DTYPES, assert_bits, normal
from tests.test_calibration import Images

STATIC = QuantConfig(activations=PerTensor(), symmetric=False, embeddings=True)
TOKENS = [torch.arange(12).reshape(2, 6) % 7 + seed for seed in range(3)]


class Model(torch.nn.Module):
    """Tables, shared and tied parts, ReLUs that fuse and one that does not, buffers of every kind."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.table = Embedding(10, 16, padding_idx=0)
        self.up, self.relu, self.down = Linear(16, 32), ReLU(), Linear(32, 16, bias=False)
        self.shared = Linear(16, 16)
        self.again = self.shared
        self.last_relu = ReLU()
        self.head = Linear(16, 10)
        self.head.weight = self.table.weight
        self.norm = torch.nn.BatchNorm1d(16)
        self.norm.running_mean.normal_()
        self.twin = torch.nn.LayerNorm(16)
        self.twin.bias = self.norm.bias
        self.register_buffer("steps", torch.tensor(41 + seed))
        self.register_buffer("mask", torch.rand(3, 5) > 0.5)
        self.register_buffer("empty", torch.zeros(0, 4, dtype=torch.uint8))
        self.register_buffer("passing", torch.full((2,), float(seed)), persistent=False)

    def forward(self, tokens):
        x = self.down(self.relu(self.up(self.table(tokens))))
        x = self.again(self.shared(x)) + x
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.last_relu(self.twin(x)))


CONFIGS = {
    "dynamic": QuantConfig(),
    "asymmetric, tables": QuantConfig(symmetric=False, embeddings=True),
    "static": STATIC,
    "static, symmetric, one weight scale": QuantConfig(weights=PerTensor(), activations=PerTensor()),
    "parts": QuantConfig(overrides={"down": None, "head": None}),
    "none": QuantConfig(overrides={"*": None}),
}


def quantized(config, seed=0, dtype=torch.float32):
    calibration = TOKENS if config.static else None
    return quantize_model(Model(seed).to(dtype).eval(), config, calibration)


def snapshot(model):
    """All that must not change: modules, their modes, the identity and the bits of every tensor."""
    modules = [(name, module, module.training) for name, module in model.named_modules(remove_duplicate=False)]
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    return modules, tensors, {name: None if t.is_meta else t.detach().clone() for name, t in tensors.items()}


def assert_untouched(model, before):
    modules, tensors, values = before
    now, now_tensors, _ = snapshot(model)
    assert [name for name, *_ in now] == [name for name, *_ in modules]
    assert all(a is b and mode is was for (_, a, mode), (_, b, was) in zip(now, modules, strict=True))
    assert now_tensors.keys() == tensors.keys()
    for name, tensor in now_tensors.items():
        assert tensor is tensors[name]
        if not tensor.is_meta:
            assert_bits(tensor, values[name])


def assert_same_state(actual, expected):
    assert list(actual) == list(expected)
    for name, tensor in actual.items():
        assert_bits(tensor, expected[name])


def assert_same_model(actual, expected, tokens=TOKENS[1]):
    assert repr(actual) == repr(expected)
    assert_same_state(actual.state_dict(), expected.state_dict())
    with torch.no_grad():
        assert_bits(actual.eval()(tokens), expected(tokens))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# Round trips


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_bit_comes_back(config, dtype, path):
    model = quantized(config, dtype=dtype)
    quaver.save(model, path)
    float_model = Model(seed=1).to(dtype)
    loaded = quaver.load(path, float_model)
    assert loaded is float_model
    assert_same_model(loaded, model)
    assert loaded.passing.tolist() == [1.0, 1.0]  # no part of the state


@pytest.mark.parametrize("config", [CONFIGS["asymmetric, tables"], STATIC], ids=["dynamic", "static"])
def test_the_mode_is_the_models(config, path):
    quaver.save(quantized(config), path)
    training = quaver.load(path, Model().train())
    assert all(module.training for module in training.modules())
    assert not any(module.training for module in quaver.load(path, Model().eval()).modules())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_model_without_memory_comes_to_the_cpu(config, path):
    model = quantized(config)
    quaver.save(model, path)
    with torch.device("meta"):
        empty = Model()
    empty.passing = torch.zeros(2)
    loaded = quaver.load(path, empty)
    assert_same_model(loaded, model)
    assert loaded.norm.bias is loaded.twin.bias
    assert isinstance(loaded.norm.bias, torch.nn.Parameter)
    assert loaded.norm.bias.requires_grad
    if config is CONFIGS["none"]:
        assert loaded.head.weight is loaded.table.weight


def test_what_stays_on_meta(path):
    quaver.save(quantized(QuantConfig()), path)
    with torch.device("meta"):
        loaded = quaver.load(path, Model())
    assert [name for name, tensor in loaded.named_buffers() if tensor.is_meta] == ["passing"]


def test_int8_models_take_other_files(path):
    """Of the same kind, and of others: what a layer's config says changes with the file, ReLUs too."""
    models = {name: quantized(config, seed) for seed, (name, config) in enumerate(CONFIGS.items()) if name[0] != "n"}
    for name in ("dynamic", "asymmetric, tables", "static"):
        target = copy.deepcopy(models["static" if name != "static" else "asymmetric, tables"])
        if name == "dynamic":
            with pytest.raises(ValueError, match=r"layer 'table': float in the file, and QuantEmbedding in the model"):
                quaver.save(models[name], path), quaver.load(path, target)
            continue
        quaver.save(models[name], path)
        assert_same_model(quaver.load(path, target), models[name])


def test_a_relu_that_the_file_has_comes_back(path):
    """An int8 model whose ReLU has moved into a layer becomes one whose ReLU has not."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(Linear(8, 8), ReLU(), Linear(8, 2))
    fused = quantize_model(model)
    unfused = torch.nn.Sequential(QuantLinear.from_float(model[0]), ReLU(), QuantLinear.from_float(model[2]))
    x = normal(5, 8)
    for one, other in ((fused, unfused), (unfused, fused)):
        quaver.save(one, path)
        loaded = quaver.load(path, copy.deepcopy(other))
        assert repr(loaded) == repr(one)
        assert_bits(loaded(x), one(x))


def test_shared_modules_stay_one(path):
    model = quantized(QuantConfig())
    quaver.save(model, path)
    loaded = quaver.load(path, Model())
    assert loaded.shared is loaded.again
    with safe_open(path, framework="pt") as file:
        assert "shared.weight_q" in file.keys()  # noqa: SIM118
        assert "again.weight_q" not in file.keys()  # noqa: SIM118
        assert json.loads(file.metadata()["quaver"])["aliases"]["again.weight_q"] == "shared.weight_q"


def test_what_is_two_in_the_model_may_be_one_in_the_file(path):
    quaver.save(quantized(QuantConfig()), path)
    model = Model()
    model.again = Linear(16, 16)
    loaded = quaver.load(path, model)
    assert loaded.shared is not loaded.again
    assert_bits(loaded.shared.weight_q, loaded.again.weight_q)


@pytest.mark.parametrize("made", [lambda: Linear(8, 4), lambda: Embedding(8, 4)], ids=["Linear", "Embedding"])
def test_a_model_that_is_one_layer(made, path):
    layer = quantize_model(made(), QuantConfig(embeddings=True))
    quaver.save(layer, path)
    for target in (made(), made().to("meta"), copy.deepcopy(layer)):
        loaded = quaver.load(path, target)
        assert type(loaded) is type(layer)
        assert_same_state(loaded.state_dict(), layer.state_dict())
        assert loaded is not target


def test_layers_made_by_hand(path):
    given = quaver.choose_qparams(normal(50, 48), symmetric=True)
    narrow = quaver.QuantizationParams(given.scale, given.zero_point + 3, -100, 90)
    torch.manual_seed(0)
    layers = [
        QuantLinear.from_float(Linear(48, 8, bias=False), relu=True, input=given, output=narrow),
        QuantLinear.from_float(Linear(48, 1), output=narrow, symmetric=False, weights=PerTensor()),
        QuantLinear.from_float(Linear(48, 8).to(torch.bfloat16), input=narrow),
        QuantEmbedding.from_float(Embedding(7, 5, padding_idx=3).half()),
    ]
    for layer in layers:
        quaver.save(layer, path)
        loaded = quaver.load(path, layer.float_type(*shape_of(layer)))
        assert repr(loaded) == repr(layer)
        assert loaded.config() == layer.config()
        assert loaded.dtype == layer.dtype
        assert_same_state(loaded.state_dict(), layer.state_dict())


def shape_of(layer):
    return layer.weight_q.shape if isinstance(layer, QuantEmbedding) else (layer.in_features, layer.out_features)


def test_layers_in_training_are_kept_as_they_are(path):
    model = torch.nn.Sequential(FakeQuantLinear(8, 8, observer=quaver.observers.MovingAverage()), Linear(8, 2))
    model(normal(4, 8))
    quaver.save(model, path)
    loaded = quaver.load(
        path, torch.nn.Sequential(FakeQuantLinear(8, 8, observer=quaver.observers.MovingAverage()), Linear(8, 2))
    )
    assert_same_state(loaded.state_dict(), model.state_dict())
    int8 = torch.nn.Sequential(model[0].to_int8(), model[1])
    quaver.save(int8, path)
    assert_bits(quaver.load(path, loaded)(normal(4, 8)), int8(normal(4, 8)))


def test_encoders_of_torch_run_their_int8_layers(path):
    """As quantize_model tells them to."""

    def made():
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return torch.nn.TransformerEncoder(layer, 2).eval()

    model = quantize_model(made())
    quaver.save(model, path)
    loaded = quaver.load(path, made())
    assert loaded.use_nested_tensor is False
    x = normal(2, 5, 16)
    with torch.no_grad():
        assert_bits(loaded(x), model(x))


def test_the_packed_weight_is_made_anew(path):
    model, other = (quantize_model(Linear(16, 4)) for _ in range(2))
    x = normal(3, 16)
    other(x)
    quaver.save(model, path)
    assert_bits(quaver.load(path, other)(x), model(x))


# The file


def test_other_programs_read_its_tensors(path):
    model = quantized(STATIC)
    quaver.save(model, path)
    tensors = load_file(path)
    state = model.state_dict()
    assert set(tensors) < set(state)
    for name, tensor in tensors.items():
        assert_bits(tensor, state[name])


def test_its_header_says_what_it_is(path):
    model = quantize_model(
        torch.nn.Sequential(Linear(2, 1), ReLU(), Linear(1, 1), Identity()), QuantConfig(symmetric=False)
    )
    quaver.save(model, path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata().keys() == {"quaver"}
        said = json.loads(file.metadata()["quaver"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    plain = {
        "bias": True,
        "symmetric": False,
        "input": None,
        "output": None,
        "dtype": "float32",
        "one_weight_scale": True,
    }
    assert said["modules"] == {
        "0": {"kind": "QuantLinear", "config": {"in_features": 2, "out_features": 1, "relu": True, **plain}},
        "2": {"kind": "QuantLinear", "config": {"in_features": 1, "out_features": 1, "relu": False, **plain}},
    }
    assert said["relus"] == {"1": "Identity", "3": "Identity"}
    assert (said["format"], said["quaver"]) == (1, quaver.__version__)
    assert said.pop("sha256") == digest(said, tensors)


def test_the_digest_sees_everything():
    tensors = {"a": torch.tensor([1, 2], dtype=torch.int8), "b": torch.tensor(1.0)}
    others = [
        {**tensors, "a": torch.tensor([1, 3], dtype=torch.int8)},
        {**tensors, "a": torch.tensor([[1, 2]], dtype=torch.int8)},
        {**tensors, "a": torch.tensor([1, 2], dtype=torch.uint8)},
        {**tensors, "c": torch.zeros(0)},
        {"a": tensors["a"]},
        {"a": tensors["b"], "b": tensors["a"]},
        {"A": tensors["a"], "b": tensors["b"]},
    ]
    digests = {digest({"x": 1}, each) for each in (tensors, *others)} | {digest({"x": 2}, tensors)}
    assert len(digests) == len(others) + 2
    assert digest({"x": 1}, dict(reversed(tensors.items()))) == digest({"x": 1}, tensors)


def test_an_error_leaves_the_old_file(path, monkeypatch):
    quaver.save(Linear(2, 1), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"save: .*model\.safetensors: 'weight' must be .* got one on the device meta"):
        quaver.save(Linear(2, 1, device="meta"), path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        quaver.save(Linear(2, 1), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_the_file_has_the_permissions_of_new_files(path):
    Path(path.parent, "new").touch()
    quaver.save(Linear(2, 1), path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(Path(path.parent, "new").stat().st_mode)


def test_what_cannot_be_saved(path):
    class Mine(QuantLinear):
        pass

    class Counting(torch.nn.Module):
        def get_extra_state(self):
            return {"count": 1}

    sparse = torch.nn.Module()
    sparse.register_buffer("table", torch.eye(3).to_sparse())
    wide = torch.nn.Module()
    wide.register_buffer("numbers", torch.zeros(2, dtype=torch.complex128))
    for model, words in (
        (
            torch.nn.Sequential(Mine(2, 2)),
            r"layer '0' must be one of \['QuantConv2d', 'QuantEmbedding', 'QuantLinear'\], got Mine",
        ),
        (type("QuantLinear", (QuantLinear,), {})(2, 2), r"layer '' must be one of .*, got QuantLinear"),
        (torch.nn.Sequential(Counting()), r"'0\._extra_state' of the state must be a tensor, got dict"),
        (sparse, r"'table' must be a dense tensor with values, got one of the layout torch\.sparse_coo"),
        (wide, r'Unknown dtype "complex128"'),
    ):
        with pytest.raises(ValueError, match=rf"save: .*model\.safetensors: {words}"):
            quaver.save(model, path)
        assert os.listdir(path.parent) == []
    with pytest.raises(FileNotFoundError):
        quaver.save(Linear(2, 1), path.parent / "nowhere" / "model.safetensors")


# Files that are not whole


SMALL = QuantConfig(symmetric=False, overrides={"2": None})


def small(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(Linear(4, 3), ReLU(), Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()


@pytest.fixture
def saved(path):
    quaver.save(quantize_model(small(), SMALL), path)
    return path.read_bytes()


def refused(path, model=None, words=""):
    model = small(seed=1) if model is None else model
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"load: .*{path.name}: {words}"):
        quaver.load(path, model)
    assert_untouched(model, before)


def test_no_bit_changes_unseen(path, saved):
    """Each byte of the file, header and data, with one bit flipped: an error in words, and the model as it was."""
    model = small(seed=1)
    before = snapshot(model)
    for place in range(len(saved)):
        changed = bytearray(saved)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"load: .*model\.safetensors: "):
            quaver.load(path, model)
    assert_untouched(model, before)


def test_truncated(path, saved):
    for length in [*range(64), *range(64, len(saved), 7), len(saved) - 1]:
        path.write_bytes(saved[:length])
        refused(path, words="no safetensors file, or a part of one: ")
    path.write_bytes(saved + b"\0")
    refused(path, words="no safetensors file, or a part of one: ")


@pytest.mark.parametrize("length", [LARGEST_HEADER + 1, 2**31, 2**63 - 1, 2**64 - 1])
def test_a_header_beyond_reason(path, saved, length):
    path.write_bytes(struct.pack("<Q", length) + saved[8:])
    refused(path, words=f"no safetensors file: it announces a header of {length} bytes, more than 100000000")


def test_a_header_longer_than_the_file(path, saved):
    path.write_bytes(struct.pack("<Q", len(saved)) + saved[8:])
    refused(
        path, words=f"no safetensors file, or a part of one: {len(saved)} bytes, less than a header of {len(saved)}"
    )


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\2\0\0\0\0\0\0\0{}", b"PK\3\4 a zip", b"\2\0\0\0\0\0\0\0[]", b"\0" * 100]
)
def test_foreign_files(path, content):
    path.write_bytes(content)
    refused(path)


def test_a_pickle_is_not_opened(path):
    torch.save(small(), path)
    refused(path, words="no safetensors file")


def test_safetensors_of_others(path):
    for texts in (None, {"format": "pt"}):
        save_file(small().state_dict(), path, texts)
        refused(path, words=r"not written by quaver\.save: its header does not say")


def test_no_file(path):
    model = small()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        quaver.load(path, model)
    with pytest.raises(IsADirectoryError):
        quaver.load(path.parent, model)


# Files that say something else, with a digest that is right


def forge(path, change, hashed=True):
    """The file with its description and tensors changed."""
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["quaver"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    change(said, tensors)
    if hashed:
        said.pop("sha256", None)
        said["sha256"] = digest(said, tensors)
    save_file(tensors, path, {"quaver": json.dumps(said)})


def field(name, value):
    return lambda said, _: said["modules"]["0"]["config"].__setitem__(name, value)


FORGED = {
    "format": (lambda said, _: said.update(format=2, quaver="9.0"), r"of the format 2, of quaver 9\.0; known is 1"),
    "no modules": (lambda said, _: said.pop("modules"), r"it must have the fields \['aliases', 'format', 'modules', "),
    "modules": (lambda said, _: said.update(modules=[]), r"its field modules must be dict, got \[\]"),
    "entry": (
        lambda said, _: said["modules"]["0"].update(more=1),
        r"layer '0': it must have the fields \['config', 'kind'\]",
    ),
    "kind": (
        lambda said, _: said["modules"]["0"].update(kind="Linear"),
        r"layer '0': must be one of \['QuantConv2d', 'QuantEmbedding', ",
    ),
    "another kind": (
        lambda said, _: said["modules"]["0"].update(kind="QuantEmbedding"),
        r"layer '0': the model must have QuantEmbedding or Embedding there, got Linear",
    ),
    "nowhere": (
        lambda said, _: said["modules"].update({"9": said["modules"]["0"]}),
        r"layer '9': the model must have QuantLinear or Linear there, got nothing",
    ),
    "relu": (
        lambda said, _: said["relus"].update({"1": "GELU"}),
        r"module '1': must be one of \['Identity', 'ReLU'\], got ",
    ),
    "relu nowhere": (
        lambda said, _: said["relus"].update({"3": "ReLU"}),
        r"module '3': the model must have Identity or ReLU ",
    ),
    "size": (field("in_features", 5), r"'0\.weight_q' must be int8 \[3, 5\] for this model, got int8 \[3, 4\]"),
    "huge": (field("in_features", 2**62), r"layer '0': "),
    "huger": (field("in_features", 10**40), r"layer '0': "),
    "negative": (field("out_features", -1), r"layer '0': "),
    "true": (field("in_features", True), r"layer '0': its field in_features must be int, got True"),
    "bias": (field("bias", False), r"'0\.bias' is not in the model's state"),
    "number": (field("relu", 1), r"layer '0': its field relu must be bool, got 1"),
    "dtype": (field("dtype", "float8"), r"layer '0': its field dtype must be 'float32', 'float16' or 'bfloat16', got "),
    "unknown": (field("rank", 1), r"layer '0': it must have the fields "),
    "range": (
        field("input", {"q_min": 0, "q_max": 255, "symmetric": False}),
        r"layer '0': QuantLinear: input must be for int8 codes, got the range 0\.\.255",
    ),
    "range of text": (
        field("output", {"q_min": "0", "q_max": 1, "symmetric": False}),
        r"layer '0': its field q_min must be int",
    ),
    "static": (
        field("input", {"q_min": -128, "q_max": 127, "symmetric": False}),
        r"'0\.input_scale' of the model's state is missing",
    ),
    "alias": (lambda said, _: said["aliases"].update(a="b"), r"'a' must stand for another tensor of the file, got 'b'"),
    "alias of what is there": (
        lambda said, _: said["aliases"].update({"0.bias": "0.weight_scale"}),
        r"'0\.bias' must stand for another tensor",
    ),
    "missing": (lambda _, tensors: tensors.pop("2.weight"), r"'2\.weight' of the model's state is missing"),
    "left over": (lambda _, tensors: tensors.update(more=torch.zeros(1)), r"'more' is not in the model's state"),
    "shape": (
        lambda _, tensors: tensors.update({"3.weight": torch.zeros(2, 1)}),
        r"'3\.weight' must be float32 \[2\] for this model, got float32 \[2, 1\]",
    ),
    "type": (
        lambda _, tensors: tensors.update({"3.weight": torch.zeros(2, dtype=torch.float64)}),
        r"'3\.weight' must be float32 \[2\] for this model, got float64 \[2\]",
    ),
}


@pytest.mark.parametrize(("change", "words"), FORGED.values(), ids=FORGED.keys())
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_forged(path, saved, change, words, device):
    forge(path, change)
    refused(path, small(seed=1).to(device), words)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"format": 1}', "[" * 100_000])
def test_a_description_that_is_none(path, saved, text):
    save_file(load_file(path), path, {"quaver": text})
    refused(path, words="changed since it was saved: ")


def test_a_change_without_a_new_digest(path, saved):
    for change in (
        field("relu", False),
        lambda said, _: said.update(quaver="0.1.1"),
        lambda _, tensors: tensors["2.weight"].neg_(),
        lambda said, _: said.update(sha256=None),
    ):
        path.write_bytes(saved)
        forge(path, change, hashed=False)
        refused(path, words="changed since it was saved: its SHA-256 must be ")


# Models that it is not of


def test_other_models(path, saved):
    torch.manual_seed(1)
    last = torch.nn.BatchNorm1d(2)
    gelu = torch.nn.GELU()
    for model, words in (
        (
            torch.nn.Sequential(Linear(4, 3), gelu, Linear(3, 2), last),
            r"module '1': the model must have Identity or ReLU or BatchNorm2d there, got GELU",
        ),
        (torch.nn.Sequential(Linear(4, 3), ReLU(), Linear(3, 2)), r"'3\.\w+' is not in the model's state"),
        (torch.nn.Sequential(Linear(4, 3), ReLU(), Linear(3, 3), last), r"'2\.weight' must be float32 \[3, 3\]"),
        (small(1).half(), r"'2\.weight' must be float16 \[2, 3\] for this model, got float32 \[2, 3\]"),
        (quantize_model(small(1)), r"layer '2': float in the file, and QuantLinear in the model"),
        (Linear(4, 3), r"layer '0': the model must have QuantLinear or Linear there, got nothing"),
    ):
        refused(path, model, words)


def test_one_in_the_model_and_two_in_the_file(path):
    model = Model()
    model.again = Linear(16, 16)
    model.twin.bias = torch.nn.Parameter(normal(16))
    for config, words in (
        (QuantConfig(), r"'shared\.weight_q' and 'again\.weight_q' are one tensor in the model, and have two values"),
        (QuantConfig(overrides={"again": None}), r"'again\.weight_q' of the model's state is missing"),
        (
            QuantConfig(overrides={"*": None}),
            r"'\w+\.\w+' and '\w+\.\w+' are one tensor in the model, and have two values",
        ),
    ):
        quaver.save(quantize_model(model, config), path)
        for device in ("cpu", "meta"):
            refused(path, Model().to(device), words)
    static = quantize_model(model.eval(), STATIC, TOKENS)
    del static.again
    static.again = QuantLinear(16, 16)
    quaver.save(static, path)
    refused(path, words="layer 'again': one module in the model, several in the file", model=Model())


# Convolutions


def test_convolutions_come_back_with_what_moved_into_them(tmp_path):
    images = [normal(3, 3, 9, 8, seed=seed) for seed in range(2)]
    config = QuantConfig(activations=PerTensor(), symmetric=False)
    saved = quantize_model(Images(), config, images).eval()
    quaver.save(saved, tmp_path / "images.safetensors")
    for fresh in (Images(), Images().to("meta"), quantize_model(Images())):
        loaded = quaver.load(tmp_path / "images.safetensors", fresh).eval()
        assert repr(loaded) == repr(saved)
        assert_bits(loaded(images[0]), saved(images[0]))
    other = Images()
    other.norm = torch.nn.GroupNorm(2, 8)
    refused(tmp_path / "images.safetensors", other, "module 'norm': .* Identity or ReLU or BatchNorm2d there, got Gr")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": 0}, "its field groups must be 1 or more, got 0"),
        ({"stride": [1, 1.5]}, r"its field stride must be two int, got \[1, 1\.5\]"),
        ({"padding": 1}, "its field padding must be list, got 1"),
        ({"dtype": "int8"}, "its field dtype must be 'float32', 'float16' or 'bfloat16', got 'int8'"),
    ],
)
def test_a_convolutions_config_that_makes_no_sense_is_refused(change, words):
    config = quaver.nn.QuantConv2d(4, 6, 3, groups=2).config()
    assert repr(quaver.nn.QuantConv2d.from_config(config)) == repr(quaver.nn.QuantConv2d(4, 6, 3, groups=2))
    with pytest.raises(ValueError, match=words):
        quaver.nn.QuantConv2d.from_config({**config, **change})
