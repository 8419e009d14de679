"""Models in files: their state in safetensors, and a text in its header that says which modules are int8, and how."""

import json
import os

import torch

from quaver.library import build_info
from quaver.nn import QuantConv2d, QuantEmbedding, QuantLinear
from quaver.nn.config import check_fields
from quaver.nn.module import Int8Module
from quaver.restore import restore
from quaver.tensor_file import digest, distinct, read_tensors, saying, write_tensors

FORMAT = 1
KINDS = {kind.__name__: kind for kind in (QuantConv2d, QuantEmbedding, QuantLinear)}  # all that a file may ask for
# An Identity stands where a ReLU or a normalization has moved into the layer before it.
FUSED_OR_NOT = {kind.__name__: kind for kind in (torch.nn.Identity, torch.nn.ReLU)}
NORMS = (torch.nn.BatchNorm2d,)


def save(model, path):
    """Writes a model's state to a safetensors file that `load` reads: weights and a text, no code and no pickle.

    The file holds `model.state_dict()`, what is one tensor in memory once. Its header says which modules are int8 and
    how, where something has moved into them, and what all of it hashes to: that shows damage, and is no signature.
    Other programs can read its tensors.

    Arguments:
        model: any torch.nn.Module, with int8 modules or without.
        path: of the file. An error leaves what was there before.

    Raises:
        ValueError for a state that holds anything but dense tensors with values, and for an int8 module of a class that
        `load` does not know.

    >>> import pathlib, quaver, tempfile, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    >>> quantized = quaver.quantize_model(model)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.safetensors")
    ...     quaver.save(quantized, path)
    ...     quaver.load(path, model)
    Sequential(
      (0): QuantLinear(in_features=8, out_features=4, bias=True, symmetric=True, relu=True)
      (1): Identity()
    )
    >>> x = torch.randn(2, 8)
    >>> torch.equal(model(x), quantized(x))
    True
    """
    with saying(f"save: {os.fspath(path)}"):
        tensors, aliases = distinct(model.state_dict())
        description = {"format": FORMAT, "quaver": build_info()["version"], "aliases": aliases, **_modules_of(model)}
        description["sha256"] = digest(description, tensors)
        write_tensors(path, tensors, {"quaver": json.dumps(description)})


def load(path, model):
    """Makes a model what `save` has saved: its layers the file's int8 ones, its state the file's, bit for bit.

    Arguments:
        path: of the file.
        model: the model that was quantized, with any weights, on any device; or an int8 one of it. It is changed. What
            is on the device meta comes to the CPU, all else stays where it is. What `state_dict()` leaves out, such as
            buffers that are not persistent, stays as it is.

    Returns:
        The model; or the int8 layer that takes its place, where it is a layer itself.

    Raises:
        FileNotFoundError, and ValueError for a file that is no safetensors file or a part of one, that `save` has not
        written, or a newer quaver's, that has changed since, or that does not fit the model. The model is then what it
        was.

    The doctest of `save` loads, too.

    >>> import quaver, torch
    >>> quaver.load("nowhere.safetensors", torch.nn.Linear(8, 4))
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.safetensors'
    """
    with saying(f"load: {os.fspath(path)}"):
        description, tensors = _read(path)
        return restore(model, _modules_to_make(description, model), tensors)


# What the header says.


def _modules_of(model):
    int8, relus = {}, {}
    for name, module in model.named_modules(remove_duplicate=False):
        kind = type(module).__name__
        if isinstance(module, Int8Module):
            if type(module) is not KINDS.get(kind):
                raise ValueError(f"layer {name!r} must be one of {sorted(KINDS)}, got {kind}")
            int8[name] = {"kind": kind, "config": module.config()}
        elif type(module) is FUSED_OR_NOT.get(kind):
            relus[name] = kind
    return {"modules": int8, "relus": relus}


def _read(path):
    """(what the header says, {name: tensor}) as they were saved."""
    tensors, texts = read_tensors(path)
    if "quaver" not in texts:
        raise ValueError("not written by quaver.save: its header does not say which modules are int8")
    try:
        description = json.loads(texts["quaver"])
        file_format, saved = description["format"], description.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"changed since it was saved: what its header says cannot be read, {error!r}") from error
    if isinstance(file_format, int) and file_format > FORMAT:
        raise ValueError(f"of the format {file_format}, of quaver {description.get('quaver')}; known is {FORMAT}")
    found = digest(description, tensors)
    if saved != found:
        raise ValueError(f"changed since it was saved: its SHA-256 must be {saved}, got {found}")
    check_fields(description, format=int, quaver=str, aliases=dict, modules=dict, relus=dict)
    for name, first in description["aliases"].items():
        if first not in tensors or name in tensors:
            raise ValueError(f"{name!r} must stand for another tensor of the file, got {first!r}")
    return description, tensors | {name: tensors[first] for name, first in description["aliases"].items()}


# What becomes of the model.


def _modules_to_make(description, model):
    """{module of the model: what takes its place, on the device meta}"""
    here = dict(model.named_modules(remove_duplicate=False))
    made, relus = {}, {}
    for name, entry in description["modules"].items():
        with saying(f"layer {name!r}"):
            check_fields(entry, kind=str, config=dict)
            kind = _known(entry["kind"], KINDS)
            old = _one_of(here.get(name), kind, kind.float_type)
            new = _from_config(kind, entry["config"])
            if made.setdefault(old, new).config() != new.config():
                raise ValueError("one module in the model, several in the file")
    for name, kind in description["relus"].items():
        with saying(f"module {name!r}"):
            old = _one_of(here.get(name), *FUSED_OR_NOT.values(), *(NORMS if kind == "Identity" else ()))
            if relus.setdefault(old, _known(kind, FUSED_OR_NOT)) is not FUSED_OR_NOT[kind]:
                raise ValueError("one module in the model, several in the file")
    for name, module in here.items():
        if isinstance(module, Int8Module) and module not in made:
            raise ValueError(f"layer {name!r}: float in the file, and {type(module).__name__} in the model")
    return made | {old: kind() for old, kind in relus.items() if type(old) is not kind}


def _known(kind, kinds):
    if kind not in kinds:
        raise ValueError(f"must be one of {sorted(kinds)}, got {kind!r}")
    return kinds[kind]


def _one_of(module, *kinds):
    if not isinstance(module, kinds):
        found = "nothing" if module is None else type(module).__name__
        raise ValueError(f"the model must have {' or '.join(kind.__name__ for kind in kinds)} there, got {found}")
    return module


def _from_config(kind, config):
    try:
        return kind.from_config(config, "meta")
    except (RuntimeError, TypeError, OverflowError) as error:  # such as torch's, of sizes that no tensor has
        raise ValueError(str(error)) from error
