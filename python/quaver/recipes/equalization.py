"""Cross-layer equalization: two layers share out the ranges of the channels between them."""

import copy

import torch

from quaver.graph import consumers, traced_consumers
from quaver.model import folded
from quaver.recipes.parameters import give

SMALLEST = 1e-8


def equalize(model, *, rounds=20):
    """A float model of convolutions that does the same with weights whose channels have equal ranges.

    Where a convolution or linear layer alone takes another's result, through a ReLU or nothing, channel i of the first
    is divided by s[i] and the second's weights for that channel multiplied by it, which a ReLU lets pass:

        s[i] = sqrt(r1[i] / r2[i]),   r1, r2 the largest weights of channel i in the first and in the second

    Pairs of a chain are gone through in turn, `rounds` times. Weights with one scale for the whole tensor gain the
    most; activations gain from channels that are as large as each other.

    Arguments:
        model: a float model that torch.fx can trace. Normalizations after convolutions are folded into them first, with
            the statistics that they have. A copy is returned.
        rounds: how often all pairs are gone through.

    Returns:
        A copy of the model, in eval mode, whose results are the same but for roundings.

    Raises:
        ValueError for rounds below 1, and for a model that cannot be traced.

    A ReLU6 or another activation that does not let factors pass ends a chain.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.

    >>> import torch, quaver
    >>> from quaver.recipes import equalize
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval()
    >>> with torch.no_grad():
    ...     model[0].weight[2] *= 100
    >>> x, same = torch.randn(2, 3, 9, 9), equalize(model)
    >>> torch.allclose(same(x), model(x), rtol=1e-4, atol=1e-4)
    True
    >>> bool(same[0].weight.abs().max() < model[0].weight.abs().max() / 3)
    True
    """
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise ValueError(f"equalize: rounds must be an int of 1 or more, got {rounds!r}")
    model = copy.deepcopy(model).eval()
    if traced_consumers(model) is None:
        raise ValueError("equalize: the model cannot be traced")
    with torch.no_grad():
        fold_norms(model)
        pairs = _pairs(model)
        for _ in range(rounds):
            for first, second in pairs:
                _share_out(first, second)
    return model


def fold_norms(model):
    """Folds each BatchNorm2d that alone takes a convolution's result into it, in place; an Identity stays there."""
    module = dict(model.named_modules())
    for name, takers in consumers(model).items():
        norm = module[takers[0]]
        foldable = len(takers) == 1 and type(norm) is torch.nn.BatchNorm2d and norm.running_mean is not None
        if foldable and type(module[name]) is torch.nn.Conv2d:
            model.set_submodule(name, folded(module[name], norm))
            model.set_submodule(takers[0], torch.nn.Identity())


def _pairs(model):
    """[(layer, the layer that alone takes its result)], through identities and at most one ReLU."""
    module, flow = dict(model.named_modules()), consumers(model)
    pairs = []
    for name, layer in module.items():
        if type(layer) not in (torch.nn.Conv2d, torch.nn.Linear):
            continue
        last = name
        while len(flow.get(last, ())) == 1:
            (last,) = flow[last]
            if type(module[last]) not in (torch.nn.ReLU, torch.nn.Identity):
                break
        if last != name and _fits(layer, module[last]):
            pairs.append((layer, module[last]))
    return pairs


def _fits(first, second):
    if type(first) is not type(second):
        return False
    if type(first) is torch.nn.Linear:
        return second.in_features == first.out_features
    return second.in_channels == first.out_channels and second.groups in (1, second.in_channels)


def _share_out(first, second):
    """s of each channel between the two moves from the first to the second."""
    of_first = first.weight.flatten(1).abs().amax(1).to(torch.float32)
    depthwise = type(second) is torch.nn.Conv2d and second.groups > 1
    by_channel = second.weight if depthwise else second.weight.transpose(0, 1)
    of_second = by_channel.reshape(len(of_first), -1).abs().amax(1).to(torch.float32)
    usable = (of_first > SMALLEST) & (of_second > SMALLEST)
    factor = torch.where(usable, of_first.sqrt() / of_second.clamp(min=SMALLEST).sqrt(), 1.0)
    give(first, "weight", first.weight / factor.reshape(-1, *[1] * (first.weight.dim() - 1)))
    if first.bias is not None:
        give(first, "bias", first.bias / factor)
    if depthwise:
        of_outputs = factor.repeat_interleave(second.out_channels // second.in_channels).reshape(-1, 1, 1, 1)
    else:
        of_outputs = factor.reshape(1, -1, *[1] * (second.weight.dim() - 2))
    give(second, "weight", second.weight * of_outputs)
