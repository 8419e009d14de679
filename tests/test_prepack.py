"""int8_prepack: a matrix in the order in which the CPU reads it, with which every product is what it is without."""

import contextlib
from itertools import product

import pytest
import torch

import quaver
from quaver import reference
from tests.cases import CODE_DTYPES, FLOAT_DTYPES, assert_bits, codes, normal, scales, zero_points

SHAPES = ((1, 1), (3, 5), (64, 32), (65, 33), (63, 31), (200, 16), (257, 100), (0, 7), (7, 0))  # K, N
SIGNEDNESS = list(product(CODE_DTYPES, CODE_DTYPES))


def layouts(k, n, dtype):
    """b [K, N] contiguous along K, along N, and along neither."""
    yield codes(n, k, dtype=dtype).t()
    yield codes(k, n, dtype=dtype)
    yield codes(k, 3 * n, dtype=dtype)[:, ::3]


def test_each_code_by_hand():
    b = codes(130, 70)
    packed = quaver.int8_prepack(b)
    assert packed.shape == (3, 3 * 2048 + 128)
    for k, n in product((0, 3, 4, 63, 64, 129), (0, 15, 16, 31, 32, 69)):
        half, column = n % 32 // 16, n % 16
        place = k // 64 * 2048 + half * 1024 + k % 64 // 4 * 64 + column * 4 + k % 4
        assert packed[n // 32, place] == b[k, n]
    assert_bits(packed[:, -128:].contiguous().view(torch.int32).flatten()[:70], b.sum(0, dtype=torch.int32))


@pytest.mark.parametrize("dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_the_order(k, n, dtype):
    for b in layouts(k, n, dtype):
        assert_bits(quaver.int8_prepack(b), reference.int8_prepack(b))


@pytest.mark.parametrize(("a_dtype", "b_dtype"), SIGNEDNESS)
def test_products_are_the_same(a_dtype, b_dtype):
    for (k, n), m in product(SHAPES, (1, 16, 17, 70)):
        b = codes(n, k, dtype=b_dtype, seed=1).t()
        a, b_packed = codes(m, k, dtype=a_dtype), quaver.int8_prepack(b)
        points = {"a_zero_point": zero_points(m, 1, dtype=a_dtype), "b_zero_point": zero_points(1, n, dtype=b_dtype)}
        for given in ({}, points):
            assert_bits(quaver.int8_matmul(a, b, b_packed=b_packed, **given), reference.int8_matmul(a, b, **given))
        factors = (scales(m, 1), scales(1, n))
        assert_bits(
            quaver.int8_matmul_dequantize(a, b, *factors, b_packed=b_packed, bias=normal(n)),
            reference.int8_matmul_dequantize(a, b, *factors, bias=normal(n)),
        )
        assert_bits(
            quaver.int8_matmul_requantize(a, b, *factors, 100 * scales(1, n), b_packed=b_packed, **points),
            reference.int8_matmul_requantize(a, b, *factors, 100 * scales(1, n), **points),
        )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_linear_layers_are_the_same(dtype, symmetric):
    for (k, n), rows in product(SHAPES, ((), (1,), (2, 17), (40,))):
        if k == 0:
            continue
        x, weight = normal(*rows, k, dtype=dtype), codes(n, k, seed=1)
        packed = quaver.int8_prepack(weight.t())
        for weight_sum in (None, weight.sum(1, True, dtype=torch.int32)):
            options = {"symmetric": symmetric, "weight_sum": weight_sum}
            y = quaver.int8_linear(x, weight, scales(n, 1), weight_packed=packed, **options)
            assert_bits(y, reference.int8_linear(x, weight, scales(n, 1), **options))


def test_batches_of_a():
    a, b = codes(2, 3, 40, 70), codes(70, 50)
    assert_bits(quaver.int8_matmul(a, b, b_packed=quaver.int8_prepack(b)), reference.int8_matmul(a, b))


A, B, W = codes(4, 70), codes(70, 40), codes(40, 70)
PACKED = quaver.int8_prepack(B)
WANTED = "b_packed must be int8_prepack's, contiguous [2, 4224] for K = 70 and N = 40, got"
REFUSED = (
    ("int8_matmul: b_packed must be int8, got uint8", lambda: quaver.int8_matmul(A, B, b_packed=PACKED.byte())),
    (f"int8_matmul: {WANTED} [1, 4224]", lambda: quaver.int8_matmul(A, B, b_packed=PACKED[:1])),
    (f"int8_matmul: {WANTED} [2, 4224]", lambda: quaver.int8_matmul(A, B, b_packed=PACKED.t().contiguous().t())),
    (
        "int8_matmul: b_packed needs b [K, N] without a batch, got b [1, 70, 40]",
        lambda: quaver.int8_matmul(A, B[None], b_packed=PACKED),
    ),
    (
        f"int8_linear: weight_packed {WANTED[9:]} [2]",
        lambda: quaver.int8_linear(normal(3, 70), W, scales(), weight_packed=PACKED[:, 0]),
    ),
    ("int8_prepack: b must be int8 or uint8, got float32", lambda: quaver.int8_prepack(normal(3, 3))),
    ("int8_prepack: b must have 2 dimensions, [K, N], got 1", lambda: quaver.int8_prepack(codes(3))),
)


@pytest.mark.parametrize(("words", "call"), REFUSED, ids=[words for words, _ in REFUSED])
@pytest.mark.parametrize("fake", [False, True])
def test_refusals(words, call, fake):
    """By the op, and by its fake, in the same words."""
    mode = torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) if fake else contextlib.nullcontext()
    with mode, pytest.raises(RuntimeError) as raised:
        call()
    assert f"quaver::{words}" in str(raised.value)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="quaver::int8_prepack: b must be a tensor, got int"):
        quaver.int8_prepack(3)
    with pytest.raises(TypeError, match="quaver::int8_matmul: b_packed must be a tensor, got int"):
        quaver.int8_matmul(A, B, b_packed=3)


def test_vmap_is_refused():
    with pytest.raises(NotImplementedError, match=r"quaver::int8_prepack: torch\.func\.vmap is not supported"):
        torch.func.vmap(quaver.int8_prepack)(codes(2, 3, 4))


@pytest.mark.parametrize("dtype", CODE_DTYPES, ids=str)
def test_opcheck(dtype):
    torch.library.opcheck(torch.ops.quaver.int8_prepack.default, (codes(70, 40, dtype=dtype),))


def test_in_a_compiled_graph_of_any_size():
    @torch.compile(fullgraph=True, dynamic=True)
    def product(a, b):
        return quaver.int8_matmul(a, b, b_packed=quaver.int8_prepack(b))

    for k, n in ((70, 40), (64, 32), (129, 3)):
        a, b = codes(5, k), codes(k, n, seed=1)
        assert_bits(product(a, b), reference.int8_matmul(a, b))
