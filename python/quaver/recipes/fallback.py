"""The layers that suffer the most stay dynamic, or float, as many as a budget allows."""

import glob
from dataclasses import replace

import torch

from quaver.compare import OUTPUT, Comparison, sensitivity
from quaver.model import plan_layers, quantize_model
from quaver.qparams import PerToken


def fall_back(model, config, calibration, *, budget=0.1, to="dynamic", batches=None, ranking=None):
    """An int8 model in which the layers that change its result the most have fallen back, as many as a budget allows.

    `sensitivity` measures what each layer alone does to the model's result. From the worst on, layers fall back as long
    as their weights are at most `budget` of the weights of all layers.

    Arguments:
        model, config, calibration: those of quantize_model.
        budget: the share of the weights, in numbers of elements, that may fall back.
        to: "dynamic": their activations are quantized row by row with what they hold, as QuantConfig(activations=
            PerToken()) has it; or "float": they stay as they are.
        batches: what the sensitivity is measured on, by default the calibration's.
        ranking: what `sensitivity` has found for this model, config and calibration, to try several budgets with it;
            by default it is measured here.

    Returns:
        A copy of the model. Its attribute `fallen_back` names the layers, the worst first.

    Raises:
        ValueError for a budget or a fall-back that make no sense and for a ranking of other layers, and what
        quantize_model and sensitivity raise.

    Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation",
    section 5.2, partial quantization.

    >>> import torch, quaver
    >>> from quaver.recipes import fall_back
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(*(torch.nn.Linear(32, 32) for _ in range(4)))
    >>> static = quaver.QuantConfig(activations=quaver.PerTensor())
    >>> mixed = fall_back(model, static, [torch.randn(50, 32)], budget=0.25)
    >>> len(mixed.fallen_back)
    1
    """
    if not 0 <= budget <= 1:
        raise ValueError(f"fall_back: budget must be from 0 to 1, got {budget!r}")
    if to not in ("dynamic", "float"):
        raise ValueError(f"fall_back: to must be 'dynamic' or 'float', got {to!r}")
    calibration = None if calibration is None else list(calibration)
    plans = {plan.names[0]: (layer, plan) for layer, plan in plan_layers(model, config).items()}
    if not isinstance(ranking, Comparison | None):
        raise TypeError(f"fall_back: ranking must be a Comparison, got {type(ranking).__name__}")
    if ranking is None:
        ranking = sensitivity(model, config, calibration, batches)
    worst_first = sorted((row for row in ranking.rows if row["name"] != OUTPUT), key=lambda row: row["sqnr_db"])
    unlike = {row["name"] for row in worst_first} ^ plans.keys()
    if unlike:
        raise ValueError(
            "fall_back: ranking must be what sensitivity found for the layers of this model and config, and only one of"
            f" them has {min(unlike)!r}"
        )
    left = budget * sum(layer.weight.numel() for layer, _ in plans.values())
    overrides = {}
    for row in worst_first:
        layer, plan = plans[row["name"]]
        if type(layer) is torch.nn.Embedding or (to == "dynamic" and not plan.config.static):
            continue
        if layer.weight.numel() > left:
            break
        left -= layer.weight.numel()
        overrides[row["name"]] = None if to == "float" else replace(plan.config, activations=PerToken(), overrides={})
    patterns = {glob.escape(name): override for name, override in overrides.items()}  # a name is no pattern
    others = {pattern: override for pattern, override in config.overrides.items() if pattern not in patterns}
    mixed = replace(config, overrides=patterns | others)
    any_static = any(plan.config.static for plan in plan_layers(model, mixed).values())
    made = quantize_model(model, mixed, calibration if any_static else None, progress=False)
    made.fallen_back = list(overrides)
    return made
