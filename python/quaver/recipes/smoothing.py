"""SmoothQuant: what is hard to quantize moves from activations into weights."""

import copy
from fnmatch import fnmatchcase

import torch

from quaver import ops
from quaver.graph import traced_consumers
from quaver.model import QuantConfig
from quaver.recipes.parameters import give
from quaver.running import watch

STRENGTHS = tuple(step / 20 for step in range(1, 20))
SAMPLE = 512  # rows of a layer's input that a search looks at
SMALLEST = 1e-5
MAKERS = (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.RMSNorm)  # that a trace is searched for
NEAR = 1e-2


def smooth_quant(model, calibration, *, alpha=0.5, pairs=None, config=QuantConfig()):
    """A float model that does the same with activations that are easier to quantize, by SmoothQuant.

    The inputs of linear layers, channel by channel, are divided by s and the layers' weights multiplied by it:

        s[k] = max|x[:, k]|^alpha / max|weight[:, k]|^(1 - alpha)

    The division costs nothing: it moves into what made those inputs, a norm's weight and bias or a linear layer's.

    Arguments:
        model: a float model. A copy is returned.
        calibration: an iterable of what it is called with: tensors, tuples of arguments or dicts of them by name.
        alpha: from 0, which makes weights easy to quantize, to 1, which makes activations so; or "search": for each
            input the one of 19 between them with which its layers, in int8 by `config`, are nearest to what they were.
        pairs: {what makes an input: the linear layers that take it and nothing else does}, by names or patterns in
            which one * stands for the same text on both sides: {"*.norm": ["*.query", "*.key"]}. The maker is a norm,
            or a linear layer; between it and its takers there may be what passes factors of channels on, such as
            attention's sums over rows, or a product with other numbers. By default the pairs of linear layers,
            LayerNorm and RMSNorm that a symbolic trace shows.
        config: a QuantConfig, for the search.

    Returns:
        A copy of the model, whose results are the same but for roundings.

    Raises:
        ValueError for an alpha out of range, for pairs whose layers are not there, do not fit or come twice, for no
        pairs of a model that cannot be traced, and for a calibration that yields nothing or does not reach a layer of
        pairs.

    Source: Xiao et al. 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
    Models".

    >>> import torch, quaver
    >>> from quaver.recipes import smooth_quant
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.LayerNorm(16), torch.nn.Linear(16, 4))
    >>> with torch.no_grad():
    ...     model[0].weight[3] = 100  # a channel of large numbers
    >>> x = torch.randn(64, 16)
    >>> smooth = smooth_quant(model, [x])
    >>> torch.allclose(smooth(x), model(x), atol=1e-4)
    True
    >>> @torch.no_grad()
    ... def error(model):
    ...     return (quaver.quantize_model(model)(x) - model(x)).square().mean().sqrt().item()
    >>> error(smooth) < error(model) / 3
    True
    """
    if alpha != "search" and not (isinstance(alpha, int | float) and 0 <= alpha <= 1):
        raise ValueError(f"smooth_quant: alpha must be from 0 to 1, or 'search', got {alpha!r}")
    model = copy.deepcopy(model)
    groups = _traced(model) if pairs is None else _named(model, pairs)
    seen = _inputs(model, groups, calibration, named=pairs is not None)
    with torch.no_grad():
        for maker, takers in groups.items():
            if takers[0] not in seen:
                continue
            largest, sample = seen[takers[0]]
            weights = [taker.weight for taker in takers]
            candidates = STRENGTHS if alpha == "search" else (alpha,)
            factors = [_factors(largest, weights, strength) for strength in candidates]
            if len(factors) > 1:
                factors.sort(key=lambda factor: _error(factor, sample, weights, config))
            _move(factors[0], maker, takers, seen.get(maker))
    return model


def _factors(largest, weights, alpha):
    of_weight = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0).to(torch.float32)
    factor = largest.clamp(min=SMALLEST) ** alpha / of_weight.clamp(min=SMALLEST) ** (1 - alpha)
    return torch.where((largest > 0) & (of_weight > 0), factor, 1.0).clamp(min=SMALLEST)


def _error(factor, sample, weights, config):
    """How far the int8 products are from the float ones."""
    x = sample / factor
    x = ops.dequantize(*_quantized(x, config.activations, config.symmetric))
    total = 0.0
    for weight in weights:
        wide = weight.to(torch.float32)
        coded = ops.dequantize(*_quantized(wide * factor, config.weights, True))
        total += (x @ coded.t() - sample @ wide.t()).square().sum().item()
    return total


def _quantized(x, granularity, symmetric):
    q, params = ops.dynamic_quantize(x, granularity, symmetric=symmetric)
    return q, params.scale, params.zero_point


def _move(factor, maker, takers, example):
    before = None if example is None else maker(example).to(torch.float32)
    for name in ("weight", "bias"):
        held = getattr(maker, name, None)
        if held is not None:
            give(maker, name, held.to(torch.float32) / (factor[:, None] if held.dim() == 2 else factor))
    if before is not None:
        apart = (maker(example).to(torch.float32) * factor - before).abs().amax()
        if not apart <= NEAR * before.abs().amax():
            kind = type(maker).__name__
            raise ValueError(
                f"smooth_quant: a maker's weight must multiply the channels that it gives, and {kind}'s does not"
            )
    for taker in takers:
        give(taker, "weight", taker.weight.to(torch.float32) * factor)


# Who makes whose input.


def _makes_channels(module, size):
    """Whether its weight and bias multiply and shift the channels of its result, `size` of them."""
    if type(module) is torch.nn.Linear:
        return module.out_features == size
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    return all(
        isinstance(each, torch.Tensor) and each.shape == (size,)
        for each in (weight, bias if bias is not None else weight)
    )


def _traced(model):
    module, flow = dict(model.named_modules()), traced_consumers(model)
    if flow is None:
        raise ValueError("smooth_quant: the model cannot be traced: say in pairs which layers take what a norm gives")
    groups = {}
    for name, taken_by in flow.items():
        takers = [module[each] for each in taken_by]
        all_linear = all(type(each) is torch.nn.Linear for each in takers)
        if type(module[name]) in MAKERS and all_linear and _makes_channels(module[name], takers[0].in_features):
            groups[module[name]] = takers
    return groups


def _named(model, pairs):
    module = dict(model.named_modules())
    groups, taken = {}, set()
    for pattern, taken_by in pairs.items():
        if pattern.count("*") > 1 or set(pattern) & set("?["):
            raise ValueError(f"smooth_quant: a pattern of pairs may have one * and nothing else, got {pattern!r}")
        makers = [name for name in module if fnmatchcase(name, pattern)]
        if not makers:
            raise ValueError(f"smooth_quant: the pattern {pattern!r} of pairs matches no module")
        for name in makers:
            star = _text_of_star(pattern, name)
            takers = [_linear(module, taker.replace("*", star)) for taker in taken_by]
            if module[name] in groups or taken & set(takers) or len(set(takers)) < len(takers):
                raise ValueError(f"smooth_quant: {name!r} or one of its takers comes twice in pairs")
            taken |= set(takers)
            sizes = {taker.in_features for taker in takers}
            if len(sizes) != 1 or not _makes_channels(module[name], *sizes):
                raise ValueError(f"smooth_quant: {name!r} must make channels that each of {list(taken_by)} takes")
            groups[module[name]] = takers
    return groups


def _text_of_star(pattern, name):
    before, _, after = pattern.partition("*")
    return name[len(before) : len(name) - len(after)]


def _linear(module, name):
    if type(module.get(name)) is not torch.nn.Linear:
        raise ValueError(
            f"smooth_quant: {name!r} of pairs must be a torch.nn.Linear, got {type(module.get(name)).__name__}"
        )
    return module[name]


# What the layers take.


def _inputs(model, groups, calibration, named):
    """{the first taker of each group: (the largest numbers of each channel, some rows), each maker: what it took}"""
    seen = {}

    def keep(maker, args):
        if args and isinstance(args[0], torch.Tensor) and maker not in seen:
            seen[maker] = args[0].detach()[:1]

    def look(layer, args, kwargs):
        x = (args[0] if args else kwargs["input"]).detach()
        rows = torch.nan_to_num(x.reshape(-1, x.shape[-1]).to(torch.float32), 0.0, 0.0, 0.0)
        largest, sample = seen.get(layer, (rows.new_zeros(rows.shape[1]), rows[:0]))
        if len(rows):
            largest = torch.maximum(largest, rows.abs().amax(0))
            sample = torch.cat([sample, rows[: SAMPLE - len(sample)]])
        seen[layer] = (largest, sample)

    firsts = [takers[0] for takers in groups.values()]
    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in firsts]
    hooks += [maker.register_forward_pre_hook(keep) for maker in groups]
    watch(model, calibration, hooks, "smooth_quant: calibration yielded no batch")
    if named and any(layer not in seen for layer in firsts):
        raise ValueError("smooth_quant: calibration does not reach every layer of pairs")
    return seen
