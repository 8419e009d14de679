"""Properties of the ops for whatever hypothesis comes up with; what it finds it makes small."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quaver
from quaver import library, reference
from quaver.draw import Draw
from quaver.library import as_tuple
from quaver.qparams import full_range
from tests.cases import CODE_DTYPES, FLOAT_DTYPES, assert_bits

ops = torch.ops.quaver

# Some 2 s for each property; the same examples every time.
BOUNDED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FINITE = {dtype: torch.finfo(dtype).max for dtype in FLOAT_DTYPES}


@st.composite
def float_tensors(draw, least_rank=0, finite=False):
    """Every number of the dtype, in any strides."""
    dtype = draw(st.sampled_from(FLOAT_DTYPES))
    shape = draw(st.lists(st.integers(0, 5), min_size=least_rank, max_size=5))
    order = draw(st.permutations(range(len(shape))))
    step = draw(st.integers(1, 2))
    width = torch.finfo(dtype).bits
    number = st.floats(width=16 if width == 16 and dtype == torch.float16 else 32, allow_nan=not finite)
    if finite:
        number = number.filter(math.isfinite)
    count = math.prod(shape)
    values = torch.tensor(draw(st.lists(number, min_size=count, max_size=count)), dtype=torch.float32)
    values = values.clamp(-FINITE[dtype], FINITE[dtype]) if finite else values
    flat = torch.zeros(step * count, dtype=dtype)
    flat[::step] = values.to(dtype)
    strided = flat[::step].view([shape[dim] for dim in order])
    return strided.permute([order.index(dim) for dim in range(len(shape))])


@st.composite
def with_blocks(draw, tensors):
    """A tensor and the shape of a scale for it."""
    x = draw(tensors)
    divisors = [[count for count in range(1, size + 1) if size % count == 0] or [1] for size in x.shape]
    return x, [draw(st.sampled_from(counts)) for counts in divisors]


POSITIVE = st.floats(2.0**-149, 2.0**127, width=32, allow_subnormal=True)


@BOUNDED
@given(st.sampled_from(library.OPS), st.randoms(use_true_random=False))
def test_every_op_equals_the_reference(op, random):
    arguments = Draw(random, most=100).call(op)
    results = as_tuple(getattr(ops, op)(**arguments))
    for actual, expected in zip(results, as_tuple(getattr(reference, op)(**arguments)), strict=True):
        assert_bits(actual, expected)


@BOUNDED
@given(with_blocks(float_tensors()), st.sampled_from(CODE_DTYPES), st.data())
def test_quantize_and_dequantize(x_and_blocks, dtype, data):
    """Equal to the reference; codes stay in their range, and codes that were made of codes are the same codes."""
    x, blocks = x_and_blocks
    low, high = full_range(dtype)
    q_min = data.draw(st.integers(low, high - 1))
    q_max = data.draw(st.integers(q_min + 1, high))
    count = math.prod(blocks)
    scale = torch.tensor(data.draw(st.lists(POSITIVE, min_size=count, max_size=count))).view(blocks)
    points = data.draw(st.lists(st.integers(q_min, q_max), min_size=count, max_size=count))
    zero_point = torch.tensor(points, dtype=torch.int32).view(blocks)
    options = {"q_min": q_min, "q_max": q_max, "dtype": dtype, "mode": data.draw(st.sampled_from(["onnx", "affine"]))}
    q = ops.quantize(x, scale, zero_point, **options)
    assert_bits(q, reference.quantize(x, scale, zero_point, **options))
    assert bool(((q >= q_min) & (q <= q_max)).all())
    real = ops.dequantize(q, scale, zero_point)
    assert_bits(real, reference.dequantize(q, scale, zero_point))
    # s * (q - z) is rounded: 255 steps of a denormal scale, or of one that overflows, cannot be told apart again.
    if count and float(scale.min()) >= 1.2e-38 and float(scale.max()) < 1e36:
        assert_bits(ops.quantize(real, scale, zero_point, **options), q)


@BOUNDED
@given(with_blocks(float_tensors()), st.booleans(), st.sampled_from(CODE_DTYPES))
def test_parameters_fit_what_they_were_chosen_for(x_and_blocks, symmetric, dtype):
    """Positive and finite for every input; and dynamic_quantize is choose_qparams and quantize."""
    x, blocks = x_and_blocks
    options = {"symmetric": symmetric, "dtype": dtype}
    if symmetric and dtype == torch.uint8:
        options["q_min"] = 0
    scale, zero_point = ops.choose_qparams(x, blocks, **options)
    for actual, expected in zip((scale, zero_point), reference.choose_qparams(x, blocks, **options), strict=True):
        assert_bits(actual, expected)
    assert bool((scale > 0).all())
    assert bool(scale.isfinite().all())
    q, its_scale, its_zero_point, _ = ops.dynamic_quantize(x, blocks, **options)
    assert_bits(its_scale, scale)
    assert_bits(its_zero_point, zero_point)
    low = -127 if symmetric and dtype == torch.int8 else full_range(dtype)[0]
    assert_bits(q, ops.quantize(x, scale, zero_point, q_min=low, q_max=full_range(dtype)[1], dtype=dtype))


@BOUNDED
@given(with_blocks(float_tensors()), st.sampled_from(CODE_DTYPES))
def test_layout_changes_no_bit(x_and_blocks, dtype):
    x, blocks = x_and_blocks
    for actual, expected in zip(
        ops.dynamic_quantize(x, blocks, symmetric=False, dtype=dtype),
        ops.dynamic_quantize(x.contiguous(), blocks, symmetric=False, dtype=dtype),
        strict=True,
    ):
        assert_bits(actual, expected)


@BOUNDED
@given(float_tensors(least_rank=1, finite=True))
def test_negation(x):
    """Symmetric int8 codes are closed under negation: -x has the code -q, at the same scale."""
    q, params = quaver.dynamic_quantize(x, quaver.PerToken())
    negated, its_params = quaver.dynamic_quantize(-x, quaver.PerToken())
    assert_bits(its_params.scale, params.scale)
    assert_bits(negated, -q)


@BOUNDED
@given(st.integers(1, 4), st.integers(0, 9), st.integers(1, 4), st.data())
def test_a_row_does_not_see_its_neighbours(m, k, n, data):
    """Of a product and of a linear layer: the bits of a row are those that it has alone."""
    random = data.draw(st.randoms(use_true_random=False))
    draw = Draw(random, most=100)
    x, weight_q, scale = draw.floats([m, k], torch.float32), draw.codes([n, k], torch.int8), draw.scales([n, 1])
    for symmetric in (True, False):
        y = ops.int8_linear(x, weight_q, scale, symmetric=symmetric)
        for row in range(m):
            assert_bits(ops.int8_linear(x[row : row + 1], weight_q, scale, symmetric=symmetric), y[row : row + 1])


@BOUNDED
@given(st.randoms(use_true_random=False))
def test_requantizing_is_quantizing_what_was_dequantized(random):
    """Equation (8): the fused op equals the two that it stands for, with no rounding between."""
    draw = Draw(random, most=100)
    arguments = draw.call("int8_matmul_requantize")
    names = ("out_scale", "out_zero_point", "q_min", "q_max", "dtype")
    out = {name: arguments.pop(name) for name in names if name in arguments}
    if arguments.keys() - {a.name for a in ops.int8_matmul_dequantize.default._schema.arguments}:
        return  # a mode whose result is no quantized float
    y = ops.int8_matmul_dequantize(**arguments)
    q = ops.int8_matmul_requantize(**arguments, **out)
    parameters = {name: broadcast(out.get(name), y) for name in ("out_scale", "out_zero_point")}
    limits = {name: out[name] for name in ("q_min", "q_max", "dtype") if name in out}
    assert_bits(q, ops.quantize(y, parameters["out_scale"], parameters["out_zero_point"], **limits))


def broadcast(parameter, y):
    """One for each column, as quantize asks for them."""
    if parameter is None:
        return None
    single = parameter.reshape(()) if parameter.numel() == 1 else parameter
    return single.expand(*y.shape[:-2], 1, y.shape[-1])


def test_examples_are_small_where_they_fail():
    """A defect at one value is found, and shown at one value."""

    @settings(BOUNDED, max_examples=300)
    @given(float_tensors(least_rank=1))
    def wrong(x):
        assert not bool((x.abs() > 1000).any())

    with pytest.raises(AssertionError) as failed:
        wrong()
    assert any("x=tensor([" in note for note in failed.value.__notes__)
