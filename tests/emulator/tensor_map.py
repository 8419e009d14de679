"""Tensor maps: what a kernel is given for an array that it copies in tiles."""

import struct
from dataclasses import dataclass

import numpy as np

MAGIC = 0x50414D54  # as in bulk_copy.cpp
SWIZZLES = {None: 0, "32B": 32, "64B": 64, "128B": 128}


@dataclass(frozen=True, eq=False)
class TensorMap:
    """An argument of Module.launch. In its 128 bytes is an encoding of our own, which no GPU would understand."""

    array: object  # numpy's or, on the CPU, torch's
    view: np.ndarray  # of the same memory
    box: tuple
    swizzle: int  # bytes, 0 for none
    shape: tuple

    def encode(self, address):
        strides = self.view.strides[::-1]
        return struct.pack(
            "<IBBBx Q 5Q 5Q 5H 22x",
            *(MAGIC, len(self.shape), self.view.itemsize, self.swizzle, address),
            *_five(self.shape[::-1]),
            *_five(strides),
            *_five(self.box[::-1]),
        )


def _five(values):
    return (*values, *(0,) * (5 - len(values)))


def tensor_map(array, box, swizzle=None, *, shape=None, element_strides=None):
    """The 128 bytes that a kernel takes as a tensor map of `array`, for tiles of shape `box`.

    box and shape are in the array's order, the contiguous dimension last. swizzle: None, "32B", "64B" or "128B".
    shape: how much of each dimension there is, where rows are longer than what they hold; what lies beyond reads as
    zero and is not written. Refused is what cuTensorMapEncodeTiled refuses, and what is not emulated: interleaved
    layouts, strides between elements, and swizzled boxes whose rows are shorter than the swizzle.
    """
    view = np.asarray(array)
    shape = view.shape if shape is None else tuple(shape)
    box = tuple(box)
    if not 1 <= view.ndim <= 5:
        raise ValueError(f"a tensor map has 1 to 5 dimensions, got {view.ndim}")
    if len(box) != view.ndim or any(not 1 <= size <= 256 for size in box):
        raise ValueError(f"box {box}: {view.ndim} sizes from 1 to 256 were expected")
    if len(shape) != view.ndim or any(not 1 <= size <= most for size, most in zip(shape, view.shape, strict=True)):
        raise ValueError(f"shape {shape} is not within {view.shape}")
    if not view.flags.c_contiguous or any(stride % 16 for stride in view.strides[:-1]):
        raise ValueError(f"strides {view.strides}: all but the last must be multiples of 16 bytes, in C's order")
    if swizzle not in SWIZZLES:
        raise ValueError(f"swizzle {swizzle!r}: one of {', '.join(map(repr, SWIZZLES))} was expected")
    row = box[-1] * view.itemsize
    if row % 16:
        raise ValueError(f"box {box}: its rows of {row} bytes must be multiples of 16")
    if swizzle and row != SWIZZLES[swizzle]:
        raise ValueError(f"box {box}: with a swizzle of {swizzle}, rows of {row} bytes are not emulated")
    if element_strides is not None and any(stride != 1 for stride in element_strides):
        raise ValueError(f"element strides {tuple(element_strides)} are not emulated: 1 alone")
    return TensorMap(array, view, box, SWIZZLES[swizzle], shape)
