"""Calls of requantize, in both modes, and of rescale: small ones that reach every branch of their kernels."""

import torch

from tests.cases import codes, generator, normal, products, scales, zero_points

from .cases import OpCase
from .elementwise_cases import every_second, misaligned, padded

MODES = ("float", "fixed")

# Of whole vectors: shape of acc, shapes of the row's and of the columns' parameters. The last row is in each of the
# two that a thread reads at once; threads are 1 to 256 side by side; there are parts of rows, tiles of columns, and
# planes of one loop, two or three.
ROWS = (
    ((1, 256), (), ()),
    ((1, 1028), (1, 1), (1, 1028)),
    *(((rows, 128), (rows, 1), (1, 128)) for rows in (9, 17, 34)),
    *(((rows, 128), (), (1, 128)) for rows in (9, 17, 34)),
    ((20, 132), (20, 1), (1, 132)),
    ((70, 260), (70, 1), (1, 260)),
    ((2, 40, 132), (2, 40, 1), (2, 1, 132)),
    ((29, 260), (29, 1), ()),
    ((36, 128), (36, 1), (1, 128)),
    ((1030, 4), (1030, 1), (1, 4)),
    ((130, 12), (), (1, 12)),
    ((2, 3, 12, 32), (2, 3, 12, 1), (2, 3, 1, 32)),
    ((2, 2, 2, 9, 32), (2, 1, 2, 9, 1), (1, 2, 1, 1, 32)),
    ((2, 2, 2, 9, 32), (2, 1, 2, 9, 1), (1, 2, 2, 1, 32)),
)
ELEMENTS = (
    ((5, 33), (5, 1), (1, 33)),
    ((2, 3, 4, 5), (2, 3, 4, 1), (2, 3, 1, 5)),
    ((3, 2, 2, 2, 2, 3), (3, 1, 2, 2, 2, 1), (2, 1, 2, 1, 3)),
)


def factors(row, column):
    return scales(*row), scales(*column, seed=3), 2.0**12 * scales(*column, seed=4)


def bias_of(mode, n):
    return normal(n) if mode == "float" else products(n, most=2**16)


def requantize_cases(*_):
    for mode in MODES:
        for shape, row, column in (*ROWS, *ELEMENTS):
            options = {"out_zero_point": zero_points(*column), "bias": bias_of(mode, shape[-1]), "mode": mode}
            yield OpCase("requantize", products(*shape), *factors(row, column), **options)
            yield OpCase("requantize", products(*shape, seed=1), *factors(row, column), relu=True, mode=mode)
        yield from of_each_layout(mode)
        yield from edges(mode)
    yield from near_ties()


def of_each_layout(mode):
    acc, column = products(10, 64), factors((10, 1), (1, 64))
    for view in (padded(acc), misaligned(acc), every_second(acc), acc.t().contiguous().t()):
        yield OpCase("requantize", view, *column, bias=bias_of(mode, 64), mode=mode)
    yield OpCase("requantize", products(2, 5, 24, 12).movedim(1, -1), *factors((), (1, 5)), mode=mode)
    # Loops over planes in which each operand has another step than the next one
    planes = products(3, 5, 9, 72)[:, :4]
    for columns in (slice(64), slice(1, 64)):
        n = len(range(*columns.indices(72)))
        given = scales(3, 4, 9, 1), scales(1, 4, 1, n), scales(3, 1, 1, n)
        yield OpCase("requantize", planes[..., columns], *given, out_zero_point=zero_points(3, 4, 1, n), mode=mode)
    yield OpCase("requantize", products(3, 201), *factors((3, 1), (1, 201)), mode=mode, blocks=2)
    yield OpCase("requantize", products(201), *factors((), ()), mode=mode)
    # Products and codes that lie apart in different ways; a thread with more rows than it reads at once
    yield OpCase("requantize", products(36, 136)[:, :128], *factors((36, 1), (1, 128)), mode=mode)
    yield OpCase("requantize", products(36, 136)[:, :128], *factors((), (1, 128)), mode=mode)
    yield OpCase("requantize", products(4200, 128), *factors((), (1, 128)), mode=mode)
    # Scales and zero points that change from plane to plane, each in its own way
    acc_planes = products(2, 3, 12, 32)
    a_scale, b_scale, out_scale = (
        scales(2, 3, 1, 1).expand(2, 3, 12, 1),
        scales(3, 1, 32),
        2.0**12 * scales(2, 5, 1, 32),
    )
    yield OpCase("requantize", acc_planes, a_scale, b_scale, out_scale[:, 1:4], mode=mode)
    part = products(2, 4, 12, 32)[:, 1:]
    yield OpCase("requantize", part, a_scale, b_scale, out_scale[:, 1:4], mode=mode)
    for given in ((b_scale, out_scale[:, 1:4]), (out_scale[:, 1:4], 2.0**24 * b_scale)):
        points = zero_points(2, 4, 1, 32)[:, 1:]
        yield OpCase("requantize", acc_planes, scales(), *given, out_zero_point=points, mode=mode)
        small_planes = products(2, 3, 4, 5)
        given = (each[..., :5] for each in given)
        yield OpCase("requantize", small_planes, scales(), *given, out_zero_point=points[..., :5], mode=mode)
    # Parameters that are neighbours, but not aligned; of each kind alone; and those that lie each in its own way
    one = torch.tensor(2.0**-6)
    for values in (scales(1, 65)[:, 1:], scales(1, 64)):
        yield OpCase("requantize", acc, one, values, one, mode=mode)
        yield OpCase("requantize", acc, one, one, values, mode=mode)
    yield OpCase("requantize", acc, one, one, one, out_zero_point=codes(1, 67).to(torch.int32)[:, 3:], mode=mode)
    yield OpCase("requantize", acc, one, one, one, bias=bias_of(mode, 65)[1:], mode=mode)
    yield OpCase("requantize", acc, one, one, one, bias=bias_of(mode, 1).expand(64), mode=mode)
    yield OpCase("requantize", acc, scales(30, 3)[::3, 1:2], one, one, mode=mode)
    yield OpCase("requantize", acc, *factors((10, 1), (1, 64)), dtype=torch.uint8, q_min=3, q_max=200, mode=mode)


def edges(mode):
    """Multipliers that are powers of 2 and others, with products that they bring to ties, that overflow and vanish."""
    powers = torch.exp2(torch.tensor([-40.0, -33, -32, -31, -20, -8, -2, -1, 0, 1, 2, 7, 20, 29, 30, 40, 100, 127]))
    numbers = [sign * (2**n + d) for n in range(31) for d in (-1, 0, 1) for sign in (1, -1)]
    ends = [*(4 * [0]), *(4 * [-(2**31)]), *(4 * [2**31 - 1]), 1 - 2**31, 2**31 - 2]
    acc = torch.tensor([*numbers, *ends], dtype=torch.int32).expand(len(powers), -1)
    one = torch.tensor(1.0)
    for relu in (False, True):
        yield OpCase("requantize", acc.contiguous(), powers[:, None], one, one, relu=relu, mode=mode)
        by_column = torch.cat([powers.roll(part) for part in range(4)])[None]
        yield OpCase("requantize", acc.repeat(4, 1).t().contiguous(), one, by_column, one, relu=relu, mode=mode)
        yield OpCase("requantize", acc[:, 1:], powers[:, None], one, one, relu=relu, mode=mode)
    # A multiplier that rounds to the next power of 2, with one scale of a's and with one for each row.
    small = products(9, 128, most=300)
    next_power = (torch.tensor(1 - 2.0**-17), torch.tensor(1 + 2.0**-17), torch.tensor(2.0))
    yield OpCase("requantize", small, *next_power, mode=mode)
    yield OpCase("requantize", small, next_power[0].repeat(9, 1), *next_power[1:], mode=mode)
    yield OpCase("requantize", small[:, 1:], *next_power, mode=mode)


def near_ties():
    """In mode float: results that are halves of out_scale, or next to them, and that are no number."""
    acc, one = products(33, 320, most=300), torch.tensor(1.0)
    exponents = torch.tensor([-125.0, -61, -60, -59, 0, 59, 60, 61, 122, 126])
    for part in range(4):  # each in each of a vector's columns
        significand = torch.randint(2**22, 2**23, (1, 320), generator=generator(part)) * 2.0**-22
        scale = significand * torch.exp2(exponents.roll(part).repeat(32))
        for given in (torch.tensor(0.5), torch.tensor(0.1), torch.tensor(0.7)):
            yield OpCase("requantize", acc, given, scale, scale)
        yield OpCase("requantize", acc, one, scale * 2.0**-1, scale, bias=scale[0])
    no_numbers = torch.tensor([float("nan"), 0.5, float("inf"), -float("inf"), 1.0]).repeat(64)
    for rows in (9, 33):
        yield OpCase("requantize", acc[:rows], one, one, one, bias=no_numbers, out_zero_point=zero_points(1, 320))
    yield OpCase("requantize", acc[:2, 1:], one, one, one, bias=no_numbers[1:], out_zero_point=zero_points(1, 319))


def rescale_cases(dtypes=(torch.float32, torch.float16, torch.bfloat16), *_):
    one = torch.tensor(1.0)
    for dtype in dtypes:
        for shape, row, column in (*ROWS, *ELEMENTS):
            given, bias = factors(row, column)[:2], normal(shape[-1])
            yield OpCase("rescale", products(*shape), *given, bias=bias, dtype=dtype)
            yield OpCase("rescale", products(*shape, seed=1), *given, relu=True, dtype=dtype)
        acc, column = products(10, 64), factors((10, 1), (1, 64))[:2]
        for view in (padded(acc), misaligned(acc), every_second(acc), acc.t().contiguous().t()):
            yield OpCase("rescale", view, *column, bias=normal(64), dtype=dtype)
        yield OpCase("rescale", products(2, 5, 24, 12).movedim(1, -1), *factors((), (1, 5))[:2], dtype=dtype)
        planes = products(3, 5, 9, 72)[:, :4]
        for columns in (slice(64), slice(1, 64)):
            n = len(range(*columns.indices(72)))
            yield OpCase("rescale", planes[..., columns], scales(3, 4, 9, 1), scales(1, 4, 1, n), dtype=dtype)
        yield OpCase("rescale", products(3, 201), *factors((3, 1), (1, 201))[:2], dtype=dtype, blocks=2)
        yield OpCase("rescale", products(201), scales(), scales(), dtype=dtype)
        yield OpCase("rescale", products(36, 136)[:, :128], *factors((36, 1), (1, 128))[:2], dtype=dtype)
        yield OpCase("rescale", products(4200, 128), *factors((), (1, 128))[:2], dtype=dtype)
        for acc_planes in (products(2, 3, 12, 32), products(2, 3, 4, 5)):
            n = acc_planes.shape[-1]
            yield OpCase("rescale", acc_planes, scales(2, 3, 1, 1).expand(2, 3, n, 1)[:, :, : acc_planes.shape[2]],
                         scales(2, 5, 1, n)[:, 1:4], dtype=dtype)  # fmt: skip
        for values in (scales(1, 65)[:, 1:], scales(1, 64)):
            yield OpCase("rescale", acc, one, values, dtype=dtype)
        yield OpCase("rescale", acc, one, one, bias=normal(65)[1:], dtype=dtype)
        yield OpCase("rescale", acc, one, one, bias=normal(1).expand(64), dtype=dtype)
        yield OpCase("rescale", acc, scales(30, 3)[::3, 1:2], one, dtype=dtype)
        # Zeros of both signs, with and without a bias; what is no number, through ReLU; what rounds in each type
        signs = torch.tensor([0.0, -0.0, float("nan"), -float("inf"), float("inf"), 1.0, -1.0, 2.0**-24]).repeat(8)
        small = products(10, 64, most=3)
        for view in (small, misaligned(small)):
            for relu in (False, True):
                yield OpCase("rescale", view, one, one, bias=signs, relu=relu, dtype=dtype)
                yield OpCase("rescale", view, -one, one, relu=relu, dtype=dtype)
            yield OpCase("rescale", view * 0, -one, one, bias=signs, dtype=dtype)
        for relu in (False, True):  # in each of the rows that a thread reads at once
            yield OpCase("rescale", products(34, 128, most=3), -torch.ones(34, 1), one, relu=relu, dtype=dtype)
        for values in (
            normal(65)[1:],
            scales(1, 65)[0, 1:],
        ):  # each of a vector's biases and scales that is not aligned
            yield OpCase("rescale", products(34, 64), scales(34, 1), values.abs()[None], bias=values, dtype=dtype)
        ends = torch.tensor(
            [-(2**31), 2**31 - 1, 2**24 + 1, 2**24 + 3, -(2**24) - 1, 2049, 2051, 257, 259, 65519, 65520]
        )
        wide = ends.to(torch.int32).repeat(64)[:640].reshape(10, 64)
        for view in (wide, misaligned(wide)):
            yield OpCase("rescale", view, one, one, dtype=dtype)
            yield OpCase("rescale", view, one * 2.0**-30, one * 2.0**-126, dtype=dtype)
