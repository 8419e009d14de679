"""Values, shapes and layouts that every test and every backend shares, and what "the same bits" means."""

import importlib
from importlib.util import find_spec

import pytest
import torch

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CODE_DTYPES = (torch.int8, torch.uint8)
MODES = ("onnx", "affine", "reciprocal", "stochastic")

# Where a backend's results are compared with the reference's: the CPU always, CUDA where there is a GPU.
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)

INTEGER_VIEWS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def assert_bits(actual, expected):
    """Same dtype, shape and bits; NaN in the same places, whatever its payload.

    torch.equal is no judge of this: it takes -0 for 0 and never finds NaN equal to itself.
    """
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"shape {list(actual.shape)}, expected {list(expected.shape)}"
    actual, expected = actual.detach().cpu().contiguous(), expected.detach().cpu().contiguous()
    view = INTEGER_VIEWS[actual.element_size()]
    differs = actual.view(view) != expected.view(view)
    if actual.is_floating_point():
        differs &= ~(actual.isnan() & expected.isnan())
    if differs.any():
        index = tuple(differs.nonzero()[0].tolist())
        raise AssertionError(
            f"{int(differs.sum())} of {differs.numel()} elements differ, the first at {index}: "
            f"{actual[index].item()!r}, expected {expected[index].item()!r}"
        )


def in_every_run(devices):
    """Parameters of a test: emulated devices, of which those whose PTX or tiles are others' too are for deep tests."""
    like_others = ("sm_86", "sm_89", "sm_100")
    return [pytest.param(name, marks=pytest.mark.deep) if name in like_others else name for name in sorted(devices)]


def needed(module):
    """A module of a package that is not quaver's own; a test without it is skipped, one with a broken one fails."""
    package = module.split(".")[0]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: requirements/test.txt", allow_module_level=True)
    return importlib.import_module(module)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=generator(seed)).to(dtype)


def codes(*shape, dtype=torch.int8, seed=0):
    """Uniform over all codes of the dtype."""
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max + 1, shape, generator=generator(seed), dtype=dtype)


def zero_points(*shape, dtype=torch.int8, seed=1):
    return codes(*shape, dtype=dtype, seed=seed).to(torch.int32)


def products(*shape, seed=0, most=2**20):
    """int32 products below `most`."""
    return torch.randint(-most, most, shape, generator=generator(seed), dtype=torch.int32)


def scales(*shape, seed=2):
    """Positive scales over several orders of magnitude."""
    return torch.exp2(torch.rand(shape, generator=generator(seed)) * 16 - 12)


# Values where quantization goes wrong: ties of both parities, both sides of a tie, both zeros, denormals, the largest
# and smallest numbers, what overflows, and what is no number.
EDGE_VALUES = torch.tensor(
    [
        *(sign * (whole + half) for sign in (1.0, -1.0) for whole in range(6) for half in (0.0, 0.5)),
        *(sign * near for sign in (1.0, -1.0) for near in (0.49999997, 0.50000006, 1.4999999, 2.5000002)),
        *(126.5, 127.0, 127.49999, 127.5, 128.0, 128.5, 254.5, 255.0, 255.5, 256.0, 511.5, 512.0, 512.5),
        *(-126.5, -127.5, -128.0, -128.5, -129.0, -255.5, -512.5),
        *(0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1.17549435e-38, 1e-30, -1e-30),
        *(8388607.5, 8388608.0, 16777216.0, 2147483648.0, -2147483648.0, 9.3e18),
        *(1e38, -1e38, 3.4028235e38, -3.4028235e38),
        *(float("inf"), float("-inf"), float("nan")),
    ]
)

# Scales whose quotients have ties, are inexact, overflow or vanish.
EDGE_SCALES = (1.0, 0.5, 0.1, 1 / 3, 2.0**-20, 1e-30, 1.17549435e-38, 1e30, 3.4028235e38)

# Sizes at which loops, vectors and tiles end: nothing, one, primes, one less and one more than powers of two.
EDGE_SIZES = (0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 127, 257)


def layouts(x):
    """Views of x's values under other strides and alignments: (name, tensor with x's shape and values)."""
    yield "contiguous", x
    if x.dim() >= 2:
        yield "transposed", x.transpose(0, -1).contiguous().transpose(0, -1)
    if x.dim() == 4:
        yield "channels_last", x.contiguous(memory_format=torch.channels_last)
    if x.dim() >= 1:
        padded = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] + 1, dtype=x.dtype, device=x.device)
        padded[..., 1::2] = x
        yield "every second element", padded[..., 1::2]
        misaligned = torch.zeros(x.numel() + 1, dtype=x.dtype, device=x.device)
        misaligned[1:] = x.reshape(-1)
        yield "misaligned", misaligned[1:].view(x.shape)


# (shape of x, shape of scale): every granularity on ranks 0 to 6.
GRANULARITIES = (
    ((), ()),
    ((5,), ()),
    ((5,), (1,)),
    ((5,), (5,)),
    ((12,), (4,)),
    ((7, 13), (1, 1)),
    ((7, 13), (7, 1)),
    ((7, 13), (1, 13)),
    ((7, 13), (7, 13)),
    ((6, 32), (6, 4)),
    ((6, 32), (3, 4)),
    ((2, 3, 5), (2, 3, 1)),
    ((2, 3, 4, 5), (1, 3, 1, 1)),
    ((2, 3, 4, 5), (2, 1, 4, 1)),
    ((2, 3, 2, 3, 2), (1, 1, 2, 1, 1)),
    ((2, 3, 2, 1, 3, 4), (2, 1, 2, 1, 3, 2)),
    ((0,), ()),
    ((0, 5), (0, 1)),
    ((0, 5), (1, 5)),
    ((5, 0), (5, 1)),
    ((1, 1, 1), (1, 1, 1)),
)
