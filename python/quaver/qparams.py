"""The parameters of a quantization, and the granularities that say which elements share them.

A granularity becomes the *shape of the scale*: as many dimensions as x, each size dividing x's. Elements whose
indices fall into the same block share a scale and a zero point.
"""

from dataclasses import dataclass

import torch

MODES = ("onnx", "affine", "reciprocal", "stochastic")  # ARITHMETIC.md (2)


def in_words(names):
    """'a', 'b' or 'c'."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}"


def _check_int(granularity, name, value):
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{granularity}: {name} must be an int, got {type(value).__name__}")


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor.

    >>> PerTensor().scale_shape((8, 64))
    (1, 1)
    """

    def scale_shape(self, shape):
        return (1,) * len(shape)


@dataclass(frozen=True)
class PerChannel:
    """One scale for each index along `axis`.

    >>> PerChannel(1).scale_shape((8, 3, 32, 32))
    (1, 3, 1, 1)
    """

    axis: int = 0

    def __post_init__(self):
        _check_int("PerChannel", "axis", self.axis)

    def scale_shape(self, shape):
        rank = len(shape)
        if rank == 0:
            raise ValueError("PerChannel: x must have at least 1 dimension, got 0")
        if not -rank <= self.axis < rank:
            raise ValueError(
                f"PerChannel: axis must be between {-rank} and {rank - 1} for x {list(shape)}, got {self.axis}"
            )
        axis = self.axis % rank
        return tuple(size if dim == axis else 1 for dim, size in enumerate(shape))


@dataclass(frozen=True)
class PerToken:
    """One scale for each row: for each index of all dimensions but the last.

    >>> PerToken().scale_shape((2, 5, 64))
    (2, 5, 1)
    """

    def scale_shape(self, shape):
        if len(shape) == 0:
            raise ValueError("PerToken: x must have at least 1 dimension, got 0")
        return (*shape[:-1], 1)


@dataclass(frozen=True)
class PerGroup:
    """One scale for each group of `size` neighbours along the last dimension.

    >>> PerGroup(32).scale_shape((8, 64))
    (8, 2)
    """

    size: int

    def __post_init__(self):
        _check_int("PerGroup", "size", self.size)

    def scale_shape(self, shape):
        if len(shape) == 0:
            raise ValueError("PerGroup: x must have at least 1 dimension, got 0")
        if self.size <= 0 or shape[-1] % self.size != 0:
            raise ValueError(f"PerGroup: size must divide x's last dimension {shape[-1]}, got {self.size}")
        return (*shape[:-1], shape[-1] // self.size)


@dataclass(eq=False)
class QuantizationParams:
    """How real numbers and codes belong together: `x ~ scale * (q - zero_point)` for codes in [q_min, q_max].

    `scale` is float32 and `zero_point` int32, of one shape (see the granularities above). `symmetric` says that the
    zero point is 0 everywhere: products then need no correction, and the ops make none.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    q_min: int
    q_max: int
    symmetric: bool = False

    @property
    def correction(self):
        """The zero point as the ops take it: None where it is known to be 0."""
        return None if self.symmetric else self.zero_point

    def t(self):
        """The parameters of the transposed matrix: a weight's [N, 1] as a product asks for them, [1, N]."""
        return QuantizationParams(self.scale.t(), self.zero_point.t(), self.q_min, self.q_max, self.symmetric)

    def to(self, device):
        """The same parameters on another device."""
        return QuantizationParams(
            self.scale.to(device), self.zero_point.to(device), self.q_min, self.q_max, self.symmetric
        )


_FULL_RANGE = {torch.int8: (-128, 127), torch.uint8: (0, 255)}


def full_range(dtype):
    """All codes of int8 or uint8: (q_min, q_max)."""
    return _FULL_RANGE[dtype]


def qparams_range(dtype, symmetric, q_min, q_max):
    """The codes that choose_qparams aims at: symmetric int8 codes are by default closed under negation."""
    low, high = (-127, 127) if symmetric and dtype == torch.int8 else full_range(dtype)
    return low if q_min is None else q_min, high if q_max is None else q_max
