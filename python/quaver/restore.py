"""A model gets modules and a state out of a file: all of it where all of it fits, and nothing else."""

import contextlib
from itertools import chain

import torch

from quaver.model import leave_fused_float_path
from quaver.tensor_file import dtype_name, place_of, same_bits


def restore(model, made, tensors):
    """The model, or what takes its place, with modules in the places of others and with this state.

    Arguments:
        made: {module of the model: what takes its place, on the device meta}. It comes to the old one's device, and
            what is still on meta, in the model too, to the CPU.
        tensors: {name: tensor}, the whole state.

    Raises:
        ValueError for tensors that are not that state. The model is then what it was.
    """
    with _swapped(model, made) as restored:
        _check_state(restored, tensors)
        for old, new in made.items():
            new.train(old.training).to_empty(device=_device_of(old))
    _fill(restored, tensors)
    leave_fused_float_path(restored)
    return restored


def with_tied(model, made, state):
    """That state with every name of what is one tensor in the model, and has one name at least; for `restore`."""
    gone = {name for name, module in model.named_modules(remove_duplicate=False) if module in made}
    held = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
    places = {name: place_of(tensor) for name, tensor in held.items() if name.rpartition(".")[0] not in gone}
    given = {place: state[name] for name, place in places.items() if name in state}
    return {name: given[place] for name, place in places.items() if place in given} | state


@contextlib.contextmanager
def _swapped(model, made):
    """The model, or what takes its place, with modules swapped; after an error inside with the old ones again."""
    places = [
        (owner._modules, name, module)
        for owner in model.modules()
        for name, module in owner._modules.items()
        if module in made
    ]
    try:
        for modules, name, module in places:
            modules[name] = made[module]
        yield made.get(model, model)
    except BaseException:
        for modules, name, module in places:
            modules[name] = module
        raise


def _check_state(model, tensors):
    state = model.state_dict(keep_vars=True)
    first_at = {}
    for name, tensor in state.items():
        if name not in tensors:
            raise ValueError(f"{name!r} of the model's state is missing")
        given = tensors[name]
        if not isinstance(tensor, torch.Tensor) or (tensor.dtype, tensor.shape) != (given.dtype, given.shape):
            raise ValueError(f"{name!r} must be {_words(tensor)} for this model, got {_words(given)}")
        first = first_at.setdefault(place_of(tensor), name)
        if not same_bits(tensors[first], given):
            raise ValueError(f"{first!r} and {name!r} are one tensor in the model, and have two values")
    for name in tensors:
        if name not in state:
            raise ValueError(f"{name!r} is not in the model's state")


def _words(value):
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{dtype_name(value)} {list(value.shape)}"


def _device_of(module):
    device = next((tensor.device for tensor in chain(module.parameters(), module.buffers())), torch.device("cpu"))
    return torch.device("cpu") if device.type == "meta" else device


def _fill(model, tensors):
    """Copies a state in, all of whose memory there is then: what is one tensor in the model stays one."""
    real = {}

    def in_memory(tensor):
        if id(tensor) not in real:
            empty = torch.empty_like(tensor, device="cpu")
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            real[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        return real[id(tensor)]

    for module in model.modules():
        for held, temporary in ((module._parameters, ()), (module._buffers, module._non_persistent_buffers_set)):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_meta and name not in temporary:
                    held[name] = in_memory(tensor)
    state = model.state_dict()  # which knows the modules' versions, too
    state.update(tensors)
    model.load_state_dict(state)
