"""From a float model to an int8 one."""

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights

from quaver import observers
from quaver.graph import consumers
from quaver.nn import QuantConv2d, QuantEmbedding, QuantLinear
from quaver.qparams import PerChannel, PerTensor, PerToken, QuantizationParams
from quaver.running import watch


@dataclass(frozen=True)
class QuantConfig:
    """How a model's layers become int8.

    Arguments:
        weights: which elements of a weight share a scale: PerChannel(0), one for each output, or PerTensor().
        activations: PerToken(), dynamic: each row is quantized with what it holds, and what a convolution takes as a
            whole; or PerTensor(), static: with one scale for each layer, which calibration finds.
        symmetric: whether activations have a zero point of 0, or one of their own.
        observer: what decides on a static scale: a class of quaver.observers, or anything that is called with
            `symmetric=` and gives an observer, such as functools.partial(observers.Percentile, high=99.99).
        embeddings: whether tables of torch.nn.Embedding become int8 too, row by row.
        overrides: {pattern: QuantConfig, or None for a layer that stays float}, patterns as in a shell
            ("encoder.*.query") over the layers' names in `model.named_modules()`. The first that matches decides.

    >>> QuantConfig(activations=PerTensor(), symmetric=False, overrides={"head": None}).overrides
    {'head': None}
    """

    weights: PerChannel | PerTensor = PerChannel(0)
    activations: PerToken | PerTensor = PerToken()
    symmetric: bool = True
    observer: Callable = observers.MinMax
    embeddings: bool = False
    overrides: Mapping = field(default_factory=dict)

    def __post_init__(self):
        _check_is("weights", self.weights, (PerChannel, PerTensor))
        if isinstance(self.weights, PerChannel) and self.weights.axis != 0:
            raise ValueError(f"QuantConfig: weights must be PerChannel(0) or PerTensor(), got {self.weights}")
        _check_is("activations", self.activations, (PerToken, PerTensor))
        _check_is("symmetric", self.symmetric, bool)
        _check_is("embeddings", self.embeddings, bool)
        _check_is("overrides", self.overrides, Mapping)
        for pattern, config in self.overrides.items():
            _check_is("a pattern of overrides", pattern, str)
            _check_is(f"overrides[{pattern!r}]", config, (QuantConfig, type(None)))
        if not callable(self.observer):
            raise TypeError(f"QuantConfig: observer must be callable, got {type(self.observer).__name__}")

    @property
    def static(self):
        return isinstance(self.activations, PerTensor)


def _check_is(name, value, kinds):
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise TypeError(f"QuantConfig: {name} must be {names}, got {type(value).__name__}")


def quantize_model(model, config=QuantConfig(), calibration=None, *, inplace=False, progress=True):
    """A model in int8: its torch.nn.Linear layers are QuantLinear, its convolutions QuantConv2d, and its tables
    QuantEmbedding if the config says so.

    A BatchNorm2d that alone takes a convolution's result is folded into its weight, with the statistics that it has,
    and a ReLU that alone takes a layer's result moves into the layer. Where static layers alone take it, the layer
    gives int8 codes, and no float tensor exists in between. All where a symbolic trace of the model shows it; of a
    model that cannot be traced, in each torch.nn.Sequential, which is taken to be called as one: a model whose code
    picks results from between its members needs an override of None for the layers before.

    Arguments:
        model: any torch.nn.Module. Subclasses of torch's layers are left alone, since their owners may rely on them.
        config: a QuantConfig, dynamic and symmetric by default.
        calibration: for static layers, an iterable of what the model is called with: tensors, tuples of arguments or
            dicts of them by name. The model runs on each in eval mode, without gradients.
        inplace: change `model` itself instead of a copy.
        progress: whether to show a bar over calibration, where there is a terminal and the package tqdm.

    Returns:
        The model. A layer shared under several names stays shared: a pattern that matches one of them decides.
        Hooks on a swapped layer are not carried over. A swapped layer's `weight` is gone: nn.TransformerEncoder is told
        not to take the fused float path that reads it; a model's own code that reads it needs an override of None.

    Raises:
        ValueError for a pattern that matches no layer, for a lack of calibration or one that yields nothing or does not
        reach a static layer, and for a layer itself with inplace; TypeError for what is no config. Whatever a layer's
        conversion raises names the layer. The model is then what it was.

    >>> import torch, quaver
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> quaver.quantize_model(model, quaver.QuantConfig(overrides={"2": None}))
    Sequential(
      (0): QuantLinear(in_features=8, out_features=8, bias=True, symmetric=True, relu=True)
      (1): Identity()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    >>> static = quaver.QuantConfig(activations=quaver.PerTensor(), symmetric=False)
    >>> quaver.quantize_model(model, static, calibration=[torch.randn(64, 8) for _ in range(4)])
    Sequential(
      (0): QuantLinear(in_features=8, out_features=8, bias=True, symmetric=False, relu=True, input=asymmetric,
                       output=asymmetric)
      (1): Identity()
      (2): QuantLinear(in_features=8, out_features=2, bias=True, symmetric=False, input=asymmetric)
    )
    """
    if not isinstance(config, QuantConfig):
        raise TypeError(f"quantize_model: config must be a QuantConfig, got {type(config).__name__}")
    layers = plan_layers(model, config)
    if inplace and model in layers:
        raise ValueError("quantize_model: a layer itself cannot be swapped inplace; use what is returned")
    int8 = int8_modules(model, layers, calibration, progress=progress)
    if inplace:
        _swap(model, int8)
    else:  # a copy in which each of these layers has been copied already, as what it becomes
        model = copy.deepcopy(model, {id(layer): module for layer, module in int8.items()})
    leave_fused_float_path(model)
    return model


def int8_modules(model, layers, calibration, *, progress=False, fuse=True):
    """{module of the model: what takes its place}, for `layers` as planned; nothing of the model changes."""
    inputs = _calibrate(model, layers, calibration, progress)
    names = {layer: plan.names[0] for layer, plan in layers.items()}
    fused = fusions(model, names, inputs) if fuse else {}
    made = {}
    for layer, plan in layers.items():
        moved = fused.get(layer, Fused())
        made |= {module: torch.nn.Identity() for module in (moved.norm, moved.relu) if module is not None}
        with _naming(plan.names[0]):
            if type(layer) is torch.nn.Embedding:
                made[layer] = QuantEmbedding.from_float(layer)
            else:
                made[layer] = _INT8[type(layer)].from_float(
                    layer if moved.norm is None else folded(layer, moved.norm),
                    symmetric=plan.config.symmetric,
                    relu=moved.relu is not None,
                    input=inputs.get(layer),
                    output=moved.output,
                    weights=plan.config.weights,
                )
    return made


# Which layers, and how.

_INT8 = {torch.nn.Linear: QuantLinear, torch.nn.Conv2d: QuantConv2d}


@dataclass
class _Plan:
    names: list  # every name that the layer has
    config: QuantConfig


def plan_layers(model, config):
    """{layer: its plan} of those that become int8."""
    kinds = (*_INT8, torch.nn.Embedding)
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) in kinds:
            names.setdefault(module, []).append(name)
    every_name = sorted(name for its_names in names.values() for name in its_names)
    for pattern in config.overrides:
        if not _any_matches(pattern, every_name):
            raise ValueError(f"quantize_model: the pattern {pattern!r} of overrides matches none of {every_name}")
    plans = {}
    for layer, its_names in names.items():
        its_config = next(
            (override for pattern, override in config.overrides.items() if _any_matches(pattern, its_names)), config
        )
        if its_config is not None and (type(layer) in _INT8 or its_config.embeddings):
            plans[layer] = _Plan(its_names, its_config)
    return plans


def _any_matches(pattern, names):
    return any(fnmatchcase(name, pattern) for name in names)


@contextlib.contextmanager
def _naming(name):
    """Errors inside say which layer they are about."""
    try:
        yield
    except Exception as error:
        words = f"quantize_model: layer {name!r}: {error}"
        raise (type(error) if type(error) in (TypeError, ValueError) else RuntimeError)(words) from error


# Calibration.


def _calibrate(model, layers, calibration, progress):
    """{layer: parameters of its input}, of the static ones."""
    static = {layer: plan for layer, plan in layers.items() if type(layer) in _INT8 and plan.config.static}
    if not static:
        if calibration is not None:
            raise ValueError("quantize_model: calibration is for static layers, and the config has none")
        return {}
    if calibration is None:
        name = next(iter(static.values())).names[0]
        raise ValueError(f"quantize_model: static layers need calibration, such as {name!r}")
    watching = {layer: plan.config.observer(symmetric=plan.config.symmetric) for layer, plan in static.items()}
    hooks = [
        layer.register_forward_pre_hook(_observing(observer, static[layer].names[0]), with_kwargs=True)
        for layer, observer in watching.items()
    ]
    batches = _with_bar(calibration) if progress else calibration
    watch(model, batches, hooks, "quantize_model: calibration yielded no batch")
    inputs = {}
    for layer, observer in watching.items():
        with _naming(static[layer].names[0]):
            inputs[layer] = observer.qparams()
    return inputs


def _observing(observer, name):
    def observe(_, args, kwargs):
        with _naming(name):
            observer.observe(args[0] if args else kwargs["input"])

    return observe


def _with_bar(batches):
    try:
        from tqdm import tqdm
    except ImportError:
        return batches
    return tqdm(batches, desc="calibration", disable=None)  # shown on a terminal alone


# What moves into the layer before it.


@dataclass
class Fused:
    """What moves into a layer."""

    norm: torch.nn.Module | None = None
    relu: torch.nn.Module | None = None
    output: QuantizationParams | None = None  # of the codes that it gives


def fusions(model, layers, inputs):
    """{layer: what moves into it}

    Of `layers`, {layer: one of its names}, with `inputs`, {layer: the parameters of its input}, of the static ones.
    """
    movable = (torch.nn.ReLU, torch.nn.BatchNorm2d)
    if not inputs and not any(type(module) in movable for module in model.modules()):
        return {}
    flow = consumers(model)
    module = dict(model.named_modules(remove_duplicate=False))

    def only_taker(name, kind):
        takers = flow.get(name, ())
        return takers[0] if [type(module[taker]) for taker in takers] == [kind] else None

    fused = {}
    for layer, name in layers.items():
        last, moved = name, Fused()
        norm = only_taker(last, torch.nn.BatchNorm2d) if type(layer) is torch.nn.Conv2d else None
        if norm is not None and module[norm].running_mean is not None:
            last, moved.norm = norm, module[norm]
        relu = only_taker(last, torch.nn.ReLU)
        if relu is not None:
            last, moved.relu = relu, module[relu]
        takers = [module[name] for name in flow.get(last, ())]
        if takers and all(taker in inputs for taker in takers) and agree([inputs[taker] for taker in takers]):
            moved.output = inputs[takers[0]]
        fused[layer] = moved
    return fused


def folded(conv, norm):
    """A convolution that does what a normalization after it does, too."""
    both = copy.copy(conv)
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    both._parameters = {"weight": weight, "bias": bias}
    return both


def agree(params):
    """Whether layers that take one tensor quantize it alike."""
    first, *others = params
    return all(
        (each.q_min, each.q_max, each.symmetric) == (first.q_min, first.q_max, first.symmetric)
        and torch.equal(each.scale, first.scale)
        and torch.equal(each.zero_point, first.zero_point)
        for each in others
    )


# The swap.


def _swap(model, made):
    for owner in list(model.modules()):
        for name, module in list(owner._modules.items()):
            if module in made:
                setattr(owner, name, made[module])


def leave_fused_float_path(model):
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
