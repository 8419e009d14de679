"""Weights without their farthest ends, where that makes the rest of them more exact."""

import copy

import torch

from quaver import ops
from quaver.recipes.parameters import give

LAYERS = (torch.nn.Linear, torch.nn.Conv2d)


def clip_weights(model, *, steps=100, least=0.5):
    """A float model whose weights are cut, output by output, where their int8 codes then have the least squared error.

    Of each output's weights w the bound c, among `steps` shares of max|w| from `least` to 1, and max|w|, is taken for
    which the sum of (w - int8(clamp(w, -c, c)))^2 is least. What `quantize_model` then finds as a range is c.

    Arguments:
        model: a float model; its torch.nn.Linear and torch.nn.Conv2d layers are cut. A copy is returned.
        steps: how many bounds are tried, an int.
        least: the smallest of them, as a share of max|w|.

    Returns:
        A copy of the model. Its results differ: by what was cut.

    Raises:
        ValueError for steps or a share that make no sense.

    Source: Sung et al. 2015, "Resiliency of Deep Neural Networks under Quantization", and Banner et al. 2019, "Post
    training 4-bit quantization of convolutional networks for rapid-deployment": clipping by the mean squared error.

    >>> import torch, quaver
    >>> from quaver.recipes import clip_weights
    >>> layer = torch.nn.Linear(4096, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.linspace(-1, 1, 4096))
    ...     layer.weight[0, 0] = 1.1  # a single one beyond the others
    >>> bool(clip_weights(layer).weight.max() < 1.1)
    True
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"clip_weights: steps must be an int of 1 or more, got {steps!r}")
    if not 0 < least <= 1:
        raise ValueError(f"clip_weights: least must be above 0 and at most 1, got {least!r}")
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer in model.modules():
            if type(layer) in LAYERS and layer.weight.numel():
                give(layer, "weight", _clipped(layer.weight, [*torch.linspace(least, 1, steps).tolist(), 1.0]))
    return model


def _clipped(weight, shares):
    rows = weight.detach().flatten(1).to(torch.float32)
    largest = rows.abs().amax(1, keepdim=True)
    best, bound = torch.full_like(largest, torch.inf), largest
    for share in shares:
        cut = rows.clamp(-share * largest, share * largest)
        q, params = ops.dynamic_quantize(cut)
        error = (ops.dequantize(q, params) - rows).square().sum(1, keepdim=True)
        better = error <= best  # of equal ones the widest
        best, bound = torch.where(better, error, best), torch.where(better, share * largest, bound)
    return rows.clamp(-bound, bound).reshape(weight.shape)
