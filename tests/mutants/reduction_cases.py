"""Calls that reduce many elements to one: choose_qparams, and the sums of codes that matmuls with zero points need.

An element that is lost changes a sum, but a range only where it is the largest or the smallest. So the extremes of
each result stand at another place than those of the one before, and what surrounds a view in memory is larger still.
"""

import math

import torch

from tests.cases import CODE_DTYPES, EDGE_VALUES, FLOAT_DTYPES, codes, generator, normal

from .cases import OpCase

# float16's kernels differ from bfloat16's in the conversions, uint8's from int8's in the sign: no mutant is of these.
REPRESENTATIVES = (torch.float32, torch.bfloat16, torch.int8)


def reduction_cases(float_dtypes=FLOAT_DTYPES, code_dtypes=CODE_DTYPES):
    for dtype in float_dtypes:
        if dtype in REPRESENTATIVES:
            yield from range_cases(dtype)
    for dtype in code_dtypes:
        if dtype in REPRESENTATIVES:
            yield from sum_cases(dtype)


def with_extremes(results, length, dtype, step=1, largest_in=3):
    """Rows whose largest and smallest element are at other places in each row, `step` further.

    Some of the others are not finite. In one row of `largest_in` the two are the largest of their type.
    """
    x = normal(results, length, dtype=dtype, seed=length)
    x[torch.rand(x.shape, generator=generator(length)) < 0.2] = torch.inf
    most = torch.finfo(dtype).max
    for row in range(results):
        low, high = row * step % length, length - 1 - row * step % length
        x[row, low], x[row, high] = (-most, most) if row % largest_in == largest_in - 1 else (-6 - 2 * row, 5 + row)
    return x


def inside(x, around, before=1, after=2):
    """The same values as a part of wider rows, with `around` before and behind."""
    wider = torch.full((*x.shape[:-1], before + x.shape[-1] + after), around, dtype=x.dtype)
    wider[..., ::2] *= -1
    wider[..., before : before + x.shape[-1]] = x
    return wider[..., before : before + x.shape[-1]]


# (results, elements of each, step of the extremes) of rows: a part of a vector, then one for each of 1, 2, 4, ...
# threads, then several for each.
ROWS = ((5, 4, 1), (20, 10, 1), (30, 20, 1), (40, 38, 1), (9, 70, 9), (5, 520, 121), (4, 1030, 300), (3, 2100, 700))
# (elements of each, results) of columns, in vectors and not, in parts and not.
COLUMNS = ((3, 8), (40, 5), (17, 24), (31, 1), (70, 64), (150, 264), (300, 77), (9, 300))
COLUMNS += ((12, 264), (20, 264), (28, 264), (32, 264), (70, 128))
# In so many parts that a joining warp has 1, 2, 3, 4 and more; and half a warp.
COLUMNS += ((768, 17), (1280, 17), (1792, 17), (2112, 17), (768, 13))


def range_cases(dtype):
    def case(x, *scale_shape, symmetric=False, **how):
        return OpCase("choose_qparams", x, scale_shape, symmetric=symmetric, **how)

    large, vector = 3e38, 16 // dtype.itemsize
    for results, length, step in (*ROWS, (34 * vector, 34 * vector, 1), (3, 2100 * vector, 5000)):
        yield case(inside(with_extremes(results, length, dtype, step), large), results, 1)
    for results, length in ((20, 8), (5, 64), (2, 600)):
        yield case(with_extremes(results, length, dtype), results, 1)
    # A head and a tail that are as long as they can be, the extremes at each of their elements.
    for length in (2 * vector - 1, 3 * vector - 3):
        pitch = (length // vector + 2) * vector
        for largest_in in (1, 3):
            x = with_extremes(length, length, dtype, largest_in=largest_in)
            yield case(inside(x, large, 1, pitch - length - 1), length, 1)
    yield case(with_extremes(40, 70, dtype), 40, 1, blocks=1)
    yield case(with_extremes(3, 1030 * vector, dtype, 5000), 3, 1, blocks=1)
    for length, results in COLUMNS:
        x = with_extremes(results, length, dtype, max(1, length // results) | 1).t()
        yield case(x.contiguous() if results % 8 == 0 else inside(x, large), 1, results)
    for shape, scale_shape in nests(vector):
        yield case(normal(*shape, dtype=dtype), *scale_shape)
    # Columns with vectors, of elements in 3, 4 and 5 loops.
    for sizes in ((3, 4, 5), (3, 2, 2, 5), (3, 2, 2, 2, 3)):
        wider = normal(*(size + 1 for size in sizes), 32 * vector, dtype=dtype)
        yield case(part_of_wider(wider, *sizes), *(1 for _ in sizes), 32 * vector)
    # Vectors of one result from several runs: whole, misaligned and in parts.
    for shape in ((80, 20, 13), (80, 9, 16), (3, 9, 48)):
        x = with_extremes(shape[0], shape[1] * shape[2], dtype, 3).view(shape)
        yield case(inside(x, large), shape[0], 1, 1)
    for part in range(1, vector):  # the last of a run's second vector, which is each of a thread's four
        x = normal(32, 32, vector + part, dtype=dtype)
        run = torch.arange(32)
        x[run, run, -1], x[run, 31 - run, -1] = -50, 50
        yield case(inside(x, large, 0, 2 * vector - part), 32, 1, 1)
    # The largest number alone, at each of a thread's elements
    place = torch.arange(4 * 32 * vector)
    slot = place // (32 * vector) * vector + place % vector
    x = torch.where(slot == torch.arange(4 * vector)[:, None], torch.finfo(dtype).max, 0.0)
    yield case(x.to(dtype), 4 * vector, 1)
    x = with_extremes(80, 39 * 13, dtype, 3).view(80, 39, 13)
    yield case(inside(x, large, after=3), 80, 1, 1)  # runs that end at every place of a vector
    yield case(inside(with_extremes(1, 40000, dtype, 7).view(40, 1000), large), 1, 1)
    for symmetric in (True, False):
        for x, scale_shape in permuted(vector):
            yield case(x.to(dtype), *scale_shape, symmetric=symmetric)
    yield case(with_extremes(300, 40, dtype).t().contiguous(), 1, 300, blocks=1)
    yield case(with_extremes(77, 300, dtype).t().contiguous(), 1, 77, blocks=1)
    # One result whose elements are no neighbours, of all warps, and in parts.
    for first in range(0, 256, 32):
        yield case(inside(with_extremes(2, 270, dtype, first + 5)[1:].t(), large), 1, 1)
    yield case(inside(with_extremes(1, 4200, dtype).t(), large), 1, 1)
    yield case(with_extremes(1040, 40, dtype).t().contiguous(), 1, 1040, blocks=1)
    # What becomes of a range: widths of just the largest number, and zeros.
    most = torch.finfo(dtype).max
    high = most * torch.rand(256, generator=generator()).to(dtype)
    widest = torch.stack([high, high - most], 1)
    yield case(widest, 256, 1)
    yield case(widest.t(), 1, 256)
    yield case(widest.t().contiguous(), 1, 256)
    for length in (31, 300):
        x = inside(widest[:77].t().repeat(length, 1), large)
        yield case(x, 1, 77)
        yield case(x, 1, 77, q_max=126)  # 254 steps, which do not divide the largest number
    for x, scale_shape in ((torch.nn.functional.pad(widest, (3, 3)), (256, 1)), (widest.t().contiguous(), (1, 256))):
        yield case(x, *scale_shape, q_max=126)
    yield case(inside(torch.zeros(5, 71, dtype=dtype), 0), 1, 71)
    yield case(inside(torch.zeros(5, 71, dtype=dtype), 0), 1, 71, symmetric=True)
    yield case(torch.zeros(300, 71, dtype=dtype), 1, 71)
    yield case(torch.zeros(300, 71, dtype=dtype), 1, 71, symmetric=True)
    edges = EDGE_VALUES[2:].to(dtype).repeat(7, 1)
    for symmetric in (True, False):
        for x in (edges, edges.t()):
            yield case(x, x.shape[0], 1, symmetric=symmetric)
            yield case(x.contiguous(), 1, x.shape[1], symmetric=symmetric, eps=0.25)
        yield case(edges.repeat(30, 1), 1, edges.shape[1], symmetric=symmetric)
        yield case(torch.zeros(300, 72, dtype=dtype), 1, 72, symmetric=symmetric)
        yield case(torch.zeros(3, 70, dtype=dtype), 3, 1, symmetric=symmetric)


def nests(vector):
    """(shape of x, shape of scale) in which up to 6 loops stay and up to 6 are folded.

    Each dimension gives one loop over its blocks and one over a block's elements. Those of the last dimension make
    single elements, rows with vectors, columns, columns in parts, and columns with vectors.
    """
    for dims in (1, 3, 4, 5, 6):
        size = 3 if dims < 5 else 2
        for blocks, block, least in ((2, 2, 0), (2, vector, 0), (2, 19, 0), (5, 1, 0), (5, 1, 130), (16, 1, 0)):
            sizes = [*[(2, size), (2, 2), (2, 2), (2, 2)][: max(dims - 2, 0)], (blocks, block)]
            if dims > 1:
                sizes.insert(0, (size, max(2, -(-least // math.prod(each for _, each in sizes)))))
            yield tuple(count * size for count, size in sizes), tuple(count for count, _ in sizes)


def permuted(vector):
    """(x, shape of scale) whose results lie in another order than the elements they are of: no two loops merge."""
    for columns, length in ((5, 70), (5, 1300), (4 * vector, 70), (4 * vector, 1300)):
        x = normal(length, 2, 4, columns, seed=columns)[:, :, 1:]
        yield x.permute(3, 2, 1, 0), (columns, 3, 2, 1)
    for length in (37, 2100 * vector):
        x = normal(2, 3, 4, length, seed=length)[:, :, 1:]
        yield x.permute(2, 1, 0, 3), (3, 3, 2, 1)


def sum_cases(dtype):
    one = torch.tensor(1, dtype=torch.int32)

    def case(q, **how):
        other = codes(*q.shape[:-2], q.shape[-1], 1)
        return OpCase("int8_matmul", q, other, b_zero_point=one, **how)

    for results, length in ((5, 3), (20, 9), (12, 49), (3, 530), (2, 1200), (1, 2200), (1, 4200)):
        yield case(codes(results, length + 3, dtype=dtype)[:, 1:-2])
    # Whole vectors to the end, one more or less than the threads take in some rounds.
    for results, vectors in ((20, 1), (5, 4), (2, 40), (2, 60), (2, 64), (2, 72), (2, 1300)):
        yield case(codes(results, 16 * vectors, dtype=dtype))
    yield case(codes(2, 600, dtype=dtype))
    # As many rows as are read together, and 2, 3, 4 times as many, and one more or less.
    for length, results in ((5, 16), (40, 5), (300, 48), (31, 1), (300, 77), (9, 300), (20, 264), (70, 256)):
        yield case(codes(length, results, dtype=dtype).t())
    for rows in (8, 16, 24, 31, 33):
        yield case(codes(rows, 33, dtype=dtype).t())
        yield case(codes(rows, 528, dtype=dtype).t())
    for length, results in ((768, 17), (1280, 17), (1792, 17), (2112, 17), (768, 13)):  # as COLUMNS
        yield case(codes(length, results, dtype=dtype).t())
    for length in (70, 1300):  # results in another order than elements
        yield case(codes(length, 3, 5, dtype=dtype).permute(2, 1, 0))
        yield case(codes(length, 3, 48, dtype=dtype)[..., :32].permute(2, 1, 0))
    yield case(codes(3, 5, 70, dtype=dtype).permute(1, 0, 2))
    for results in (48, 528):  # vectors across, in parts
        yield case(codes(1300, results, dtype=dtype).t())
    # Up to 5 loops over results that cannot be merged.
    for dims in (0, 2, 4):
        batch = (3, 2, 2, 2)[:dims]
        wider = [size + 1 for size in batch]
        for rows, columns in ((3, 37), (5, 4)):
            yield case(part_of_wider(codes(*wider, rows + 1, columns, dtype=dtype), *batch, rows))
        for rows, columns in ((5, 130), (16, 4)):
            yield case(part_of_wider(codes(*wider, columns, rows, dtype=dtype), *batch).transpose(-1, -2))
    # Rows in parts.
    yield OpCase("dynamic_quantize", normal(3, 33000), (3, 1), dtype=dtype, symmetric=False, return_row_sum=True)
    yield case(codes(200, 70, dtype=dtype), blocks=1)
    yield case(codes(5, 5000, dtype=dtype), blocks=1)
    yield case(codes(40, 1040, dtype=dtype).t(), blocks=1)
    yield case(codes(40, 300, dtype=dtype).t(), blocks=1)
    yield case(codes(300, 40, dtype=dtype).t(), blocks=1)


def part_of_wider(x, *sizes):
    return x[tuple(slice(size) for size in sizes)]
