"""Every op beside its definition: `backend("reference")` puts the reference in the ops' place, `verify()` runs both.

Which function of the reference stands for an op is a matter of names: each overload of `torch.ops.quaver.quantize` is
`reference.quantize`. The only module that knows both.
"""

import sys
import threading
from contextlib import contextmanager

import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from quaver import reference
from quaver.library import NAMESPACE, as_tuple, written_arguments

INTEGER_VIEWS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class VerificationError(AssertionError):
    """An op's result is not the reference's: the words say where, with which arguments, and both values."""


# Ops and their definitions


def _definition(op):
    """The reference's function for an op, whatever the overload."""
    name = op._schema.name.split("::")[1]
    function = getattr(reference, name, None)
    if function is None:
        raise NotImplementedError(f"quaver::{name}: the reference has no function of this name")
    return function


def _bound(op, args, kwargs):
    """A call's arguments by their names in the schema: what the op reads, and what it writes."""
    names = [argument.name for argument in op._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    written = [given.pop(name) for name in written_arguments(op)]
    return given, written


def _full_name(op):
    """Such as quaver::quantize, or quaver::quantize.out."""
    return op._schema.name + (f".{op._schema.overload_name}" if op._schema.overload_name else "")


def define(op, args, kwargs):
    """What the reference gives for a call of an op, as a tuple."""
    reads, _ = _bound(op, args, kwargs)
    with torch.autocast(_device_type(args, kwargs), enabled=False):
        return as_tuple(_definition(op)(**reads))


def _device_type(args, kwargs):
    return next(value.device.type for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))


# Bits


def first_difference(actual, expected):
    """In words, where two tensors are not the same bits, or None. Any NaN is as good as another; -0 is not 0.

    The first place is that of the lowest index, last dimension fastest.
    """
    if actual.dtype != expected.dtype:
        return f"the dtype is {_name(actual.dtype)}, expected {_name(expected.dtype)}"
    if actual.shape != expected.shape:
        return f"the shape is {list(actual.shape)}, expected {list(expected.shape)}"
    if actual.device != expected.device:
        return f"the device is {actual.device}, expected {expected.device}"
    view = INTEGER_VIEWS[actual.element_size()]
    differs = actual.contiguous().view(view) != expected.contiguous().view(view)
    if actual.is_floating_point():
        differs &= ~(actual.isnan() & expected.isnan())
    if not differs.any():
        return None
    place = tuple(differs.nonzero()[0].tolist())
    return (
        f"the element at {list(place)} is {actual[place].item()!r}, expected {expected[place].item()!r} "
        f"({int(differs.sum())} of {differs.numel()} differ)"
    )


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _in_words(value):
    if isinstance(value, torch.Tensor):
        strides = "" if value.is_contiguous() else f" strides {list(value.stride())}"
        return f"{_name(value.dtype)} {list(value.shape)}{strides} on {value.device}"
    return _name(value) if isinstance(value, torch.dtype) else repr(value)


def _unspecified(reads):
    """What makes results unspecified, so that a difference means nothing (ARITHMETIC.md, "What is not defined")."""
    for name, value in reads.items():
        if name.endswith("scale") and isinstance(value, torch.Tensor) and value.is_floating_point():
            good = torch.isfinite(value) & (value > 0)
            if not good.all():
                return f"; but {name} has {value[~good][0].item()}: only positive, finite scales have defined codes"
    return ""


def check(op, actual, expected, args, kwargs):
    """Raises a VerificationError where an op's results are not the reference's."""
    reads, _ = _bound(op, args, kwargs)
    named = op._schema.returns
    for number, (got, wanted) in enumerate(zip(as_tuple(actual), expected, strict=True)):
        difference = first_difference(got, wanted)
        if difference is None:
            continue
        of = f" of {named[number].name or f'result {number}'}" if len(named) > 1 else ""
        called = ", ".join(f"{name}: {_in_words(value)}" for name, value in reads.items())
        raise VerificationError(f"{_full_name(op)}: {difference}{of}; called with {called}{_unspecified(reads)}")


# Modes


_passing = threading.local()  # .on while an op runs that a mode has called: modes around it let it pass


@contextmanager
def _passed():
    before = getattr(_passing, "on", False)
    _passing.on = True
    try:
        yield
    finally:
        _passing.on = before


def _compiled_caller():
    """Whether some caller is a function that torch.compile made, even where it fell back to eager mode."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "compile_wrapper" and code.co_filename.endswith("eval_frame.py"):
            return True
        frame = frame.f_back
    return False


class _Mode(TorchDispatchMode):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def __enter__(self):
        if torch.compiler.is_compiling() or _compiled_caller():
            raise RuntimeError(f"{self.name} is for eager mode: it cannot be entered inside a compiled function")
        return super().__enter__()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if op.namespace != NAMESPACE or getattr(_passing, "on", False):
            return op(*args, **kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        if torch.compiler.is_compiling() or _compiled_caller():
            raise RuntimeError(
                f"{_full_name(op)}: {self.name} is for eager mode, but a compiled function called this op inside it"
            )
        if any(isinstance(tensor, FakeTensor) or tensor.is_meta for tensor in tensors):
            raise RuntimeError(f"{_full_name(op)}: {self.name} needs tensors with values, got fake ones")
        with _passed():
            return self.run(op, args, kwargs)


class _Reference(_Mode):
    def run(self, op, args, kwargs):
        promised = _promised(op, args, kwargs)  # refuses what the op refuses
        _, written = _bound(op, args, kwargs)
        results = define(op, args, kwargs)
        if written:
            for out, result in zip(written, results, strict=True):
                out.copy_(result)
            return {0: None, 1: written[0]}.get(len(op._schema.returns), tuple(written))
        laid_out = tuple(_laid_out(result, like) for result, like in zip(results, promised, strict=True))
        return laid_out[0] if len(op._schema.returns) == 1 else laid_out


def _promised(op, args, kwargs):
    """Fake results: the shapes, dtypes and strides of the op's own."""
    with FakeTensorMode() as fake:
        args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, fake.from_tensor, (args, kwargs))
        return as_tuple(op(*args, **kwargs))


def _laid_out(result, like):
    """The reference's result in memory as the op's would be, since callers may rely on strides."""
    out = torch.empty_strided(like.shape, like.stride(), dtype=result.dtype, device=result.device)
    return out.copy_(result)


class _Verify(_Mode):
    def run(self, op, args, kwargs):
        try:
            expected, failure = define(op, args, kwargs), None  # first: the op may write what it reads
        except Exception as error:
            expected, failure = None, error
        actual = op(*args, **kwargs)  # refuses in its own words what is no valid call
        if failure is not None:
            raise VerificationError(
                f"{_full_name(op)}: the op accepts what the reference fails on: {failure}"
            ) from failure
        check(op, actual, expected, args, kwargs)
        return actual


def backend(name):
    """Runs every quaver op of a block of code through another implementation; `"reference"` is the one there is.

    Ops that modules and functions call inside the block count too. Arguments are checked as ever, with the same words,
    and results have the op's dtypes, shapes and strides.

    Arguments:
        name: "reference", the definition of every op in plain torch, on whatever device its tensors are.

    Returns:
        A context manager, for the thread that enters it. Of nested ones the innermost decides.

    Raises:
        ValueError for another name. RuntimeError where it is entered inside a compiled function or where a compiled
        function calls an op inside it: the reference is law in eager mode only.

    >>> import torch, quaver
    >>> with quaver.backend("reference"):
    ...     quaver.quantize(torch.tensor([0.5, 1.5]), torch.tensor(1.0))
    tensor([0, 2], dtype=torch.int8)
    """
    if name != "reference":
        raise ValueError(f"quaver.backend: name must be 'reference', got {name!r}")
    return _Reference("quaver.backend('reference')")


def verify():
    """Runs every quaver op of a block of code and its definition too, and compares all results, bit for bit.

    Ops that modules and functions call inside the block count too. It waits for the device at every op and takes the
    time and the memory of the reference: for tests and for the first runs on a new machine.

    Returns:
        A context manager, for the thread that enters it.

    Raises:
        VerificationError at the first difference, which names the op, its arguments' shapes and dtypes, the element's
        index and both values. RuntimeError as `backend`.

    >>> import torch, quaver
    >>> layer = quaver.QuantLinear.from_float(torch.nn.Linear(64, 8))
    >>> with quaver.verify():
    ...     y = layer(torch.randn(2, 64))
    """
    return _Verify("quaver.verify()")
