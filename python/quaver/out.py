"""The forms of ops that write tensors they are given, `torch.ops.quaver.quantize.out`: which form a function calls, and
what torch wants to know of one.

Autograd keeps what later gradients need: it must learn that a tensor has changed, and that nothing flows through out=.
A compiler's graph changes nothing: there the op that makes its results is called, and they are copied to their places.
"""

import torch
from torch.autograd.graph import increment_version

from quaver.arguments import check_tensors
from quaver.fakes import check_outs
from quaver.library import NAMESPACE, OPS, WRITING_OPS, as_tuple, written_arguments
from quaver.qparams import QuantizationParams

_ops = getattr(torch.ops, NAMESPACE)


def _default_options(form):
    """What an op takes for options that are not given, dtypes as torch's and not as the numbers that schemas have."""
    types = {0: torch.uint8, 1: torch.int8, 5: torch.float16, 6: torch.float32, 15: torch.bfloat16}
    options = [argument for argument in form._schema.arguments if argument.has_default_value()]
    return {
        option.name: types.get(option.default_value) if option.name == "dtype" else option.default_value
        for option in options
    }


_DEFAULT_OPTIONS = {name: _default_options(getattr(_ops, name).default) for name in OPS}


def _given(op, options):
    """Those of them that are not the op's own defaults: each that a call names costs it a microsecond."""
    defaults = _DEFAULT_OPTIONS[op]
    return {name: value for name, value in options.items() if name not in defaults or value is not defaults[name]}


def run(op, out, *args, **options):
    """Calls an op with one result, or its form that writes `out`."""
    options = _given(op, options)
    if out is None:
        return getattr(_ops, op).default(*args, **options)
    check_tensors(op, out=out)
    return _write(getattr(_ops, op).out, {"out": out}, *args, **options)


def run_rows(op, out, *args, **options):
    """The same for an op that quantizes with parameters of its own; `out` is what such a call has returned."""
    outs = _row_outs(op, out, **options) if out is not None else None
    options = _given(op, options)
    if outs is None:
        return getattr(_ops, op).default(*args, **options)
    return _write(getattr(_ops, op).out, outs, *args, **options)


def _write(form, outs, *args, **options):
    """Calls a form that writes, with `note_the_writing` done here, where it costs a fraction of what it costs there."""
    if torch.compiler.is_compiling() or requires_grad(*args, *options.values()):
        return form(*args, **outs, **options)
    return write(form, outs, *args, **options)


def write(form, outs, *args, **options):
    """The same for a call outside of graphs of which no argument requires grad."""
    with torch._C._AutoDispatchBelowADInplaceOrView():
        results = form(*args, **outs, **options)
    _increment_versions(outs.values())
    return results


def requires_grad(*values):
    if torch.is_grad_enabled():
        for value in values:
            if isinstance(value, torch.Tensor) and value.requires_grad:
                return True
    return False


def _increment_versions(outs):
    for out in outs:
        if not out.is_inference():
            increment_version(out)


def _row_outs(op, out, *, dtype, return_row_sum, residual=None, **_):
    """The tensors of (q, params), then row_sum if asked for, then residual_out if there is one, by the op's names."""
    names = ["q", "params", *(["row_sum"] * return_row_sum), *(["residual_out"] * (residual is not None))]
    if not isinstance(out, tuple | list) or len(out) != len(names) or not isinstance(out[1], QuantizationParams):
        came = f"{len(out)} values" if isinstance(out, tuple | list) and len(out) != len(names) else type(out).__name__
        raise TypeError(f"quaver::{op}: out must be what such a call returns, ({', '.join(names)}), got {came}")
    outs = dict(zip(names, out, strict=True))
    params = outs.pop("params")
    outs |= {"scale": params.scale, "zero_point": params.zero_point}
    check_tensors(op, **outs)
    outs.setdefault("row_sum", params.zero_point.new_empty(0))
    if "residual_out" in written_arguments(getattr(_ops, op).out):
        outs.setdefault("residual_out", params.scale.new_empty(0))
    return outs


_registered = torch.library.Library(NAMESPACE, "IMPL")


def _register(name):
    form = getattr(_ops, name).out
    arguments = [argument.name for argument in form._schema.arguments]
    written = written_arguments(form)

    def note_the_writing(keyset, *args, **options):
        if torch.is_grad_enabled():
            for argument, value in _named(args, options):
                if isinstance(value, torch.Tensor) and value.requires_grad:
                    raise RuntimeError(
                        f"quaver::{name}: {argument} requires grad, but there is no gradient through out=; "
                        f"call under torch.no_grad() or pass {argument}.detach()"
                    )
        results = form.redispatch(keyset & torch._C._after_ADInplaceOrView_keyset, *args, **options)
        _increment_versions(options[out] for out in written)
        return results

    def make_and_copy(*args, **options):
        outs = {out: options.pop(out) for out in written}
        results = as_tuple(getattr(_ops, name).default(*args, **options))
        check_outs(name, outs, results, *next(_named(args, options)))
        copied = [out.copy_(result) for out, result in zip(outs.values(), results, strict=True)]
        return tuple(copied) if len(copied) > 1 else copied[0]

    def _named(args, options):
        yield from (*zip(arguments, args, strict=False), *options.items())

    _registered.impl(f"{name}.out", note_the_writing, "ADInplaceOrView", with_keyset=True)
    _registered.impl(f"{name}.out", make_and_copy, "Functionalize")


for _name in WRITING_OPS:
    _register(_name)
