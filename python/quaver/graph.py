"""Who takes whose result in a model: what decides where a ReLU or a quantization may move into the layer before it."""

import contextlib
from collections import Counter
from itertools import pairwise

import torch
from torch import fx

from quaver.nn.module import Int8Module


def consumers(model):
    """{name of a module: names of the modules that take its result}, of those whose result goes nowhere else.

    All of them are called once in a forward pass. Found by tracing the model, in eval mode; where it cannot be traced,
    in each of its torch.nn.Sequential, whose members follow each other.
    """
    with in_eval_mode(model):
        graph = _trace(model)
    found = _in_sequentials(model) if graph is None else _in_graph(graph)
    names = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    module = dict(model.named_modules(remove_duplicate=False))
    return {name: takers for name, takers in found.items() if all(names[module[each]] == 1 for each in (name, *takers))}


@contextlib.contextmanager
def in_eval_mode(model):
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _trace(model):
    """What a symbolic trace shows. None where a model's own code does not take symbols, whatever it raises then."""
    try:
        return _Tracer().trace(model)
    except Exception:
        return None


class _Tracer(fx.Tracer):
    """One for which int8 layers are layers, as torch's are."""

    def is_leaf_module(self, m, module_qualified_name):
        return isinstance(m, Int8Module) or super().is_leaf_module(m, module_qualified_name)


def _in_graph(graph):
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found = {}
    for node in graph.nodes:
        takers = [user.target for user in node.users if user.op == "call_module"]
        if node.op != "call_module" or not takers or len(takers) < len(node.users):
            continue
        if all(calls[name] == 1 for name in (node.target, *takers)):
            found[node.target] = tuple(takers)
    return found


def _in_sequentials(model):
    found = {}
    for name, module in model.named_modules():
        if type(module) is torch.nn.Sequential:
            members = [f"{name}.{member}" if name else member for member in module._modules]
            found |= {first: (second,) for first, second in pairwise(members)}
    return found
