"""The recipes that are compared: each makes an int8 model of a task's float one."""

import copy
from dataclasses import replace
from functools import cache, partial

import torch

import quaver
from quaver import PerTensor, QuantConfig, observers, recipes

OBSERVERS = {
    "extremes": observers.MinMax,
    "moving average": observers.MovingAverage,
    "99.99th percentile": partial(observers.Percentile, high=99.99),
    "squared error": observers.MSE,
    "entropy": observers.Entropy,
}
BUDGETS = {"a tenth": 0.1, "a quarter": 0.25}  # of the weights, whose layers may fall back
STATIC = QuantConfig(activations=PerTensor(), symmetric=False)


def int8(task, config, model=None):
    """quantize_model, with a task's overrides and calibration."""
    config = replace(config, overrides={**task.overrides, **config.overrides})
    calibration = task.calibration if config.static else None
    return quaver.quantize_model(task.model if model is None else model, config, calibration, progress=False)


def weights_only(task):
    """Float activations; weights are what their codes stand for."""
    model = copy.deepcopy(task.model)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if type(layer) in (torch.nn.Linear, torch.nn.Conv2d) and name not in task.overrides:
                q, params = quaver.dynamic_quantize(layer.weight.detach(), quaver.PerChannel(0))
                layer.weight.copy_(quaver.dequantize(q, params))
    return model


@cache
def smooth(task, alpha):
    """SmoothQuant's float model."""
    return recipes.smooth_quant(task.model, task.calibration, alpha=alpha, pairs=task.pairs, config=STATIC)


def corrected(task, config):
    made = int8(task, config)
    return recipes.correct_bias(task.model, made, task.calibration)


@cache
def ranking(task, observer, smoothed):
    """What each layer alone does to the result; budgets share it."""
    model = smooth(task, "search") if smoothed else task.model
    return quaver.sensitivity(model, falling(task, observer), task.calibration, task.calibration[:1])


def falling(task, observer):
    """The config of a model whose layers may fall back."""
    return replace(STATIC, observer=OBSERVERS[observer], overrides=task.overrides)


def falling_back(task, observer, budget, smoothed=False):
    model = smooth(task, "search") if smoothed else task.model
    found = ranking(task, observer, smoothed)
    return recipes.fall_back(model, falling(task, observer), task.calibration, budget=budget, ranking=found)


def ways(task):
    """{name: a function that makes the model}"""
    found = {
        "weights only": partial(weights_only, task),
        "dynamic, symmetric": partial(int8, task, QuantConfig()),
        "dynamic, asymmetric": partial(int8, task, QuantConfig(symmetric=False)),
        "static, symmetric, extremes": partial(int8, task, replace(STATIC, symmetric=True)),
    }
    for name, observer in OBSERVERS.items():
        found[f"static, {name}"] = partial(int8, task, replace(STATIC, observer=observer))
    if task.pairs is not None:
        found["static, SmoothQuant 0.5"] = lambda: int8(task, STATIC, smooth(task, 0.5))
        found["static, SmoothQuant searched"] = lambda: int8(task, STATIC, smooth(task, "search"))
    else:
        found["static, equalized"] = lambda: int8(task, STATIC, recipes.equalize(task.model))
    found["static, clipped weights"] = lambda: int8(task, STATIC, recipes.clip_weights(task.model))
    found["static, corrected bias"] = partial(corrected, task, STATIC)
    for words, budget in BUDGETS.items():
        for observer in ("extremes", "squared error"):
            found[f"static, {observer}, {words} dynamic"] = partial(falling_back, task, observer, budget)
        if task.pairs is not None:
            found[f"static, SmoothQuant, {words} dynamic"] = partial(falling_back, task, "extremes", budget, True)
    return found
