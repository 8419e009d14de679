"""Int8 models in ONNX: QuantizeLinear and DequantizeLinear around products, which are of floats or of integers."""

import copy
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch

from quaver.library import NAMESPACE
from quaver.nn.module import Int8Module
from quaver.onnx_layers import IN_ONNX
from quaver.tensor_file import replacing

OPSET = 18  # the one that torch's exporter writes by itself


def to_onnx(model, path, args, *, exact=False, dynamic_shapes=None):
    """Writes a model to an ONNX file, for runtimes that run its layers in int8.

    A static layer is QuantizeLinear, DequantizeLinear, MatMul or Conv with the weight, int8 codes through a
    DequantizeLinear, the bias, Relu, and QuantizeLinear where it gives codes. A dynamic layer has the operators of
    equation (4) before them, for a scale and a zero point of each row, or of the whole of what a convolution takes. A
    table is Gather and DequantizeLinear.

    QuantizeLinear is equation (2): equal numbers become equal codes. But between codes a runtime multiplies floats in
    an order of its own, or fuses it all into an int8 kernel with a rounding of its own: later codes may differ by one
    where a quotient is next to a tie, and what a static layer makes of NaN is left open. onnxruntime's kernels also
    saturate within a sum on x86-64 CPUs without VNNI, unless its session has the option "session.x64quantprecision" at
    "1", with which it cannot load a model that calls a layer twice. With `exact` a layer has quaver's bits for equal
    inputs: products are MatMulInteger and ConvInteger, scaled as in equation (7). Runtimes fuse less of that, and what
    stands between int8 layers, such as norms, stays their own arithmetic.

    Arguments:
        model: with QuantLinear, QuantConv2d and QuantEmbedding among its modules. It is exported as in eval mode, and
            not changed.
        path: of the file. What is too large for it goes into a second one beside it, with the suffix ".data".
        args: what the model is called with: a tensor, a tuple of arguments, or a dict of them by name.
        exact: whether int8 layers shall have quaver's codes and numbers, bit for bit.
        dynamic_shapes: as torch.export.export takes it; by default the first size of each tensor may vary, if it is 2
            or more in `args` and the model lets it.

    Needs the packages onnx and onnxscript.

    Raises:
        ValueError for int8 modules of other classes and for a model that calls quaver's ops itself, as FakeQuantLinear
        does; ModuleNotFoundError without those packages; and what torch.export.export and torch.onnx.export raise.

    >>> import quaver, torch
    >>> model = quaver.quantize_model(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()))
    >>> quaver.to_onnx(model, "model.onnx", torch.randn(2, 8))  # doctest: +SKIP
    """
    _check_packages()
    path = Path(path)
    args, kwargs = ((), dict(args)) if isinstance(args, Mapping) else (args if isinstance(args, tuple) else (args,), {})
    shapes = _free_first_sizes([*args, *kwargs.values()]) if dynamic_shapes is None else dynamic_shapes
    with torch.no_grad():
        program = torch.export.export(_in_onnx(model, exact), args, kwargs, dynamic_shapes=shapes)
        _refuse_ops_of_ours(program)
        # given again, they name the sizes
        written = torch.onnx.export(program, opset_version=OPSET, dynamic_shapes=dynamic_shapes, verbose=False)
    _give_each_weight_its_zero_points(written.model.graph)
    with replacing(path) as place:
        written.save(place)
        if (data := place.with_name(f"{path.name}.data")).exists():
            os.replace(data, path.with_name(data.name))


def _check_packages():
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"to_onnx needs the packages onnx and onnxscript, and {package} is not installed")


def _in_onnx(model, exact):
    """A copy of the model with its int8 layers in ONNX's operators."""
    made = {}
    for name, module in model.named_modules():
        if isinstance(module, Int8Module):
            if type(module) not in IN_ONNX:
                kinds = " or ".join(kind.__name__ for kind in IN_ONNX)
                raise ValueError(f"to_onnx: layer {name!r} must be {kinds}, got {type(module).__name__}")
            made[id(module)] = IN_ONNX[type(module)](module, exact)
    return copy.deepcopy(model, made).eval()


def _free_first_sizes(args):
    shapes = torch.export.ShapesCollection()
    for arg in args:
        if isinstance(arg, torch.Tensor) and arg.dim() > 0:
            shapes[arg] = {0: torch.export.Dim.AUTO}
    return shapes


def _give_each_weight_its_zero_points(graph):
    """The exporter joins equal ones. onnxruntime, with the option that to_onnx names, fails to replace one twice."""
    from onnx_ir import Value  # comes with onnxscript

    for node in graph:
        if node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer():
            weight, _, zeros = node.inputs
            name = f"{weight.name}_zero_point"
            if name not in graph.initializers:
                own = Value(name=name, shape=zeros.shape, type=zeros.type, const_value=zeros.const_value)
                graph.register_initializer(own)
            node.replace_input_with(2, graph.initializers[name])
            if not zeros.uses():
                del graph.initializers[zeros.name]


def _refuse_ops_of_ours(program):
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == NAMESPACE:
                raise ValueError(
                    f"to_onnx: the model calls {node.target.name()} outside of int8 layers, which ONNX has not"
                )
