"""From a float model to an int8 one."""

import copy
from fnmatch import fnmatchcase

import torch

from quaver.nn import QuantLinear


def quantize_model(model, *, symmetric=True, include=("*",), exclude=(), inplace=False):
    """A model whose torch.nn.Linear layers are QuantLinear: int8 weights, activations quantized row by row.

    Arguments:
        model: any torch.nn.Module. Subclasses of nn.Linear are left alone, since their owners may rely on them.
        symmetric: how activations are quantized: with a zero point of 0, or (False) with one for each row.
        include, exclude: patterns as in a shell ("encoder.*.query") over the layers' names in `model.named_modules()`;
            a layer is swapped when a pattern of `include` matches and none of `exclude` does.
        inplace: change `model` itself instead of a copy.

    Returns:
        The model. A layer shared under several names stays shared.

    Raises:
        ValueError for a pattern that matches no torch.nn.Linear layer.

    >>> import torch, quaver
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> quaver.quantize_model(model, exclude=["2"])
    Sequential(
      (0): QuantLinear(in_features=8, out_features=8, bias=True, symmetric=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    if not inplace:
        model = copy.deepcopy(model)
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) is torch.nn.Linear
    }
    for pattern in (*include, *exclude):
        if pattern != "*" and not any(fnmatchcase(name, pattern) for name in layers):
            raise ValueError(f"quantize_model: the pattern {pattern!r} matches none of {sorted(layers)}")
    swapped = {}
    for name, layer in layers.items():
        if not _matches(name, include) or _matches(name, exclude):
            continue
        if layer not in swapped:
            swapped[layer] = QuantLinear.from_float(layer, symmetric=symmetric)
        if name == "":
            return swapped[layer]
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, swapped[layer])
    return model


def _matches(name, patterns):
    return any(fnmatchcase(name, pattern) for pattern in patterns)
