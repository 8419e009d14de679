"""Tensors in a safetensors file: written whole or not at all, read with an error in words for what is no such file.

Neither needs numpy, which safetensors.torch would.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, TensorSpec, safe_open, serialize_file

LARGEST_HEADER = 100_000_000  # bytes: safetensors' own limit


@contextlib.contextmanager
def saying(words):
    """ValueErrors inside begin with these words: what was done, and to which file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{words}: {error}") from error


def distinct(state):
    """({name: tensor}, {name: the name of the tensor that it is}): what is one in memory stands in the first alone.

    The tensors are contiguous and on the CPU. Raises ValueError for what has no values that a file could hold.
    """
    tensors, aliases, names = {}, {}, {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name!r} of the state must be a tensor, got {type(tensor).__name__}")
        if hasattr(tensor, "full_tensor"):
            raise ValueError(f"{name!r} is a DTensor, in parts on several devices: only whole tensors can be saved")
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "on the device meta" if tensor.is_meta else f"of the layout {tensor.layout}"
            raise ValueError(f"{name!r} must be a dense tensor with values, got one {kind}")
        first = names.setdefault(place_of(tensor), name) if tensor.numel() else name
        if first == name:
            tensors[name] = tensor.detach().cpu().contiguous()
        else:
            aliases[name] = first
    return tensors, aliases


def place_of(tensor):
    """Equal for tensors that are one in memory; on meta, which is none, for one object."""
    start = id(tensor) if tensor.is_meta else tensor.data_ptr()
    return tensor.device, start, tensor.dtype, tensor.shape, tensor.stride()


def same_bits(a, b):
    """Of tensors of one dtype and shape."""
    return a is b or torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b)))


@contextlib.contextmanager
def replacing(path):
    """Where to write what shall be at `path`: it comes there at the end of the block, and not at all after an error."""
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        written = Path(folder, path.name)
        yield written
        os.replace(written, path)


def write_tensors(path, tensors, metadata):
    """Contiguous tensors of the CPU and texts by name; `path` has its old content until all of the new one is there."""
    with replacing(path) as written:
        written.touch()  # with the permissions of new files here: safetensors gives it others
        permissions = written.stat().st_mode
        try:
            serialize_file({name: _spec(tensor) for name, tensor in tensors.items()}, written, metadata)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        written.chmod(permissions)


def _spec(tensor):
    return TensorSpec(
        dtype=dtype_name(tensor), shape=list(tensor.shape), data_ptr=tensor.data_ptr(), data_len=tensor.nbytes
    )


def read_tensors(path):
    """({name: tensor}, {name: text}) of a safetensors file. The tensors are the file's memory: for copying.

    Raises ValueError for a file that is none, or not whole.
    """
    _check_header_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"no safetensors file, or a part of one: {error}") from error


def _check_header_size(path):
    """Before anything is read by a number that the file gives."""
    with open(path, "rb") as file:
        announced = int.from_bytes(file.read(8), "little")
        size = file.seek(0, os.SEEK_END)
    if announced > LARGEST_HEADER:
        raise ValueError(f"no safetensors file: it announces a header of {announced} bytes, more than {LARGEST_HEADER}")
    if size < 8 + announced:
        raise ValueError(f"no safetensors file, or a part of one: {size} bytes, less than a header of {announced}")


def digest(description, tensors):
    """SHA-256 of what JSON can hold and of tensors: their names, dtypes, shapes and bytes."""
    made = hashlib.sha256(_text(description))
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        made.update(_text([name, dtype_name(tensor), list(tensor.shape)]))
        if tensor.nbytes:
            made.update((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
    return made.hexdigest()


def _text(value):
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def join(module, name):
    """A tensor's name in the state of a model that has a module of that name; "" is the model itself."""
    return f"{module}.{name}" if module else name


def dtype_name(tensor):
    return str(tensor.dtype).removeprefix("torch.")
