"""Turn a float model into an int8 one, and write it to a file.

    quaver quantize models.py:encoder encoder.safetensors
    quaver quantize models.py:resnet resnet.safetensors --static --asymmetric --calibration models.py:batches
    quaver quantize ./all-MiniLM-L6-v2 minilm.safetensors --asymmetric --skip "pooler*"

Dynamic by default: each row of activations is quantized with what it holds. --static finds one scale for each layer in
calibration data instead. `quaver.load(FILE, model)` makes the float model the int8 one again.
"""

import json
import os

import torch

import quaver
from quaver import observers
from quaver.cli.given import DATA, MODEL, load_data, load_model
from quaver.nn.module import Int8Module

OBSERVERS = {
    "minmax": observers.MinMax,
    "moving-average": observers.MovingAverage,
    "percentile": observers.Percentile,
    "mse": observers.MSE,
    "entropy": observers.Entropy,
}
FORMATS = ("quaver", "compressed-tensors", "onnx")


def add_arguments(command):
    """What, where to, and how."""
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("file", metavar="FILE", help="where to write the int8 model")
    command.add_argument("--format", choices=FORMATS, default="quaver", help="of the file (default: quaver)")
    command.add_argument("--static", action="store_true", help="one scale for each layer's activations")
    command.add_argument("--asymmetric", action="store_true", help="activations with a zero point of their own")
    command.add_argument("--per-tensor-weights", action="store_true", help="one scale for each weight")
    command.add_argument("--embeddings", action="store_true", help="int8 tables of embeddings, too")
    command.add_argument("--skip", metavar="PATTERN", action="append", default=[], help="layers that stay float")
    command.add_argument("--calibration", metavar="DATA", help=DATA)
    command.add_argument("--observer", choices=OBSERVERS, default="minmax", help="of static scales (default: minmax)")


def run(chosen):
    """Prints what has become of the model."""
    if chosen.static and chosen.calibration is None:
        raise ValueError("--static needs --calibration DATA")
    if chosen.format == "onnx" and chosen.calibration is None:
        raise ValueError("--format onnx needs --calibration DATA: its first batch is what the model is exported with")
    model = load_model(chosen.model)
    batches = None if chosen.calibration is None else load_data(chosen.calibration, chosen.model)
    if batches is not None and not batches:
        raise ValueError("--calibration yields no batch")
    config = quaver.QuantConfig(
        weights=quaver.PerTensor() if chosen.per_tensor_weights else quaver.PerChannel(0),
        activations=quaver.PerTensor() if chosen.static else quaver.PerToken(),
        symmetric=not chosen.asymmetric,
        observer=OBSERVERS[chosen.observer],
        embeddings=chosen.embeddings,
        overrides=dict.fromkeys(chosen.skip),
    )
    int8 = quaver.quantize_model(model, config, batches if chosen.static else None, progress=not chosen.json)
    _write(int8, chosen, batches)
    facts = _facts(model, int8, chosen)
    if chosen.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{facts['int8_layers']} layers in int8, {facts['float_layers']} in float")
    print(f"{facts['float_megabytes']:.1f} MB of float state, {facts['int8_megabytes']:.1f} MB now")
    print(f"{facts['file']}: {facts['file_megabytes']:.1f} MB")


def _write(model, chosen, batches):
    if chosen.format == "quaver":
        quaver.save(model, chosen.file)
    elif chosen.format == "onnx":
        first = batches[0]
        quaver.to_onnx(model, chosen.file, tuple(first) if isinstance(first, list) else first)
    else:
        quaver.save_compressed_tensors(model, chosen.file)


def _facts(model, int8, chosen):
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    made = [module for module in int8.modules() if isinstance(module, Int8Module)]
    left = [module for module in int8.modules() if isinstance(module, kinds)]
    return {
        "int8_layers": len(made),
        "float_layers": len(left),
        "float_megabytes": _megabytes(model),
        "int8_megabytes": _megabytes(int8),
        "file": chosen.file,
        "file_megabytes": _size(chosen.file) / 1e6,
    }


def _megabytes(model):
    held = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    return sum(held.values()) / 1e6


def _size(path):
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
