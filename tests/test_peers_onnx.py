"""ONNX's own node tests and onnxruntime, number for number.

ONNX states the default arithmetic, and onnxruntime computes it, so equality is exact; NaN, of which neither says
anything, is left out. Where onnxruntime computes something else, that is written out here and shown to explain it all.
"""

from functools import cache

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.backend.test.case import node as node_tests
from onnx.backend.test.case.node import (  # noqa: F401 - importing them makes the tests
    dequantizelinear,
    dynamicquantizelinear,
    matmulinteger,
    qlinearmatmul,
    quantizelinear,
)

import quaver
from quaver import PerTensor
from tests.cases import CODE_DTYPES, EDGE_SCALES, EDGE_VALUES, assert_bits, codes, normal, scales

# ONNX's ops in ours: each takes the node's inputs in order, as tensors, and gives its outputs.


def in_shape(parameter, x, axis=1, block_size=0):
    """ONNX's one-dimensional scales lie along an axis; its blocked ones have our shapes."""
    if parameter.numel() == 1 or block_size:
        return parameter
    return parameter.reshape([-1 if dim == axis % x.dim() else 1 for dim in range(x.dim())])


def quantize_linear(x, scale, zero_point, **along):
    scale, zero = (in_shape(parameter, x, **along) for parameter in (scale.float(), zero_point))
    return [quaver.quantize(x, scale, zero, dtype=zero_point.dtype)]


def dequantize_linear(q, scale, zero_point, **along):
    real, zero = (in_shape(parameter, q, **along) for parameter in (scale.float(), zero_point))
    return [quaver.dequantize(q, real, zero, dtype=scale.dtype)]


def dynamic_quantize_linear(x):
    q, params = quaver.dynamic_quantize(x, PerTensor(), symmetric=False, dtype=torch.uint8)
    return [q, params.scale.reshape(()), params.zero_point.reshape(()).to(torch.uint8)]


def matmul_integer(a, b, a_zero_point, b_zero_point):
    return [quaver.int8_matmul(a, b, a_zero_point=a_zero_point, b_zero_point=columns(b_zero_point))]


def qlinear_matmul(a, a_scale, a_zero_point, b, b_scale, b_zero_point, out_scale, out_zero_point):
    q = quaver.int8_matmul_requantize(
        a,
        b,
        a_scale.float(),
        columns(b_scale.float()),
        out_scale.float(),
        a_zero_point=a_zero_point,
        b_zero_point=columns(b_zero_point),
        out_zero_point=out_zero_point,
        dtype=out_zero_point.dtype,
    )
    return [q]


def columns(parameter):
    return parameter if parameter.numel() == 1 else parameter.reshape(1, -1)


OURS = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": qlinear_matmul,
}

# ONNX's node tests. They keep themselves in this list, which has no public name short of importing all ops' tests.

NODE_TESTS = {
    test.name: test
    for test in node_tests._NodeTestCases
    if test.model.graph.node[0].op_type in OURS and not test.name.endswith("_expanded")  # the same, in smaller ops
}

OTHER_CODES = {"INT16", "UINT16", "INT4", "UINT4", "INT2", "UINT2", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT4E2M1"}


def element_types(test):
    values = [*test.model.graph.input, *test.model.graph.output]
    return {TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}


EIGHT_BIT_TESTS = [name for name, test in NODE_TESTS.items() if not element_types(test) & OTHER_CODES]


def test_the_node_tests_left_out_have_other_codes():
    """Of 39 tests 18 have int8 or uint8 codes; the others' are integers of 2, 4 or 16 bits, or floats of 4 or 8."""
    assert (len(NODE_TESTS), len(EIGHT_BIT_TESTS)) == (39, 18)
    assert set().union(*(element_types(NODE_TESTS[name]) for name in EIGHT_BIT_TESTS)) == {
        *("UINT8", "INT8", "INT32"),
        *("FLOAT", "FLOAT16"),
    }
    assert {NODE_TESTS[name].model.graph.node[0].op_type for name in EIGHT_BIT_TESTS} == set(OURS)


@pytest.mark.parametrize("name", EIGHT_BIT_TESTS)
def test_onnx_node_test(name):
    test = NODE_TESTS[name]
    (node,) = test.model.graph.node
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    ((inputs, expected),) = test.data_sets
    outputs = OURS[node.op_type](*map(as_tensor, inputs), **attributes)
    for actual, value in zip(outputs, expected, strict=True):
        assert_bits(actual, as_tensor(value))


def as_tensor(value):
    return torch.from_numpy(np.array(value))


# onnxruntime.


@cache
def session(op, inputs, outputs, attributes):
    """A model of one node, any shape: inputs and outputs are tuples of (ONNX element type, rank)."""
    values = [
        [helper.make_tensor_value_info(f"{kind}{i}", dtype, [None] * rank) for i, (dtype, rank) in enumerate(signature)]
        for kind, signature in (("in", inputs), ("out", outputs))
    ]
    names = [[value.name for value in side] for side in values]
    graph = helper.make_graph([helper.make_node(op, *names, **dict(attributes))], op, *values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def onnxruntime_run(op, inputs, like, **attributes):
    def signature(tensors):
        return tuple((helper.np_dtype_to_tensor_dtype(t.numpy().dtype), t.dim()) for t in tensors)

    run = session(op, signature(inputs), signature(like), tuple(attributes.items())).run
    return [as_tensor(out) for out in run(None, {f"in{i}": value.numpy() for i, value in enumerate(inputs)})]


def assert_onnxruntime_agrees(op, *inputs, **attributes):
    ours = OURS[op](*inputs, **attributes)
    for actual, theirs in zip(ours, onnxruntime_run(op, inputs, ours, **attributes), strict=True):
        assert_bits(actual, theirs)


def hard_to_round(scale, seed=0):
    """Normal numbers; ties of the scale with their neighbours; edge values, infinities too. Of no round length."""
    edges = EDGE_VALUES[~EDGE_VALUES.isnan()]
    ties = (torch.arange(-300, 300) + 0.5) * scale
    neighbours = [(ties.view(torch.int32) + ulp).view(torch.float32) for ulp in (-1, 0, 1)]
    return torch.cat([normal(9973, seed=seed) * 100 * scale, *neighbours, edges * scale, edges])


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("real", [torch.float32, torch.float16])
def test_quantize_per_tensor(real, dtype):
    """float16 keeps to 2^30 steps: beyond 2^31, onnxruntime converts to int32 without saturating, infinities too.

    Before its pull request 32452, onnxruntime truncated float16 quotients.
    """
    tried = 0
    for seed, value in enumerate(EDGE_SCALES):
        scale = torch.tensor(value).to(real)
        if scale > 0 and scale.isfinite():
            x = hard_to_round(scale.float(), seed).to(real)
            sure = (x.float() / scale.float()).abs() < 2**30 if real == torch.float16 else ~x.isnan()
            assert_onnxruntime_agrees("QuantizeLinear", x[sure], scale, codes(1, dtype=dtype, seed=seed)[0])
            tried += 1
    assert tried == {torch.float32: 9, torch.float16: 5}[real]  # five of the scales fit float16


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_per_axis(op, axis, dtype):
    channels = (7, 13, 33)[axis]
    scale = scales(channels)
    x = normal(7, 13, 33) if op == "QuantizeLinear" else codes(7, 13, 33, dtype=dtype)
    assert_onnxruntime_agrees(op, x, scale, codes(channels, dtype=dtype, seed=1), axis=axis)


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_per_block(op, dtype):
    scale = scales(5, 3, 11)
    x = normal(5, 12, 11) if op == "QuantizeLinear" else codes(5, 12, 11, dtype=dtype)
    assert_onnxruntime_agrees(op, x, scale, codes(5, 3, 11, dtype=dtype, seed=1), axis=1, block_size=4)


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("real", [torch.float32, torch.float16])
def test_dequantize_every_code(real, dtype):
    """All 65,536 pairs of code and zero point, each zero point with a scale of its own."""
    limits = torch.iinfo(dtype)
    every = torch.arange(limits.min, limits.max + 1).to(dtype)
    for seed in range(8):
        scale = scales(256, seed=seed).to(real)
        assert_onnxruntime_agrees("DequantizeLinear", every.repeat(256, 1), scale, every, axis=0)


def test_dynamic_quantize():
    """Ranges of all magnitudes, of one sign and of both; zeros; zero points at ties."""
    for seed in range(300):
        width, shift = 10.0 ** (seed % 67 - 33), 10.0 ** (seed * 7 % 67 - 33) * (seed % 3 - 1)
        assert_onnxruntime_agrees("DynamicQuantizeLinear", normal(1 + seed, seed=seed) * width + shift)
    for x in (torch.zeros(5), torch.tensor([-0.5, 254.5]), torch.tensor([-1.5, 253.5]), torch.tensor([-1.0, 1.0])):
        assert_onnxruntime_agrees("DynamicQuantizeLinear", x)


def test_dynamic_quantize_where_onnxruntime_overflows_or_underflows():
    """Its scale becomes infinite or denormal; ours stays a normal number."""
    for x, their_scale in ((torch.tensor([-3e38, 3e38]), float("inf")), (torch.tensor([-1e-37, 1e-37]), 2e-37 / 255)):
        ours = dynamic_quantize_linear(x)
        theirs = onnxruntime_run("DynamicQuantizeLinear", [x], ours)
        assert theirs[1] == torch.tensor(their_scale)
        assert torch.finfo(torch.float32).tiny <= ours[1] < float("inf")
        assert ((quaver.dequantize(*ours) - x).abs() / ours[1]).max() <= 0.5 + 255 * 2**-23  # two roundings


# Without VNNI onnxruntime adds the products of unsigned and signed codes in pairs, saturating them to 16 bits: exact
# only while 2 * 255 * |code| <= 32767. There, signed weights keep to that.
EXACT_WEIGHT = 128 if torch.cpu.get_capabilities().get("avx512_vnni") else 64


def exact_weight(b):
    return b if b.dtype == torch.uint8 else b.clamp(-EXACT_WEIGHT, EXACT_WEIGHT - 1)


PRODUCTS = [(1, 1, 1), (3, 7, 5), (16, 64, 16), (33, 129, 31), (5, 1041, 9)]


@pytest.mark.parametrize("b_dtype", CODE_DTYPES)
@pytest.mark.parametrize("a_dtype", CODE_DTYPES)
def test_matmul(a_dtype, b_dtype):
    """A zero point for a and one for b or for each of its columns; a zero point for each row, onnxruntime has not."""
    for M, K, N in PRODUCTS:
        a, b = codes(M, K, dtype=a_dtype), exact_weight(codes(K, N, dtype=b_dtype, seed=1))
        for columns_of_b in (1, N):
            z = codes(1, dtype=a_dtype, seed=2), codes(columns_of_b, dtype=b_dtype, seed=3)
            assert_onnxruntime_agrees("MatMulInteger", a, b, *z)
            assert_onnxruntime_agrees("MatMulInteger", a.repeat(2, 3, 1, 1), b, *z)
        a, b = (torch.full_like(q, torch.iinfo(q.dtype).max) for q in (a, b))  # sums that float32 does not hold
        assert_onnxruntime_agrees("MatMulInteger", a, exact_weight(b), *(zero * 0 for zero in z))


# onnxruntime's QLinearMatMul folds the scales into one factor; we scale, then divide. From the same float32(acc), both
# round twice before the rounding to a code, by at most u = 2^-24 each.


def folded(acc, a_scale, b_scale, out_scale, zero_point):
    """What onnxruntime computes: round(acc * (a_scale * b_scale / out_scale)) + zero_point."""
    limits = torch.iinfo(zero_point.dtype)
    factor = a_scale * b_scale / out_scale
    code = torch.round(acc.to(torch.float32) * factor) + zero_point
    return code.clamp(limits.min, limits.max).to(zero_point.dtype)


def every_code(dtype):
    limits = torch.iinfo(dtype)
    return torch.arange(limits.min, limits.max + 1).to(dtype)


def from_a_tie(steps):
    return (steps - (torch.floor(steps) + 0.5)).abs()


REQUANTIZED = [(torch.int8, torch.int8), (torch.uint8, torch.int8), (torch.uint8, torch.uint8)]  # a and out, b


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("dtype", "b_dtype"), REQUANTIZED)
def test_requantize_by_powers_of_two(dtype, b_dtype, per_column):
    """Dividing by a power of two is exact, so the two orders agree to the last code."""
    varied = 0
    for seed, (M, K, N) in enumerate(PRODUCTS):
        a, b = codes(M, K, dtype=dtype, seed=seed), exact_weight(codes(K, N, dtype=b_dtype, seed=seed + 1))
        columns_of_b = N if per_column else 1
        z = [codes(size, dtype=of, seed=7) for size, of in ((1, dtype), (columns_of_b, b_dtype), (1, dtype))]
        a_scale, b_scale = scales(1, seed=seed), scales(columns_of_b, seed=seed + 9)
        real = matmul_integer(a, b, *z[:2])[0] * (a_scale * b_scale)
        out_scale = torch.exp2(torch.round(torch.log2(real.abs().amax() / 100))).reshape(1)
        inputs = (a, a_scale, z[0], b, b_scale, z[1], out_scale, z[2])
        assert_onnxruntime_agrees("QLinearMatMul", *inputs)
        varied += len(qlinear_matmul(*inputs)[0].unique()) > 2
    assert varied >= 1  # not all saturated


@pytest.mark.parametrize(("dtype", "b_dtype"), REQUANTIZED)
def test_requantize_by_other_scales(dtype, b_dtype):
    """All products of two codes, at scales that put many of them on a tie.

    The orders differ in at most one code, and only where a tie lies within both roundings, 3u of the exact quotient;
    everywhere, onnxruntime's codes are those of the folded factor.
    """
    a, b = every_code(dtype)[:, None], exact_weight(every_code(b_dtype))[None, :]
    no_zero = torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=b_dtype)
    acc = quaver.int8_matmul(a, b)
    differing = 0
    for a_scale, b_scale, out_scale in ((0.1, 1.0, 0.2), (0.3, 0.7, 0.42), (0.013, 0.11, 0.0286), (1 / 3, 1.0, 20.0)):
        s = [torch.tensor([value]) for value in (a_scale, b_scale, out_scale)]
        zero_point = codes(1, dtype=dtype, seed=5)
        inputs = (a, s[0], no_zero[0], b, s[1], no_zero[1], s[2], zero_point)
        (ours,) = qlinear_matmul(*inputs)
        (theirs,) = onnxruntime_run("QLinearMatMul", inputs, [ours])
        assert_bits(theirs, folded(acc, *s, zero_point))
        steps = acc.double() * (s[0] * s[1]).double() / s[2].double()
        differs = ours != theirs
        assert (ours.int() - theirs.int()).abs().max() <= 1
        assert (from_a_tie(steps) <= 3 * 2.0**-24 * steps.abs())[differs].all()
        differing += differs.sum().item()
    assert differing > 0
