"""SmoothQuant: what is hard to quantize moves from activations into weights."""

import contextlib
import copy
from fnmatch import fnmatchcase

import torch

from quaver import ops
from quaver.graph import consumers, in_eval_mode
from quaver.model import QuantConfig, call_with

STRENGTHS = tuple(step / 20 for step in range(1, 20))
SAMPLE = 512  # rows of a layer's input that a search looks at
SMALLEST = 1e-5


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
            which * stands for the same text on both sides: {"*.norm": ["*.query", "*.key"]}. The maker is a norm, or a
            linear layer; between it and its takers there may be what passes factors of channels on, such as attention's
            sums over rows, or a product with other numbers. By default those pairs that a symbolic trace shows.
        config: a QuantConfig, for the search.

    Returns:
        A copy of the model, whose results are the same but for roundings.

    Raises:
        ValueError for an alpha out of range, for pairs whose layers are not there or do not fit, and for a calibration
        that yields nothing or reaches none of the layers.

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
    if alpha != "search" and not 0 <= alpha <= 1:
        raise ValueError(f"smooth_quant: alpha must be from 0 to 1, or 'search', got {alpha!r}")
    model = copy.deepcopy(model)
    groups = _traced(model) if pairs is None else _named(model, pairs)
    seen = _inputs(model, groups, calibration)
    with torch.no_grad():
        for maker, takers in groups.items():
            largest, sample = seen[takers[0]]
            weights = [taker.weight for taker in takers]
            candidates = STRENGTHS if alpha == "search" else (alpha,)
            factors = [_factors(largest, weights, strength) for strength in candidates]
            if len(factors) > 1:
                factors.sort(key=lambda factor: _error(factor, sample, weights, config))
            _move(factors[0], maker, takers)
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


def _move(factor, maker, takers):
    for name in ("weight", "bias"):
        held = getattr(maker, name, None)
        if held is not None:
            divided = held.to(torch.float32) / (factor[:, None] if held.dim() == 2 else factor)
            held.copy_(divided.to(held.dtype))
    for taker in takers:
        taker.weight.copy_((taker.weight.to(torch.float32) * factor).to(taker.weight.dtype))


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
    module = dict(model.named_modules())
    groups = {}
    for name, taken_by in consumers(model).items():
        takers = [module[each] for each in taken_by]
        if all(type(each) is torch.nn.Linear for each in takers) and _makes_channels(
            module[name], takers[0].in_features
        ):
            groups[module[name]] = takers
    return groups


def _named(model, pairs):
    module = dict(model.named_modules())
    groups = {}
    for pattern, taken_by in pairs.items():
        makers = [name for name in module if fnmatchcase(name, pattern)]
        if not makers:
            raise ValueError(f"smooth_quant: the pattern {pattern!r} of pairs matches no module")
        for name in makers:
            star = _text_of_star(pattern, name)
            takers = [_linear(module, taker.replace("*", star)) for taker in taken_by]
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


def _inputs(model, groups, calibration):
    """{the first taker of each group: (the largest numbers of each channel, some rows)}"""
    seen = {}

    def look(layer, args, kwargs):
        x = (args[0] if args else kwargs["input"]).detach()
        rows = x.reshape(-1, x.shape[-1]).to(torch.float32)
        largest, sample = seen.get(layer, (rows.new_zeros(rows.shape[1]), rows[:0]))
        if len(rows):
            largest = torch.maximum(largest, torch.nan_to_num(rows.abs(), 0.0, 0.0).amax(0))
            sample = torch.cat([sample, rows[: SAMPLE - len(sample)]])
        seen[layer] = (largest, sample)

    firsts = [takers[0] for takers in groups.values()]
    with contextlib.ExitStack() as stack:
        for layer in firsts:
            stack.callback(layer.register_forward_pre_hook(look, with_kwargs=True).remove)
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(torch.no_grad())
        batches = 0
        for batch in calibration:
            call_with(model, batch)
            batches += 1
    if batches == 0:
        raise ValueError("smooth_quant: calibration yielded no batch")
    if any(layer not in seen for layer in firsts):
        raise ValueError("smooth_quant: calibration reaches not every layer of pairs")
    return seen
