"""Calls of rms_norm_quantize and silu_mul_quantize, whose kernels hold rows of two tensors in registers.

They are mutated in their instances for float32, whose vectors have 4 elements: other types differ in the number of
these and in arithmetic. The type of codes is no part of a kernel but of its arguments; the weight's type is one, and
each of the three has loads of its own.
"""

import torch

from tests.cases import EDGE_VALUES, FLOAT_DTYPES, generator, normal

from .cases import OpCase
from .elementwise_cases import NEAR_TIE, OF_SMALL_SCALE, every_second, misaligned, near_ties, sprinkled
from .reduction_cases import inside, part_of_wider

VECTOR = 4
SLOTS = 4 * VECTOR  # elements that a thread holds
LARGE = 1000.0  # around a row in memory, so that what is read too much shows

# Lengths of rows: a part of a vector that is a thread's first, second, third or fourth; whole vectors; rows of a warp,
# and of 2, 4, 8, 16 and 32.
PARTS = tuple(32 * VECTOR * number + part for number in range(4) for part in (1, 2, 3))
LENGTHS = (*PARTS, 8, 391, 512, 514, 900, 1029, 2050, 4100, 8200, 16384)


def row_cases(float_dtypes=FLOAT_DTYPES, *_):
    if torch.float32 in float_dtypes:
        yield from rms_norm_cases()
        yield from silu_mul_cases()


def rms_norm_cases():
    def case(x, weight, **how):
        return OpCase("rms_norm_quantize", x, weight, **how)

    for number, (x, residual, how) in enumerate(pairs()):
        dtype = FLOAT_DTYPES[number % 3]
        weight = normal(x.shape[-1], dtype=dtype, seed=2)
        yield case(x, weight, residual=residual, **how)
        if number % 2:
            yield case(x, weight, return_row_sum=True)
    # Weights of each type that are aligned, or not
    for dtype in FLOAT_DTYPES:
        for length in (*PARTS, 5, 512, 514):
            x = normal(3, length, seed=length)
            yield case(x, misaligned(normal(length, dtype=dtype, seed=2)), symmetric=False)
            yield case(x, normal(length, dtype=dtype, seed=2), return_row_sum=True)
    # A root of 1, so that a row becomes the weight's numbers, or four times those that one slot of each thread holds.
    for weights, how in rows_to_quantize():
        for weight in weights:
            yield case(torch.ones(1, len(weight)), weight, eps=1e-46, **how)
    most = torch.finfo(torch.float32).max / 4
    for value in (most, -most, torch.inf, torch.nan):
        for symmetric in (True, False):
            yield case(slots(4.0), torch.full((32 * SLOTS,), value), eps=1e-46, symmetric=symmetric)


def silu_mul_cases():
    def case(gate, up, **how):
        return OpCase("silu_mul_quantize", gate, up, **how)

    for gate, up, how in pairs():
        yield case(gate, up, **how)
    # silu(32) is 32 exactly: the products are any numbers.
    for y, how in rows_to_quantize():
        yield case(torch.full_like(y, 32.0), y / 32, **how)
    most = torch.finfo(torch.float32).max
    for value in (most, -most, torch.inf, torch.nan):
        y = slots(value)
        for symmetric in (True, False):
            yield case(torch.full_like(y, 32.0), y / 32, symmetric=symmetric)
    # The exponential's ends, its powers of two, and what is no number, in each slot.
    gate = torch.cat([EDGE_VALUES, torch.arange(-110, 95) * 0.5, torch.tensor([87.5, 88.8, 89.5, -103.5, -104.5, 200])])
    for shift in range(SLOTS):
        gate = gate.roll(1 if shift % 4 else 128)
        yield case(gate[None].repeat(1, 2)[:, :512], torch.ones(1, 512), symmetric=shift % 2 == 0)


def pairs():
    """Two tensors of one shape, and options: rows of every length, near each other in memory or each in its own way."""
    sums, asymmetric = {"return_row_sum": True}, {"symmetric": False}
    for length in LENGTHS:
        rows = 9 if length <= 512 else 3 if length <= 2050 else 2
        first, second = normal(rows, length, seed=length), normal(rows, length, seed=length + 1)
        yield first, second, sums
        if length == 16384:
            continue
        yield inside(first, LARGE), second, asymmetric
        yield first, inside(second, LARGE), asymmetric | sums
        yield spread(first), second, {}
        yield first, spread(second), sums
    yield normal(9, 0), normal(9, 0), asymmetric | sums
    # Blocks that take rows again and again
    for rows, length in ((40, 60), (20, 600), (9, 1100), (4, 2100), (3, 4200), (3, 8200)):
        yield normal(rows, length), normal(rows, length, seed=1), asymmetric | sums | {"blocks": 1}
        yield normal(rows, length), normal(rows, length, seed=1), {"blocks": 1}
    yield normal(40, 60), normal(40, 60, seed=1), {"blocks": 2}
    # Rows in loops that cannot be merged
    for sizes in ((3, 4), (2, 3, 4), (2, 2, 3, 3)):
        wider = [size + 1 for size in sizes]
        for length in (20, 600):
            first = part_of_wider(normal(*wider, length), *sizes)
            second = normal(*reversed(sizes), length, seed=1).permute(*reversed(range(len(sizes))), len(sizes))
            yield first, second, asymmetric | sums
    yield normal(70), normal(70, seed=1), sums
    yield normal(1, 300).expand(5, 300), normal(5, 1).expand(5, 300), asymmetric


def spread(x):
    """x with a large number behind each of its elements."""
    wider = every_second(x)
    wider.as_strided(wider.shape, wider.stride(), 1).fill_(LARGE)
    return wider


def slots(value):
    """Rows, of a thread's slots: `value` in one slot of each thread of a warp, and zeros."""
    place = torch.arange(32 * SLOTS)
    slot = place // (32 * VECTOR) * VECTOR + place % VECTOR
    return torch.where(slot == torch.arange(SLOTS)[:, None], value, 0.0)


def rows_to_quantize():
    """What is quantized, and options: scales found from single elements, quotients that are halves, widest ranges."""
    sums, asymmetric = {"return_row_sum": True}, {"symmetric": False}
    # The largest or the smallest number at another place in each row.
    x = normal(2 * SLOTS, 32 * SLOTS)
    for row in range(len(x)):
        place = slots(1.0)[row % SLOTS].nonzero()[row]
        x[row, place] = 50.0 + row if row < SLOTS else -50.0 - row
    yield x, sums
    yield sprinkled(sprinkled(normal(3, 700), float("nan")), float("inf"), seed=4), asymmetric
    y, scale = near_ties(
        11, 512, torch.float32, exponents=(-119, -61, -59, -30, 0, 40, 59, 61, 100, 110, 119), most=127
    )
    y[:, :1] = 127 * scale
    yield y, sums
    yield torch.zeros(1, 70), asymmetric | sums
    yield EDGE_VALUES.repeat(2)[None], asymmetric
    yield torch.tensor([[8 * NEAR_TIE, NEAR_TIE]]), OF_SMALL_SCALE
    # The range is the largest float, or no float; 254 steps do not divide it.
    largest = torch.finfo(torch.float32).max
    highest = largest * torch.rand(16, 1, generator=generator())
    yield torch.cat([highest, highest - largest], 1), asymmetric | {"q_max": 126}
    highest = torch.tensor([[2.9e38], [2.2e38], [1.9e38], [1.8e38]])
    yield torch.cat([highest, -highest], 1), asymmetric
