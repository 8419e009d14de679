"""The direct way of a call to its op: what a function checks and converts can take longer than a small op."""

import functools
import inspect

import torch
from torch.autograd import forward_ad

from quaver.arguments import widened
from quaver.library import NAMESPACE
from quaver.out import requires_grad, write

_ops = getattr(torch.ops, NAMESPACE)

# The exact types of what a schema asks for.
_TYPES = {
    "Tensor": torch.Tensor,
    "bool": bool,
    "int": int,
    "List[int]": tuple,
    "ScalarType": torch.dtype,
    "str": str,
}

_UNKNOWN = object()  # no value of an argument


def direct(function):
    """A function that passes a call on to its op where each argument is what the op takes, or nearly.

    What the op then refuses, and every other call, is the function's, which takes more and says what is wrong. It is
    for functions that give what their op does wherever that accepts the arguments: those that both have are the same.
    """
    op = getattr(_ops, function.__name__)
    types = {argument.name: _type_of(argument) for argument in op.default._schema.arguments} | {"out": torch.Tensor}
    looked_into = {name: look for name in types if (look := _look_for(name, types[name]))}
    parameters = inspect.signature(function).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    positions = [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]

    def for_the_op(args, options):
        """The call's arguments as its op takes them, or None; each that is a default would cost it a microsecond."""
        if torch.compiler.is_compiling() or forward_ad._current_level >= 0 or len(args) > len(positions):
            return None
        passed, given = [], {}
        for name, value in zip(positions, args, strict=False):
            if value is not None:
                if type(value) is not types[name]:
                    return None
                if name in looked_into:
                    value = looked_into[name](value)
            passed.append(value)
        for name, value in options.items():
            if value is defaults.get(name, _UNKNOWN):
                continue
            if type(value) is not types.get(name):
                return None
            given[name] = looked_into[name](value) if name in looked_into else value
        return None if requires_grad(*passed, *given.values()) else (passed, given)

    @functools.wraps(function)
    def call(*args, **options):
        arguments = for_the_op(args, options)
        if arguments is not None:
            passed, given = arguments
            try:
                if "out" in given:
                    return write(op.out, {"out": given.pop("out")}, *passed, **given)
                return op.default(*passed, **given)
            except (RuntimeError, TypeError, ValueError):
                pass  # the function has a way, or better words
        return function(*args, **options)

    return call


def _type_of(argument):
    name = str(argument.real_type)
    return _TYPES[name.removeprefix("Optional[").removesuffix("]") if name.startswith("Optional[") else name]


# What is made of an argument beyond a look at its type. To be refused by an op takes longer than ten calls of it.


def _look_for(name, wanted):
    if wanted is tuple:
        return _pair
    if name.endswith("zero_point"):
        return _zero_point
    return widened if name == "bias" else None


def _pair(numbers):
    """Those that are no int as what no op takes for one."""
    return [number if type(number) is int else None for number in numbers]


def _zero_point(codes):
    return codes.to(torch.int32) if codes.dtype in (torch.int64, torch.int8, torch.uint8) else codes
