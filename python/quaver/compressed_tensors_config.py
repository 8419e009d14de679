"""quantization_config of compressed-tensors' config.json: which layers are int8, and how, as far as quaver's can be."""

import re
from dataclasses import dataclass

import torch

METHOD, FORMAT = "compressed-tensors", "int-quantized"


@dataclass(frozen=True)
class Scheme:
    """How layers are quantized: all that the layout says of them beside their tensors."""

    channels: bool  # whether each output has a weight scale of its own
    activations: str | None  # "dynamic", row by row; "static", with one scale for all; None: a table has none
    symmetric: bool = True  # of activations


# Writing.


def write_config(schemes, model):
    """The quantization_config for {name of a layer: its Scheme}.

    Where all linear layers have the same, it is for the class Linear, and those that stay float are on the ignore list.
    """
    groups = {}
    for name, scheme in schemes.items():
        groups.setdefault(scheme, []).append(name)
    linear = [scheme for scheme in groups if scheme.activations is not None]
    ignored = []
    if len(linear) == 1:
        groups[linear[0]] = ["Linear"]
        ignored = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return {
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{number}": {"targets": targets, "format": FORMAT, **_group(scheme)}
            for number, (scheme, targets) in enumerate(groups.items())
        },
        "ignore": ignored,
        "kv_cache_scheme": None,
    }


def _group(scheme):
    int8 = {"num_bits": 8, "type": "int"}
    strategy = "channel" if scheme.channels else "tensor"
    weights = {**int8, "symmetric": True, "strategy": strategy, "dynamic": False}
    activations = None
    if scheme.activations is not None:
        dynamic = scheme.activations == "dynamic"
        strategy = "token" if dynamic else "tensor"
        activations = {**int8, "symmetric": scheme.symmetric, "strategy": strategy, "dynamic": dynamic}
    return {"weights": weights, "input_activations": activations, "output_activations": None}


# Reading.

_LEFT_OUT = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": None, "dynamic": False, "group_size": None}


def read_config(config, model):
    """{name of a layer: its Scheme} of a quantization_config, for the model's torch.nn.Linear and torch.nn.Embedding.

    A shared layer goes by its first name, as it does with compressed-tensors.

    Raises ValueError for what quaver has no layers for.
    """
    config = _object(config, "quantization_config")
    _check(config, "quantization_config", quant_method=METHOD, kv_cache_scheme=None)
    for other in ("sparsity_config", "transform_config"):
        if config.get(other):
            raise ValueError(f"quantization_config: {other} must be empty, got {config[other]!r}")
    scheme_of = {}
    for name, group in _object(config.get("config_groups"), "config_groups").items():
        group = _object(group, name)
        scheme = _scheme({**group, "format": group.get("format") or config.get("format")}, name)
        scheme_of |= dict.fromkeys(_texts(group.get("targets"), f"{name}: targets"), scheme)
    ignored = _texts(config.get("ignore") or [], "ignore")
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding) and not _fitting(ignored, name, module):
            targets = _fitting(scheme_of, name, module)
            if targets:
                found[name] = scheme_of[targets[0]]
    return found


def _scheme(group, name):
    _check(group, name, format=FORMAT, output_activations=None)
    weights = _arguments(group.get("weights"), f"{name}: weights")
    _check(weights, f"{name}: weights", symmetric=True, dynamic=False)
    strategy = weights["strategy"] or ("tensor" if weights["group_size"] is None else "channel")
    if strategy not in ("channel", "tensor"):
        raise ValueError(f"{name}: weights: strategy must be 'channel' or 'tensor', got {strategy!r}")
    if group.get("input_activations") is None:
        return Scheme(strategy == "channel", None)
    activations = _arguments(group["input_activations"], f"{name}: input_activations")
    granularity = activations["strategy"] or "tensor"
    kind = {("token", True): "dynamic", ("tensor", False): "static"}.get((granularity, activations["dynamic"]))
    if kind is None:
        raise ValueError(
            f"{name}: input_activations: strategy must be 'token' and dynamic, or 'tensor' and not dynamic, "
            f"got {granularity!r} and dynamic={activations['dynamic']!r}"
        )
    return Scheme(strategy == "channel", kind, activations["symmetric"])


def _arguments(arguments, what):
    arguments = {**_LEFT_OUT, **_object(arguments, what)}
    _check(arguments, what, num_bits=8, type="int")
    if type(arguments["symmetric"]) is not bool or arguments["group_size"] not in (None, -1):
        given = f"{arguments['symmetric']!r} and group_size={arguments['group_size']!r}"
        raise ValueError(f"{what}: symmetric must be true or false, and there are no groups, got {given}")
    return arguments


def _check(values, what, **wanted):
    for name, value in wanted.items():
        if values.get(name) != value:
            raise ValueError(f"{what}: {name} must be {value!r}, got {values.get(name)!r}")


def _object(value, what):
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object, got {value!r}")
    return value


def _texts(value, what):
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{what} must be a list of texts, got {value!r}")
    return value


def _fitting(targets, name, module):
    """Those that mean the module, the most particular first: its name, patterns that it fits, its class or a base."""
    classes = [kind.__name__ for kind in type(module).__mro__]
    patterns = sorted(target for target in targets if _is_pattern(target) and _fits(target, name))
    return [*(each for each in targets if each == name), *patterns, *sorted(set(targets) & set(classes))]


def _is_pattern(target):
    return target.startswith("re:")


def _fits(target, name):
    try:
        return re.match(target.removeprefix("re:"), name) is not None
    except re.error as error:
        raise ValueError(f"{target!r} is no regular expression: {error}") from error
