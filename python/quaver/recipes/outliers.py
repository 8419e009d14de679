"""Outlier channels stay in float: LLM.int8's two products."""

import copy

import torch

from quaver.model import QuantConfig, leave_fused_float_path, plan_layers
from quaver.nn import QuantLinear
from quaver.running import watch


class OutlierLinear(torch.nn.Module):
    """A linear layer whose input has a few channels of large numbers: those stay float, all others become int8.

    y = int8_linear(x without those channels) + x[..., channels] @ weight[:, channels].T, in this order, in x's dtype

    Its state is that of the QuantLinear `rest`, whose weights are 0 for those channels, `channels` int64 [C] and
    `weight`, float [N, C].
    """

    def __init__(self, rest, channels, weight):
        super().__init__()
        self.rest = rest
        self.register_buffer("channels", channels)
        self.register_buffer("weight", weight)

    @classmethod
    @torch.no_grad()
    def from_float(cls, linear, channels, **options):
        """For a torch.nn.Linear, which stays as it is; `options` are QuantLinear.from_float's."""
        weight = linear.weight.detach()
        others = copy.deepcopy(linear)
        others.weight[:, channels] = 0
        made = cls(QuantLinear.from_float(others, **options), channels, weight[:, channels].clone())
        return made.train(linear.training)

    def forward(self, input):
        few = input.index_select(-1, self.channels)
        others = input.index_fill(-1, self.channels, 0)
        return self.rest(others) + torch.nn.functional.linear(few, self.weight.to(input.dtype))

    def extra_repr(self):
        return f"channels in float: {len(self.channels)}"


def keep_outliers(model, calibration, *, threshold=6.0, most=0.1, config=QuantConfig()):
    """An int8 model whose linear layers keep the channels in float in which data has large numbers.

    Arguments:
        model: a float model. A copy is returned.
        calibration: an iterable of what it is called with: tensors, tuples of arguments or dicts of them by name.
        threshold: a channel stays float where a number of the calibration's is larger than this, of either sign.
        most: the largest share of a layer's channels that may: of more, those with the largest numbers.
        config: a QuantConfig with dynamic activations, for what becomes int8; its overrides say which layers do.

    Returns:
        A copy of the model with OutlierLinear layers, and QuantLinear ones where no channel is an outlier. Other layers
        than linear ones stay float. `quaver.load` makes such a model only of one that keep_outliers has made.

    Raises:
        ValueError for a threshold or a share that make no sense, a config that is static, and a calibration that yields
        nothing.

    Source: Dettmers et al. 2022, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale". There the
    channels are found anew in each batch; here they are fixed, so that nothing waits for the device.

    >>> import torch, quaver
    >>> from quaver.recipes import keep_outliers
    >>> _ = torch.manual_seed(0)
    >>> model, x = torch.nn.Sequential(torch.nn.Linear(64, 8)), torch.randn(100, 64)
    >>> x[:, 5] *= 100
    >>> mixed = keep_outliers(model, [x])
    >>> mixed[0].channels
    tensor([5])
    >>> def error(int8):
    ...     return (int8(x) - model(x)).square().mean().sqrt().item()
    >>> error(mixed) < error(quaver.quantize_model(model)) / 5
    True
    """
    if not threshold > 0:
        raise ValueError(f"keep_outliers: threshold must be positive, got {threshold!r}")
    if not 0 <= most <= 1:
        raise ValueError(f"keep_outliers: most must be from 0 to 1, got {most!r}")
    plans = {layer: plan for layer, plan in plan_layers(model, config).items() if type(layer) is torch.nn.Linear}
    if any(plan.config.static for plan in plans.values()):
        raise ValueError("keep_outliers: the config must have dynamic activations")
    largest = _largest(model, plans, calibration)
    made = {}
    for layer, plan in plans.items():
        options = {"symmetric": plan.config.symmetric, "weights": plan.config.weights}
        channels = _outliers(largest.get(layer), threshold, most)
        made[layer] = (
            OutlierLinear.from_float(layer, channels, **options)
            if channels is not None and len(channels)
            else QuantLinear.from_float(layer, **options)
        )
    copied = copy.deepcopy(model, {id(layer): module for layer, module in made.items()})
    leave_fused_float_path(copied)
    return copied


def _outliers(largest, threshold, most):
    if largest is None:
        return None
    above = (largest > threshold).nonzero().flatten()
    allowed = int(most * len(largest))
    if len(above) <= allowed:
        return above
    return largest.topk(allowed).indices.sort().values


def _largest(model, layers, calibration):
    """{layer: the largest number, of either sign, of each channel that it takes}"""
    found = {}

    def look(layer, args, kwargs):
        x = (args[0] if args else kwargs["input"]).detach()
        rows = x.reshape(-1, x.shape[-1]).to(torch.float32).abs()
        if len(rows):
            before = found.get(layer, rows.new_zeros(rows.shape[1]))
            found[layer] = torch.maximum(before, torch.nan_to_num(rows, 0.0).amax(0))

    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    watch(model, calibration, hooks, "keep_outliers: calibration yielded no batch")
    return found
