"""Models in the layout of the project compressed-tensors, its format "int-quantized": int8 weights and activations.

A folder with config.json, whose quantization_config says what is quantized and how, and model.safetensors. It has each
layer's `weight` int8, `weight_scale`, `bias` and, for static activations, `input_scale` and `input_zero_point`.
"""

import json
from pathlib import Path

from quaver.compressed_tensors_config import read_config, write_config
from quaver.compressed_tensors_layers import LAYOUT_RANGE, check_layers, made_of, scheme_of, tensors_of
from quaver.nn.module import Int8Module
from quaver.restore import restore, with_tied
from quaver.tensor_file import distinct, join, read_tensors, replacing, saying, write_tensors

INDEX = "model.safetensors.index.json"


def save_compressed_tensors(model, folder):
    """Writes an int8 model as compressed-tensors lays it out, W8A8: for vLLM, transformers and others that read it.

    The layout holds layers one by one, between float tensors. So a ReLU that has moved into a layer is left to the
    model's code, and a layer that gives codes is written as one that gives floats, where that is the same model to the
    last bit: the ReLU has left an Identity, and the codes are those that the next layers make of a float32 result.
    Other layers with `relu` or `output` are refused.

    Arguments:
        model: with QuantLinear or QuantEmbedding among its modules.
        folder: is made where there is none. A config.json that is there, of transformers say, keeps all but its
            quantization_config.

    Readers quantize dynamic activations by their own rules, and static ones to -128..127: another range, such as
    -127..127 of symmetric ones, stands in config.json under "quaver", for `load_compressed_tensors`.

    Raises:
        ValueError for a layer that the layout cannot hold, by name, and for a state that `save` refuses.

    >>> import pathlib, quaver, tempfile, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     quaver.save_compressed_tensors(quaver.quantize_model(model), folder)
    ...     sorted(path.name for path in pathlib.Path(folder).iterdir())
    ...     quaver.load_compressed_tensors(folder, model)
    ['config.json', 'model.safetensors']
    Sequential(
      (0): QuantLinear(in_features=8, out_features=4, bias=True, symmetric=True, relu=True)
      (1): Identity()
    )
    """
    folder = Path(folder)
    with saying(f"save_compressed_tensors: {folder}"):
        layers = {name: module for name, module in model.named_modules() if isinstance(module, Int8Module)}
        check_layers(model, layers)
        tensors, _ = distinct(_state_to_write(model))
        config = _read_json(folder / "config.json") if (folder / "config.json").exists() else {}
        config["quantization_config"] = write_config({name: scheme_of(layer) for name, layer in layers.items()}, model)
        config.pop("quaver", None)
        if ranges := _other_ranges(layers):
            config["quaver"] = {"input_ranges": ranges}
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
        _write_json(folder / "config.json", config)


def load_compressed_tensors(folder, model):
    """Gives a model the int8 layers and the state of a folder in compressed-tensors' layout, whoever has written it.

    Arguments:
        folder: with config.json and model.safetensors, or with that in parts and model.safetensors.index.json.
        model: the float model, whatever its weights, on any device, of the dtype that the file's float tensors have. It
            is changed, as by `load`.

    Returns:
        The model, or the layer that takes its place. ReLUs move into layers, and codes flow between them, as
        `quantize_model` has it. Scales in float16 or bfloat16 are widened to float32, which is exact.

    Raises:
        FileNotFoundError, and ValueError for files that are damaged or do not fit the model, and for what quaver has no
        layers for. The model is then what it was.

    The doctest of `save_compressed_tensors` loads, too.

    >>> import quaver, torch
    >>> quaver.load_compressed_tensors("nowhere", torch.nn.Linear(8, 4))
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere/config.json'
    """
    folder = Path(folder)
    with saying(f"load_compressed_tensors: {folder}"):
        config = _read_json(folder / "config.json")
        schemes = read_config(config.get("quantization_config"), model)
        tensors = _read_folder(folder)
        made, state = made_of(model, schemes, _ranges_of(config), tensors)
        return restore(model, made, with_tied(model, made, state))


# Writing.


def _state_to_write(model):
    state, written = dict(model.state_dict()), {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Int8Module):
            for key in module.state_dict():
                del state[join(name, key)]
            if module not in written:  # a shared layer's tensors stay one
                written[module] = tensors_of(module)
            state |= {join(name, key): tensor for key, tensor in written[module].items()}
    return state


def _other_ranges(layers):
    inputs = {name: layer.input for name, layer in layers.items() if scheme_of(layer).activations == "static"}
    ranges = {name: (params.q_min, params.q_max) for name, params in inputs.items()}
    return {name: list(codes) for name, codes in ranges.items() if codes != LAYOUT_RANGE}


def _write_json(path, value):
    with replacing(path) as written:
        written.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


# Reading.


def _read_json(path):
    text = path.read_bytes()
    with saying(path.name):
        try:
            value = json.loads(text)
        except RecursionError as error:
            raise ValueError("too deep") from error
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, got {type(value).__name__}")
        return value


def _read_folder(folder):
    if (folder / "model.safetensors").exists() or not (folder / INDEX).exists():
        return _read_part(folder, "model.safetensors")
    parts = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(parts, dict) or not all(map(_is_name_of_a_file, parts.values())):
        raise ValueError(f"{INDEX}: weight_map must have names of files beside it, got {parts!r}")
    read = {part: _read_part(folder, part) for part in sorted(set(parts.values()))}
    for name, part in parts.items():
        if name not in read[part]:
            raise ValueError(f"{part}: {name!r} is missing, which {INDEX} has there")
    return {name: read[part][name] for name, part in parts.items()}


def _is_name_of_a_file(part):
    return isinstance(part, str) and Path(part).name == part


def _read_part(folder, part):
    with saying(part):
        return read_tensors(folder / part)[0]


def _ranges_of(config):
    """{name of a layer: [q_min, q_max]}, of inputs with another range than the layout's."""
    ours = config.get("quaver")
    ranges = ours.get("input_ranges", {}) if isinstance(ours, dict) else {}
    if not isinstance(ranges, dict) or not all(map(_is_range, ranges.values())):
        raise ValueError(f"config.json: quaver's input_ranges must have two int8 codes for a layer, got {ranges!r}")
    return ranges


def _is_range(codes):
    low, high = LAYOUT_RANGE
    return (
        isinstance(codes, list) and [type(code) for code in codes] == [int, int] and low <= codes[0] < codes[1] <= high
    )
