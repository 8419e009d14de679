"""Calls of quaver's ops: small, with tails, odd sizes and misaligned pointers, to reach every branch of the kernels.

Each gives the reference's bits when its kernels are right; what it reaches is measured, and what nothing reaches is
reported.
"""

from functools import cached_property

import numpy as np
import torch

from quaver import reference
from quaver.library import as_tuple
from tests.cases import assert_bits
from tests.emulator import emulated

DEVICE = "sm_80"
GUARD = 2**19  # bytes
ALIGNMENT = 64  # of the memory that torch gives


def apart(value):
    """A tensor of the same bytes and strides with nobody's memory around its own; else the value.

    What a mutant reads beyond a tensor could be another one's, wherever these happen to lie, and nothing would show.
    """
    if not isinstance(value, torch.Tensor) or value.untyped_storage().nbytes() == 0:
        return value
    storage = value.untyped_storage()
    memory = np.empty(storage.nbytes() + 2 * GUARD, np.uint8)  # pages that nobody touches cost nothing
    begin = GUARD + -memory.ctypes.data % ALIGNMENT
    own = torch.frombuffer(memory, dtype=torch.uint8, offset=begin, count=storage.nbytes()).untyped_storage()
    own.copy_(storage)
    return value.new_empty(0).set_(own, value.storage_offset(), value.shape, value.stride())


class OpCase:
    """One call of an op, compared with the reference. With `blocks`, its grids are cut to so many: kernels stride.

    Matmuls run `plan`, (a number in csrc/cuda/plan.h, parts of K); without one, what their plan says.
    """

    def __init__(self, op, *args, blocks=None, plan=(-1, 1), **kwargs):
        self.op, self.blocks, self.plan = op, blocks, plan
        self.args = [apart(value) for value in args]
        self.kwargs = {name: apart(value) for name, value in kwargs.items()}

    @cached_property
    def expected(self):
        return as_tuple(getattr(reference, self.op)(*self.args, **self.kwargs))

    def run(self, launch, seed):
        """Raises what a test would: a report, different bits, an op's error. Kernels run as `launch` has it."""

        def cut(module, name, *, grid, **how):
            if self.blocks is not None:
                grid = (min(grid[0], self.blocks), *grid[1:])
            return launch(module, name, grid=grid, **how)

        plan = emulated.matmul_plan(*self.plan)
        with plan, emulated.launched_by(cut), emulated.device(DEVICE, seed=seed):
            actual = getattr(emulated.ops(), self.op)(*self.args, **self.kwargs, **self.places())
        for got, wanted in zip(as_tuple(actual), self.expected, strict=True):
            assert_bits(got, wanted)

    def places(self):
        """The arguments that say where results go; none: where the op puts them."""
        return {}


class PlacedCase(OpCase):
    """A call whose result begins `offset` elements behind an aligned address."""

    def __init__(self, offset, *args, **options):
        super().__init__(*args, **options)
        self.offset = offset

    def places(self):
        (expected,) = self.expected
        memory = torch.zeros(self.offset + expected.numel(), dtype=expected.dtype)
        return {"out": memory[self.offset :].view(expected.shape)}
