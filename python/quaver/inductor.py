"""For packages of AOTInductor: torch 2.13 gives a packaged op wrong arguments where one before them was left out.

    from quaver.inductor import every_argument

    program = torch.export.export(model, (x,), dynamic_shapes=...)
    passes = {"post_grad_custom_post_pass": every_argument}
    path = torch._inductor.aoti_compile_and_package(program, inductor_configs=passes)

A compiled graph leaves out keyword arguments that have their defaults, and the package's loader takes those that are
left by their position ("Expected extern kernel quaver::quantize to have serialized argument type as_scalar_type ...").
With this pass none is left out.
"""

import inspect

import torch

from quaver import reference
from quaver.library import NAMESPACE


def every_argument(graph):
    """Writes out every keyword argument of quaver's ops in an FX graph."""
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == NAMESPACE:
            node.kwargs = {**_defaults(node.target), **node.kwargs}


def _defaults(op):
    """Of keyword arguments; those that are dtypes, which a schema knows by number, as the reference has them."""
    parameters = inspect.signature(getattr(reference, op._schema.name.split("::")[1])).parameters
    named = (argument.name for argument in op._schema.arguments if argument.kwarg_only and not argument.is_out)
    return {name: parameters[name].default for name in named if name in parameters}
