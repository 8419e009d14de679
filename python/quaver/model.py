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
        include, exclude: lists of patterns as in a shell ("encoder.*.query") over the layers' names in
            `model.named_modules()`; a layer is swapped when a pattern of `include` matches and none of `exclude` does.
        inplace: change `model` itself instead of a copy.

    Returns:
        The model. A layer shared under several names stays shared: one name is enough to include or to exclude it.
        Hooks on a swapped layer are not carried over. A swapped layer's `weight` is gone: nn.TransformerEncoder is told
        not to take the fused float path that reads it; a model's own code that reads it needs an `exclude`.

    Raises:
        ValueError for a pattern that matches no torch.nn.Linear layer, and for a torch.nn.Linear itself with inplace;
        TypeError for a single string where a list of patterns goes.

    >>> import torch, quaver
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> quaver.quantize_model(model, exclude=["2"])
    Sequential(
      (0): QuantLinear(in_features=8, out_features=8, bias=True, symmetric=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    if inplace and _is_linear(model):
        raise ValueError("quantize_model: a torch.nn.Linear itself cannot be swapped inplace; use what is returned")
    if not inplace:
        model = copy.deepcopy(model)
    names = _names_of_linear_layers(model)
    _check_patterns("include", include, names)
    _check_patterns("exclude", exclude, names)
    for layer, its_names in names.items():
        if not _any_matches(include, its_names) or _any_matches(exclude, its_names):
            continue
        quantized = QuantLinear.from_float(layer, symmetric=symmetric)
        if layer is model:
            return quantized
        for name in its_names:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, quantized)
    _leave_fused_float_path(model)
    return model


def _is_linear(module):
    return type(module) is torch.nn.Linear


def _names_of_linear_layers(model):
    """{layer: [every name that it has]}"""
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if _is_linear(module):
            names.setdefault(module, []).append(name)
    return names


def _check_patterns(argument, patterns, names):
    if isinstance(patterns, str):
        raise TypeError(f"quantize_model: {argument} must be a list of patterns, got the string {patterns!r}")
    every_name = sorted(name for its_names in names.values() for name in its_names)
    for pattern in patterns:
        if pattern != "*" and not _any_matches([pattern], every_name):
            raise ValueError(f"quantize_model: the {argument} pattern {pattern!r} matches none of {every_name}")


def _any_matches(patterns, names):
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _leave_fused_float_path(model):
    """torch's own encoder hands its layers' float weights to one fused kernel in eval mode, past their forward.

    It asks these two attributes whether it may; nothing else reads them after construction.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.TransformerEncoderLayer) and _holds_int8(module):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, torch.nn.TransformerEncoder) and _holds_int8(module):
            module.use_nested_tensor = False


def _holds_int8(module):
    return any(isinstance(part, QuantLinear) for part in module.modules())
