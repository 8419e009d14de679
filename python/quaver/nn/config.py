"""What JSON can hold of a module's constructor arguments, and how it is read out of a file that may say anything."""

import torch

from quaver.qparams import QuantizationParams, in_words

_RESULTS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_fields(fields, **types):
    """Refuses, with a ValueError, other names than these and values of other types; True is no int."""
    if fields.keys() != types.keys():
        raise ValueError(f"it must have the fields {sorted(types)}, got {sorted(fields)}")
    for name, kinds in types.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if type(fields[name]) not in kinds:
            words = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ValueError(f"its field {name} must be {words}, got {fields[name]!r}")


def dtype_name(dtype):
    return str(dtype).removeprefix("torch.")


def result_dtype(name):
    if name not in _RESULTS:
        raise ValueError(f"its field dtype must be {in_words(_RESULTS)}, got {name!r}")
    return _RESULTS[name]


def range_of(params):
    """Of QuantizationParams: all but scale and zero point, which are a module's state. None for None."""
    if params is None:
        return None
    return {"q_min": params.q_min, "q_max": params.q_max, "symmetric": params.symmetric}


def params_of(held_range, device):
    """QuantizationParams of that range, with a scale and a zero point that are yet to come. None for None."""
    if held_range is None:
        return None
    check_fields(held_range, q_min=int, q_max=int, symmetric=bool)
    scale, zero_point = torch.ones(1, device=device), torch.zeros(1, dtype=torch.int32, device=device)
    return QuantizationParams(scale, zero_point, **held_range)
