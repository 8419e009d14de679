"""How far an int8 model is from the float model it was made of, layer by layer, and which layer's fault it is."""

import contextlib
import copy
import csv
import math
from dataclasses import dataclass

import torch
from torch.utils._pytree import tree_leaves

from quaver import ops
from quaver.graph import consumers, in_eval_mode
from quaver.model import QuantConfig, int8_modules, plan_layers
from quaver.nn import QuantConv2d, QuantLinear
from quaver.running import call_with

OUTPUT = "(output)"  # the row of the model's own result


@dataclass
class Comparison:
    """A table: one row for each layer, in the model's order, and one for the model's result.

    Each row is a dict: `name`; `sqnr_db`, the power of the float values over that of the differences, in decibels;
    `cosine`, between all float values and all int8 ones.
    """

    rows: list

    def __getitem__(self, name):
        return next(row for row in self.rows if row["name"] == name)

    def __str__(self):
        width = max(len(row["name"]) for row in self.rows)
        lines = [f"{'layer':<{width}}  SQNR, dB    cosine"]
        lines += [f"{row['name']:<{width}}  {row['sqnr_db']:8.2f}  {row['cosine']:8.6f}" for row in self.rows]
        return "\n".join(lines)

    def to_csv(self, path):
        """Writes the table, with a line of names above it."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def plot(self, path):
        """Draws the SQNR of each row as a bar, into a picture whose kind the name's ending says (.png); needs the
        package matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ModuleNotFoundError(
                "Comparison.plot: needs the package matplotlib: pip install matplotlib"
            ) from error
        names = [row["name"] for row in self.rows]
        figure = Figure(figsize=(8, 1 + 0.25 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.barh(names, [row["sqnr_db"] for row in self.rows], color="#3b6ea5")
        axes.invert_yaxis()
        axes.set_xlabel("SQNR, dB (more is better)")
        axes.margins(y=0.01)
        figure.savefig(path)


def compare(float_model, int8_model, batches):
    """How each int8 layer's result, and the model's, differs from the float model's on the same data.

    Errors add up on the way: a layer's input in the int8 model comes from int8 layers before it.

    Arguments:
        float_model, int8_model: a model and what quantize_model made of it. Both run in eval mode, without gradients.
        batches: an iterable of what they are called with: tensors, tuples of arguments or dicts of them by name.

    Returns:
        A Comparison. Results in codes are taken as what they stand for; where a normalization or a ReLU moved into a
        layer, they are compared with what these made of the float layer's result.

    Raises:
        ValueError for no batches, and for an int8 model that is not of that float model.

    >>> import torch, quaver
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> comparison = quaver.compare(model, quaver.quantize_model(model), [torch.randn(100, 64)])
    >>> [row["name"] for row in comparison.rows]
    ['0', '2', '(output)']
    >>> comparison["2"]["sqnr_db"] > 35
    True
    """
    kinds = (QuantLinear, QuantConv2d)
    int8_layers = {name: module for name, module in int8_model.named_modules() if isinstance(module, kinds)}
    if strangers := sorted(int8_layers.keys() - dict(float_model.named_modules()).keys()):
        raise ValueError(f"compare: float_model has no layers {strangers}")
    float_layers = _counterparts(float_model, int8_model, int8_layers)
    tallies = {name: _Tally() for name in (*int8_layers, OUTPUT)}
    with contextlib.ExitStack() as stack:
        for model in (float_model, int8_model):
            stack.enter_context(in_eval_mode(model))
        stack.enter_context(torch.no_grad())
        for batch in _some(batches, "compare"):
            with _results(float_layers.values()) as wanted:
                expected = call_with(float_model, batch)
            with _results(int8_layers.values()) as found:
                actual = call_with(int8_model, batch)
            for name, layer in int8_layers.items():
                pairs = zip(wanted[float_layers[name]], found[layer], strict=True)
                for float_result, int8_result in pairs:
                    tallies[name].add(float_result, _real(layer, int8_result))
            tallies[OUTPUT].add_all(expected, actual)
    return Comparison([{"name": name, **tally.measures()} for name, tally in tallies.items()])


def sensitivity(model, config=QuantConfig(), calibration=None, batches=None):
    """What each layer alone does to the model's result: that of the float model with this one layer in int8.

    Arguments:
        model, config, calibration: those of quantize_model. The model is not changed.
        batches: what it is measured on, by default the calibration's; then that must be a list.

    Returns:
        A Comparison whose rows are about the model's result: one for each layer, and one for all of them together.

    >>> import torch, quaver
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> alone = quaver.sensitivity(model, batches=[torch.randn(100, 64)])
    >>> alone["0"]["sqnr_db"] > alone["(output)"]["sqnr_db"]
    True
    """
    batches = calibration if batches is None else batches
    if batches is None:
        raise ValueError("sensitivity: batches must be given where calibration is not")
    plans = plan_layers(model, config)
    int8 = int8_modules(model, plans, calibration, fuse=False)
    names = {plan.names[0]: layer for layer, plan in plans.items()}
    tallies = {name: _Tally() for name in (*names, OUTPUT)}
    with in_eval_mode(model), torch.no_grad():
        for batch in _some(batches, "sensitivity"):
            expected = copy.deepcopy(call_with(model, batch))  # models that return what they keep
            for name, tally in tallies.items():
                with _answering([names[name]] if name in names else names.values(), int8):
                    tally.add_all(expected, call_with(model, batch))
    return Comparison([{"name": name, **tally.measures()} for name, tally in tallies.items()])


def _counterparts(float_model, int8_model, names):
    """{name of an int8 layer: the float module that gives what it gives}: the layer, or the last that moved into it."""
    flow = consumers(float_model)
    floats, int8s = (dict(model.named_modules()) for model in (float_model, int8_model))

    def last(name):
        takers = flow.get(name, ())
        moved = len(takers) == 1 and type(int8s.get(takers[0])) is torch.nn.Identity
        return last(takers[0]) if moved and type(floats[takers[0]]) is not torch.nn.Identity else name

    return {name: floats[last(name)] for name in names}


class _Tally:
    """Sums over all that two models gave, in float64: of squares, of squared differences, of products."""

    def __init__(self):
        self.signal = self.other = self.noise = self.product = 0.0

    def add(self, expected, actual):
        expected, actual = expected.to(torch.float64), actual.to(torch.float64)
        self.signal += expected.square().sum()
        self.other += actual.square().sum()
        self.noise += (expected - actual).square().sum()
        self.product += (expected * actual).sum()

    def add_all(self, expected, actual):
        for one, other in zip(_floats_of(expected), _floats_of(actual), strict=True):
            self.add(one, other)

    def measures(self):
        signal, other, noise, product = map(float, (self.signal, self.other, self.noise, self.product))
        sqnr = (
            math.inf
            if noise == 0
            else -math.inf
            if noise == math.inf
            else 10 * math.log10(signal / noise)
            if signal > 0
            else -math.inf
        )
        return {"sqnr_db": sqnr, "cosine": product / math.sqrt(signal * other) if signal * other > 0 else math.nan}


def _floats_of(result):
    """The float tensors in what a model returned, in its order."""
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _some(batches, function):
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise ValueError(f"{function}: batches yielded none")


@contextlib.contextmanager
def _results(layers):
    """{layer: what it gave, call by call} while the block runs."""
    given = {layer: [] for layer in layers}
    hooks = [layer.register_forward_hook(lambda layer, _, result: given[layer].append(result)) for layer in given]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _answering(layers, int8):
    """Each of these float layers gives what its int8 module gives, while the block runs."""

    def answer(layer, args, kwargs, _):
        return int8[layer](*args, **kwargs)

    hooks = [layer.register_forward_hook(answer, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _real(layer, result):
    return ops.dequantize(result, layer.output) if result.dtype == torch.int8 else result
