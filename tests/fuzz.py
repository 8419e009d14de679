"""Random calls, valid and invalid, of the ops and of the functions over them: `python -m tests.fuzz --calls 100000`.

A valid call gives the reference's bits. Of every other one, made from a valid one by changing an argument or two,
either the same is true or it is refused in words: a kind of error that the law has, naming the op; the fake for the
compiler agrees. What goes wrong is printed with its number: `--first` that number and `--calls 1` repeat it.
"""

import argparse
import random
import resource
import sys
import time
import warnings
from collections import Counter

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map_only

import quaver
from quaver import library
from quaver.draw import Draw
from quaver.library import as_tuple
from quaver.qparams import full_range
from quaver.verify import VerificationError

ops = torch.ops.quaver

DTYPES = (
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.uint16),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn),
)
INTEGERS = (0, 1, -1, 2, 127, 128, 255, 256, -128, -129, 2**31, -(2**31) - 1, 2**62, -(2**63), 2**64)
ODD_ONES = (None, True, 1, 0.5, float("nan"), "x", "", [], [1], {}, torch.float32, object, 1j)
MOST_MEMORY = 16 * 2**30  # a call that asks for more fails, in words that name no op
GRANULAR = ("choose_qparams", "dynamic_quantize")  # their functions take a granularity for a scale_shape


# Changing an argument


def another_tensor(draw, tensor):
    """A tensor, or something else, that may or may not do in this one's place."""
    try:
        return changed_tensor(draw, tensor)
    except RuntimeError:  # torch cannot make some, such as sparse ones of rare dtypes
        return draw.one_of(*ODD_ONES)


def changed_tensor(draw, tensor):
    if tensor.layout != torch.strided:
        return draw.one_of(*ODD_ONES)
    kind = draw.one_of("dtype", "dtype", "shape", "shape", "shape", "device", "grad", "sparse", "odd")
    if kind == "dtype":
        return tensor.detach().to(draw.one_of(*DTYPES))
    if kind == "shape":
        return reshaped(draw, tensor)
    if kind == "device":
        return tensor.to("meta")
    if kind == "grad" and tensor.is_floating_point():
        return tensor.detach().clone().requires_grad_()
    if kind == "sparse" and tensor.dim() > 0 and not tensor.is_meta:
        return tensor.contiguous().to_sparse()
    return draw.one_of(*ODD_ONES)


def reshaped(draw, tensor):
    how = draw.one_of("flat", "deeper", "much deeper", "select", "narrow", "empty", "repeat", "transposed", "one")
    if how == "flat":
        return tensor.reshape(-1)
    if how == "deeper":
        return tensor.unsqueeze(draw.random.randint(0, tensor.dim()))
    if how == "much deeper":
        return tensor.reshape([1] * 5 + list(tensor.shape))
    if how == "one":
        return tensor.new_ones([1] * draw.random.randint(0, 8))
    if tensor.dim() == 0:
        return tensor.repeat(draw.one_of(0, 1, 2, 3))
    dim = draw.random.randrange(tensor.dim())
    if how == "select" and tensor.shape[dim] > 0:
        return tensor.select(dim, 0)
    if how == "narrow" and tensor.shape[dim] > 0:
        return tensor.narrow(dim, 0, tensor.shape[dim] - 1)
    if how == "empty":
        return tensor.narrow(dim, 0, 0)
    if how == "repeat":
        return torch.cat([tensor, tensor], dim)
    return tensor.transpose(dim, -1)


def another_value(draw, value):
    if isinstance(value, torch.Tensor):
        return another_tensor(draw, value)
    if isinstance(value, torch.dtype):
        return draw.one_of(*DTYPES, *DTYPES, *ODD_ONES)
    if isinstance(value, list):  # a scale_shape
        changed = list(value)
        if changed and draw.chance(0.7):
            changed[draw.random.randrange(len(changed))] = draw.one_of(*INTEGERS, 2, 3, None, 1.0, "1")
        return draw.one_of(changed, changed, [*changed, 1], changed[:-1], *ODD_ONES)
    if isinstance(value, str):
        return draw.one_of("onnx", "affine", "ONNX", "", "onnx ", "mode" * 1000, "\N{EIGHTH NOTE}", *ODD_ONES)
    if isinstance(value, bool):
        return draw.one_of(True, False, *ODD_ONES)
    if isinstance(value, float):
        return draw.one_of(0.0, -1.0, 1e-46, 1e39, float("inf"), *INTEGERS, *ODD_ONES)
    return draw.one_of(*INTEGERS, *INTEGERS, *ODD_ONES)


def changed_call(draw, form, arguments):
    """The call with an argument or two changed, left out or added."""
    schema = {argument.name: argument for argument in form._schema.arguments}
    arguments = dict(arguments)
    for _ in range(draw.one_of(1, 1, 1, 2)):
        name = draw.one_of(*schema)
        kind = draw.one_of("change", "change", "change", "change", "leave out", "add")
        if kind == "leave out":
            arguments.pop(name, None)
        elif kind == "add" and draw.chance(0.1):
            arguments["nothing"] = 1
        elif name in arguments:
            arguments[name] = another_value(draw, arguments[name])
        elif "Tensor" in str(schema[name].type):
            like = [value for value in arguments.values() if isinstance(value, torch.Tensor)] or [0]
            arguments[name] = another_value(draw, draw.one_of(*like))
        else:
            arguments[name] = another_value(draw, draw.one_of(0, 0.5, True, "onnx", torch.int8))
    return arguments


def with_places(draw, op, arguments):
    """The call of the form that writes, with places for its results; and that form."""
    form = getattr(ops, op).out
    results = zip(library.written_arguments(form), as_tuple(getattr(ops, op)(**arguments)), strict=True)
    places = {
        name: draw.place_for(result, any_strides=number == 0 and op in library.ANY_STRIDES)
        for number, (name, result) in enumerate(results)
    }
    return {**arguments, **places}, form


# Judging


def specified(op, arguments):
    """Whether the values of an accepted call are such that its results are defined: scales, zero points, sums."""
    tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    if any(tensor.is_meta or tensor.layout != torch.strided for tensor in tensors.values()):
        return False
    if not isinstance(arguments.get("dtype", torch.int8), torch.dtype | None):
        return False  # torch takes numbers for dtypes; the reference does not
    for name, tensor in tensors.items():
        if name.endswith("scale") and not bool((tensor.isfinite() & (tensor > 0)).all()):
            return False
        if name.endswith("zero_point"):
            low, high = codes_of(name, arguments)
            if not bool(((tensor >= low) & (tensor <= high)).all()):
                return False
    if not all(torch.equal(tensors[name], ops.int8_prepack(b)) for name, b in packed_matrices(op, tensors)):
        return False
    sums = (("a_sum", "a", -1), ("b_sum", "b", -2), ("weight_sum", "weight_q", -1))
    return all(is_sum(tensors[name], tensors[codes], along) for name, codes, along in sums if name in tensors)


def packed_matrices(op, tensors):
    """(a packed form's name, the matrix that it should be of)"""
    if "b_packed" in tensors:
        yield "b_packed", tensors["b"]
    if "weight_packed" in tensors:
        conv = op == "int8_conv2d"
        yield (
            "weight_packed",
            tensors["weight"].permute(2, 3, 1, 0).flatten(0, 2) if conv else tensors["weight_q"].t(),
        )


def is_sum(given, codes, along):
    true = codes.sum(along, keepdim=True, dtype=torch.int64)
    return bool((given == true).all()) if given.dim() >= true.dim() else bool((true == given).all())


def codes_of(name, arguments):
    """The least and the largest code that a zero point may be."""
    for prefix, codes in (("a_", "a"), ("b_", "b"), ("x_", "x"), ("", "q")):
        if name == f"{prefix}zero_point" and codes in arguments:
            return full_range(arguments[codes].dtype)
    low, high = full_range(arguments.get("dtype", torch.int8))
    q_min, q_max = (bound if isinstance(bound, int) else None for bound in map(arguments.get, ("q_min", "q_max")))
    return low if q_min is None else q_min, high if q_max is None else q_max


# torch takes any number for a dtype at first.
TORCHS_OWN = ("stableivalue_conversions", "unsupported scalarType")


def in_words(error, op, arguments, through_function):
    """Whether a refusal is of a kind that the law has, and names the op."""
    words = str(error)
    if not isinstance(arguments.get("dtype", torch.int8), torch.dtype) and any(own in words for own in TORCHS_OWN):
        return True
    kinds = (RuntimeError, TypeError, ValueError) if through_function else (RuntimeError,)
    if not isinstance(error, kinds) or isinstance(error, VerificationError) or len(words) < 10:
        return False
    if through_function and isinstance(error, TypeError) and words.startswith(f"{op}() "):
        return True  # Python's own, of arguments that are missing or unknown
    return f"quaver::{op}" in words or (
        through_function and words.startswith(("PerChannel: ", "PerToken: ", "PerGroup: "))
    )


def outcome(call):
    try:
        return call(), None
    except Exception as error:
        return None, error


class Fuzz:
    def __init__(self, seed, report=lambda words: None):
        self.seed, self.report, self.counts, self.complaints = seed, report, Counter(), []

    def run(self, number):
        """One call; its number decides everything."""
        draw = Draw(random.Random(f"{self.seed} {number}"), most=200)
        op = library.OPS[number % len(library.OPS)]
        arguments = draw.call(op)
        form = getattr(ops, op).default
        through_function = draw.chance(0.4)
        if not through_function and op in library.WRITING_OPS and draw.chance(0.3):
            arguments, form = with_places(draw, op, arguments)
        valid = draw.chance(0.4)
        if not valid:
            arguments = changed_call(draw, form, arguments)
        call = self.of_function(draw, op, arguments, valid) if through_function else lambda: form(**arguments)
        _, error = outcome(call)
        if error is not None:
            self.counts["refused"] += 1
            if valid:
                self.complain(number, op, arguments, f"a valid call was refused: {error!r}")
            elif not in_words(error, op, arguments, through_function):
                self.complain(number, op, arguments, f"refused with {type(error).__name__}: {error}")
            elif not through_function and draw.chance(0.5):
                self.compare_with_fake(number, form, arguments, error)
            return
        self.counts["valid" if valid else "accepted"] += 1
        if valid or specified(op, arguments):
            self.compare(number, op, arguments, call)
        if not through_function and draw.chance(0.2):
            self.compare_with_fake(number, form, arguments, None)

    def of_function(self, draw, op, arguments, valid):
        """A call of the function over an op; where it takes a granularity, a right one or any."""
        arguments = dict(arguments)
        if op in GRANULAR and arguments.pop("scale_shape", None) is not None:
            axis = draw.random.randint(-7, 7)
            wrong = [quaver.PerToken, lambda: quaver.PerChannel(axis), lambda: quaver.PerGroup(axis)]
            wrong.append(lambda: draw.one_of(*ODD_ONES))
            right = [quaver.PerTensor]
            if isinstance(arguments.get("x"), torch.Tensor) and arguments["x"].dim() > 0:
                right += [quaver.PerToken, lambda: quaver.PerChannel(-1), lambda: quaver.PerGroup(1)]
            arguments["granularity"] = draw.one_of(*(right if valid else right + wrong))()
        return lambda: getattr(quaver, op)(**arguments)

    def compare(self, number, op, arguments, call):
        def verified():
            with quaver.verify():
                return call()

        _, error = outcome(verified)
        if error is not None:
            self.complain(number, op, arguments, f"{type(error).__name__}: {error}")
        self.counts["compared"] += 1

    def compare_with_fake(self, number, form, arguments, refused):
        """The compiler hears the same words, or none."""
        op = form._opname
        tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
        if any(tensor.layout != torch.strided or tensor.is_meta for tensor in tensors):
            return
        if refused is not None and not str(refused).startswith(f"quaver::{op}: "):
            return  # torch's own words, of arguments that have no place in the schema
        if "share memory" in str(refused):
            return  # fakes have none

        def promised():
            with FakeTensorMode() as fake:
                return form(**tree_map_only(torch.Tensor, fake.from_tensor, arguments))

        _, error = outcome(promised)
        self.counts["fakes"] += 1
        if str(error) != str(refused):
            self.complain(number, op, arguments, f"the op says {refused!s}, its fake {error!s}")

    def complain(self, number, op, arguments, words):
        described = {
            name: f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else value
            for name, value in arguments.items()
        }
        self.complaints.append(f"call {number} of seed {self.seed}: {op} {described}: {words}")
        self.report(self.complaints[-1])


def fuzz(calls, *, first=0, seed=0, report=lambda words: None):
    """Makes so many calls; gives the Fuzz that made them, with its counts and complaints."""
    made = Fuzz(seed, report)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of complex numbers and the like
        for number in range(first, first + calls):
            if number % 1000 == 0:
                report(f"at call {number}")  # where a crash would be
            made.run(number)
            if len(made.complaints) >= 20:
                break
    return made


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    began = time.monotonic()
    made = fuzz(
        chosen.calls,
        first=chosen.first,
        seed=chosen.seed,
        report=lambda words: print(words, flush=True),
    )
    print(dict(made.counts), f"{len(made.complaints)} complaints in {time.monotonic() - began:.0f} s")
    return bool(made.complaints)


if __name__ == "__main__":
    sys.exit(main())
