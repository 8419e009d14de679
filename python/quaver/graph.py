"""Who takes whose result in a model: what decides where a ReLU or a quantization may move into the layer before it."""

import contextlib
import inspect
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
    found = traced_consumers(model)
    return _called_once(model, _in_sequentials(model)) if found is None else found


def traced_consumers(model):
    """The same by a trace alone; None of a model that cannot be traced."""
    graphs = _traces(model)
    if not graphs:
        return None
    first, *others = map(_in_graph, graphs)
    return _called_once(
        model, {name: takers for name, takers in first.items() if all(other.get(name) == takers for other in others)}
    )


def _called_once(model, found):
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


def _traces(model):
    """What symbolic traces show: with all arguments, and with their defaults, for which its code may go another way.

    Without those that a model's own code does not take, whatever it raises then.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    graphs = []
    with in_eval_mode(model):
        for given in [None, defaults] if defaults else [None]:
            with contextlib.suppress(Exception):
                graphs.append(_Tracer().trace(model, given))
    return graphs


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
