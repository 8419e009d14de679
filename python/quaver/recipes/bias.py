"""Bias correction: what quantization adds to a layer's result on average is taken off its bias."""

import copy

import torch

from quaver.graph import consumers
from quaver.nn import QuantConv2d, QuantLinear
from quaver.running import watch


def correct_bias(float_model, int8_model, batches):
    """An int8 model whose layers give, on average over data, what the float model's layers give, channel by channel.

    Each int8 layer is called with what the float layer takes. The mean difference of the two results, for each output
    channel, goes into the bias: bias += mean(float result - int8 result).

    Arguments:
        float_model, int8_model: a model and what quantize_model made of it. A copy of the latter is returned.
        batches: an iterable of what they are called with: tensors, tuples of arguments or dicts of them by name.

    Returns:
        A copy of the int8 model. Layers without a bias get one.

    Raises:
        ValueError for no batches, and for an int8 model that is not of that float model.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2,
    with data.

    >>> import torch, quaver
    >>> from quaver.recipes import correct_bias
    >>> _ = torch.manual_seed(0)
    >>> layer, x = torch.nn.Sequential(torch.nn.Linear(64, 8)), torch.rand(1000, 64)
    >>> int8 = quaver.quantize_model(layer, quaver.QuantConfig(weights=quaver.PerTensor()))
    >>> corrected = correct_bias(layer, int8, [x])
    >>> def off(model):
    ...     return (model(x) - layer(x)).mean(0).abs().max().item()
    >>> off(corrected) < off(int8) / 10
    True
    """
    int8_model = copy.deepcopy(int8_model)
    pairs = _pairs(float_model, int8_model)
    looks, hooks = {}, []
    for int8, chain in pairs:
        look = looks[int8] = _Look(int8)
        hooks.append(chain[0].register_forward_pre_hook(look.take, with_kwargs=True))
        hooks.append(chain[-1].register_forward_hook(look.compare))
    watch(float_model, batches, hooks, "correct_bias: batches yielded none")
    for int8, look in looks.items():
        if look.count is not None:  # it was called
            _add_to_bias(int8, look.total / look.count.clamp(min=1))
    return int8_model


def _pairs(float_model, int8_model):
    """[(int8 layer, the float modules that it stands for)]: the layer, and what has moved into it, up to a ReLU.

    A layer that ends with a ReLU is compared before it: what a ReLU cuts off says nothing of the bias.
    """
    flow = consumers(float_model)
    floats, int8s = dict(float_model.named_modules()), dict(int8_model.named_modules())
    pairs = []
    for name, layer in int8s.items():
        if not isinstance(layer, QuantLinear | QuantConv2d):
            continue
        if name not in floats:
            raise ValueError(f"correct_bias: float_model has no layer {name!r}")
        chain, last = [floats[name]], name
        while len(flow.get(last, ())) == 1:
            (last,) = flow[last]
            if type(int8s.get(last)) is not torch.nn.Identity or not isinstance(floats[last], torch.nn.BatchNorm2d):
                break
            chain.append(floats[last])
        pairs.append((layer, chain))
    return pairs


class _Look:
    """Sums up how an int8 layer's results differ from those of the float modules that it stands for."""

    def __init__(self, int8):
        self.linear = _without_end(int8)
        self.total, self.count = 0.0, None

    def take(self, _, args, kwargs):
        self.input = args[0] if args else kwargs["input"]

    def compare(self, module, args, result):
        made = self.linear(self.input)
        difference = (result.to(torch.float64) - made.to(torch.float64)).movedim(self.linear.channels_at, -1)
        rows = difference.reshape(-1, difference.shape[-1])
        finite = rows.isfinite()
        self.total = self.total + torch.where(finite, rows, 0).sum(0)
        self.count = finite.sum(0) + (0 if self.count is None else self.count)


def _without_end(layer):
    """The layer as it is before a ReLU and before its result becomes codes."""
    bare = copy.copy(layer)
    bare._buffers, bare._ranges = dict(layer._buffers), dict(layer._ranges)
    bare.relu = False
    bare._ranges.pop("output", None)
    bare.channels_at = -1 if isinstance(layer, QuantLinear) else -3
    return bare


def _add_to_bias(layer, mean):
    bias = layer.bias.to(torch.float64) if layer.bias is not None else 0.0
    layer.bias = (bias + mean).to(torch.float32)
