"""The direct way of a call to its op: what a function checks and converts can take longer than a small op."""

import functools
import inspect

import torch
from torch.autograd import forward_ad

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

# What the functions convert for a zero point or a bias. To be refused by an op takes longer than ten calls of it.
_CONVERTED = {torch.int8, torch.uint8, torch.int64, torch.float16, torch.bfloat16}


def direct(function):
    """A function that passes a call on to its op where each argument is just what the op takes.

    What the op then refuses, and every other call, is the function's, which converts or says what is wrong. It is for
    functions that give what their op does wherever that accepts the arguments: those that both have are the same.
    """
    op = getattr(_ops, function.__name__)
    types = {argument.name: _type_of(argument) for argument in op.default._schema.arguments} | {"out": torch.Tensor}
    looked_into = {name for name in types if types[name] is tuple or name.endswith(("zero_point", "bias"))}
    parameters = inspect.signature(function).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    positions = [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]

    def given_of(args, options):
        """The options that are not defaults, each of which costs an op a microsecond; None for what is no op's."""
        if torch.compiler.is_compiling() or forward_ad._current_level >= 0 or len(args) > len(positions):
            return None
        for name, value in zip(positions, args, strict=False):
            if value is None:
                continue
            if type(value) is not types[name] or (name in looked_into and not _is_as_ops_take_it(value)):
                return None
        given = {}
        for name, value in options.items():
            if value is defaults.get(name, function):
                continue
            if type(value) is not types.get(name) or (name in looked_into and not _is_as_ops_take_it(value)):
                return None
            given[name] = value
        return None if requires_grad(*args, *given.values()) else given

    @functools.wraps(function)
    def call(*args, **options):
        given = given_of(args, options)
        if given is not None:
            try:
                if "out" in given:
                    return write(op.out, {"out": given.pop("out")}, *args, **given)
                return op.default(*args, **given)
            except (RuntimeError, TypeError, ValueError):
                pass  # the function has a way, or better words
        return function(*args, **options)

    return call


def _type_of(argument):
    name = str(argument.real_type)
    return _TYPES[name.removeprefix("Optional[").removesuffix("]") if name.startswith("Optional[") else name]


def _is_as_ops_take_it(value):
    """Of a pair, a zero point or a bias."""
    if type(value) is tuple:
        return all(type(number) is int for number in value)
    return value.dtype not in _CONVERTED
