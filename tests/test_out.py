"""Forms that write tensors they are given, out=: the same bits at the given place, nothing beside it, on every backend.

What is not as the op would have made it is refused in words, and autograd learns what happened.
"""

import random
import shutil

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import quaver
from quaver import library
from quaver.draw import Draw
from quaver.library import as_tuple
from tests.cases import DEVICES, assert_bits, codes, normal, scales

ops = torch.ops.quaver


def form_of(op, namespace=ops):
    return getattr(namespace, op).out


def drawn(op, seed, device="cpu", packs=None):
    """A valid call of the form that writes: its arguments without places, its places and what must come there."""
    draw = Draw(random.Random(f"{seed} {op}"), device=device, most=700, packs=packs)
    arguments = draw.call(op)
    results = as_tuple(getattr(ops, op)(**arguments))
    names = library.written_arguments(form_of(op))
    places = {}
    for name, result in zip(names, results, strict=True):
        any_strides = name == names[0] and op in library.ANY_STRIDES
        places[name] = draw.place_for(result, any_strides=any_strides)
        whole_of(places[name]).fill_(85)
    return arguments, places, results


def whole_of(place):
    """All bytes of the tensor that this one is a part of."""
    storage = place.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=place.device).set_(storage)


def check_written(form, op, seed, device="cpu", packs=None):
    arguments, places, expected = drawn(op, seed, device, packs)
    wanted = {}
    for (name, place), result in zip(places.items(), expected, strict=True):
        before = whole_of(place).clone()
        at = torch.empty(0, dtype=place.dtype, device=device).set_(before.untyped_storage())
        at.as_strided(place.shape, place.stride(), place.storage_offset()).copy_(result)
        wanted[name] = before
    results = as_tuple(form(**arguments, **places))
    for result, (name, place), right in zip(results, places.items(), expected, strict=True):
        assert result is place
        assert_bits(place, right)
        if not place.is_floating_point():  # NaN has many bits
            assert torch.equal(whole_of(place), wanted[name]), f"{name}: something was written beside it"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", library.WRITING_OPS)
def test_what_the_op_gives_is_written_there(op, device):
    for seed in range(60):
        check_written(form_of(op), op, seed, device)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="the emulator runs what nvcc makes of the kernels")
@pytest.mark.parametrize("op", library.WRITING_OPS)
def test_emulated(op):
    from tests.emulator import emulated

    for seed in range(25):
        with emulated.device("sm_80", seed=seed):
            check_written(form_of(op, emulated.ops()), op, seed, packs=False)


@pytest.mark.parametrize("op", library.WRITING_OPS)
def test_any_strides_are_drawn_where_they_may_be(op):
    """The cases above are no formality."""
    places = [place for seed in range(60) for place in drawn(op, seed)[1].values()]
    kinds = {place.is_contiguous() for place in places}
    assert kinds == ({True, False} if op in library.ANY_STRIDES else {True})


# Refusals


X, SCALE, OUT = normal(4, 6), torch.tensor(0.1), torch.empty(4, 6, dtype=torch.int8)
BYTES = torch.zeros(200, dtype=torch.uint8)
PRODUCT = {"a": codes(4, 8), "b": codes(8, 6)}
CONV = {"x": codes(2, 3, 4, 5), "weight": codes(6, 3, 1, 1), "x_scale": SCALE, "weight_scale": SCALE}
LAYER = {"x": normal(8), "weight_q": codes(6, 8), "weight_scale": scales(6, 1)}


def from_byte(begin, shape, dtype=torch.int8):
    end = begin + torch.Size(shape).numel() * dtype.itemsize
    return BYTES[begin:end].view(dtype).view(shape)


# (op, what differs from a plain call, out, words)
REFUSED = [
    ("quantize", {}, None, "out must be a tensor, got None"),
    ("quantize", {}, OUT.to(torch.uint8), "out must be int8, got uint8"),
    ("quantize", {"dtype": torch.uint8}, OUT, "out must be uint8, got int8"),
    ("quantize", {}, OUT.to("meta"), "out must be on cpu like x, got "),
    ("quantize", {}, OUT[:3], r"out must have the shape \[4, 6\], got \[3, 6\]"),
    ("quantize", {}, OUT.view(-1), r"out must have the shape \[4, 6\], got \[24\]"),
    (
        "quantize",
        {},
        OUT[:1].expand(4, 6),
        r"out must have a place for each of its elements, got the strides \[0, 1\] for the shape \[4, 6\]",
    ),
    (
        "quantize",
        {},
        BYTES.view(torch.int8).as_strided((4, 6), (2, 1)),
        r"out must have a place .* strides \[2, 1\] for",
    ),
    ("quantize", {"x": from_byte(0, (4, 6), torch.float32)}, from_byte(90, (4, 6)), "out must not share memory with x"),
    (
        "quantize",
        {"scale": from_byte(20, (), torch.float32)},
        from_byte(0, (4, 6)),
        "out must not share memory with scale",
    ),
    ("fake_quantize", {}, X, "out must not share memory with x"),
    (
        "int8_matmul",
        PRODUCT,
        torch.empty(6, 4, dtype=torch.int32).t(),
        r"out must be contiguous, got the strides \[1, 4\]",
    ),
    ("int8_matmul", PRODUCT, torch.empty(4, 6), "out must be int32, got float32"),
    ("int8_linear", LAYER, torch.empty(1, 6), r"out must have the shape \[6\], got \[1, 6\]"),
    (
        "int8_conv2d",
        CONV,
        torch.empty(2, 6, 5, 4).mT,
        r"out must be contiguous or channels_last, got the strides \[120, 20, 1, 4\]",
    ),
    ("int8_conv2d", CONV, torch.empty(2, 6, 4, 4), r"out must have the shape \[2, 6, 4, 5\], got \[2, 6, 4, 4\]"),
    (
        "int8_conv2d",
        {**CONV, "weight_scale": from_byte(20, (), torch.float32), "out_scale": SCALE, "dtype": torch.int8},
        from_byte(0, (2, 6, 4, 4)),
        r"out must have the shape",
    ),
]


@pytest.mark.parametrize(("op", "changes", "out", "words"), REFUSED, ids=[f"{op}-{words}" for op, *_, words in REFUSED])
def test_refused_in_words(op, changes, out, words):
    """By the op, and, where no memory is concerned, by its fake in the same words."""
    arguments = {"x": X, "scale": SCALE, **changes} if "quantize" in op else changes
    with pytest.raises(RuntimeError, match=f"^quaver::{op}: {words}"):
        form_of(op)(**arguments, out=out)
    if "memory" not in words:
        with FakeTensorMode() as fake, pytest.raises(RuntimeError, match=f"^quaver::{op}: {words}"):
            form_of(op)(**torch.utils._pytree.tree_map_only(torch.Tensor, fake.from_tensor, {**arguments, "out": out}))


def test_results_share_no_memory_either():
    q, scale = torch.empty(4, 6, dtype=torch.int8), torch.empty(4, 1)
    zero_point, row_sum = scale.view(torch.int32), torch.empty(0, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"^quaver::dynamic_quantize: zero_point must not share memory with scale"):
        ops.dynamic_quantize.out(X, [4, 1], q=q, scale=scale, zero_point=zero_point, row_sum=row_sum)


@pytest.mark.parametrize("op", library.WRITING_OPS)
def test_a_place_for_sums_that_nobody_asked_for_is_empty(op):
    if "row_sum" not in library.written_arguments(form_of(op)):
        return
    arguments, places, _ = drawn(op, 0)
    arguments["return_row_sum"] = not arguments.get("return_row_sum", False)
    with pytest.raises(RuntimeError, match=rf"^quaver::{op}: row_sum must have the shape"):
        form_of(op)(**arguments, **places)


# Functions


def test_functions_write_what_such_a_call_returns():
    x, h, weight = normal(5, 8), normal(5, 8, seed=1), normal(8)
    calls = [
        (quaver.dynamic_quantize, (x,), {}),
        (quaver.dynamic_quantize, (x, quaver.PerTensor()), {"symmetric": False, "return_row_sum": True}),
        (quaver.rms_norm_quantize, (x, weight), {}),
        (quaver.rms_norm_quantize, (x, weight), {"residual": h, "return_row_sum": True}),
        (quaver.silu_mul_quantize, (x, h), {"return_row_sum": True}),
    ]
    for function, args, options in calls:
        expected = function(*args, **options)
        out = function(*(2 * tensor if isinstance(tensor, torch.Tensor) else tensor for tensor in args), **options)
        results = function(*args, **options, out=out)
        assert (results[1].q_min, results[1].symmetric) == (expected[1].q_min, expected[1].symmetric)
        for result, place, right in zip(map(flat, results), map(flat, out), map(flat, expected), strict=True):
            for got, given, wanted in zip(result, place, right, strict=True):
                assert got is given
                assert_bits(got, wanted)


def flat(value):
    return (value.scale, value.zero_point) if isinstance(value, quaver.QuantizationParams) else (value,)


@pytest.mark.parametrize(
    ("out", "came"),
    [(OUT, "Tensor"), ((OUT,), "1 values"), ((OUT, SCALE), "tuple"), ((OUT, None, None), "3 values"), (1, "int")],
)
def test_functions_refuse_another_out_in_words(out, came):
    with pytest.raises(TypeError, match=rf"^quaver::dynamic_quantize: out must be what .*, \(q, params\), got {came}"):
        quaver.dynamic_quantize(X, out=out)


@pytest.mark.parametrize("out", [1, (OUT,), "x"])
def test_functions_refuse_what_is_no_tensor(out):
    with pytest.raises(TypeError, match=r"^quaver::quantize: out must be a tensor, got "):
        quaver.quantize(X, SCALE, out=out)


# Torch's own ways


@pytest.mark.parametrize("draws", [1, pytest.param(4, marks=pytest.mark.deep)])  # of a second each
@pytest.mark.parametrize("op", library.WRITING_OPS)
def test_opcheck(op, draws):
    checked = 0
    for seed in range(20):
        if checked == draws:
            break
        arguments, places, results = drawn(op, seed)
        # opcheck takes no NaN for another, and counts a negative length of what is empty.
        if results[0].numel() > 0 and all(torch.equal(result, result) for result in results):
            opcheck(form_of(op), (), {**arguments, **places})
            checked += 1
    assert checked == draws


@pytest.mark.parametrize("op", library.WRITING_OPS)
def test_compiled(op):
    """In one graph, into tensors of the caller's and into those of the function's own."""
    torch._dynamo.reset()
    arguments, places, expected = drawn(op, 1)
    results = torch.compile(lambda kwargs: form_of(op)(**kwargs), fullgraph=True)({**arguments, **places})
    for result, place, wanted in zip(as_tuple(results), places.values(), expected, strict=True):
        assert_bits(result, wanted)
        assert_bits(place, wanted)

    def inside(kwargs):
        own = {name: torch.empty_like(place) for name, place in places.items()}
        return [result.clone() for result in as_tuple(form_of(op)(**kwargs, **own))]

    for result, wanted in zip(torch.compile(inside, fullgraph=True)(arguments), expected, strict=True):
        assert_bits(result, wanted)


def test_functionalized_forms_refuse_what_a_copy_would_convert():
    """A graph that changes nothing copies the result to its place, and a copy takes any dtype and repeats any shape."""

    def write(x, out):
        return ops.quantize.out(x, SCALE, out=out)

    for out, words in ((X, "out must be int8, got float32"), (OUT.expand(2, 4, 6).clone(), "out must have the shape")):
        with pytest.raises(RuntimeError, match=f"^quaver::quantize: {words}"):
            torch.func.functionalize(write)(X, out)
    out = torch.empty_like(OUT)
    torch.func.functionalize(write)(X, out)
    assert_bits(out, ops.quantize(X, SCALE))


@pytest.mark.parametrize("op", library.WRITING_OPS)
def test_autograd_learns_of_the_writing(op):
    arguments, places, _ = drawn(op, 2)
    before = [place._version for place in places.values()]
    form_of(op)(**arguments, **places)
    assert [place._version for place in places.values()] == [version + 1 for version in before]
    with torch.inference_mode():
        form_of(op)(**arguments, **{name: torch.empty_like(place) for name, place in places.items()})


def test_a_gradient_that_needs_what_was_overwritten_is_refused():
    weight = normal(4, 6).requires_grad_()
    y = quaver.dequantize(codes(4, 6), SCALE)
    product = (weight * y).sum()
    quaver.dequantize(codes(4, 6, seed=1), SCALE, out=y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("call", [quaver.fake_quantize, ops.fake_quantize.out])
def test_no_gradient_passes_through_out(call):
    x, out = normal(4, 6).requires_grad_(), torch.empty(4, 6)
    with pytest.raises(RuntimeError, match=r"^quaver::fake_quantize: x requires grad, but there is no gradient"):
        call(x, SCALE, out=out)
    with torch.no_grad():
        assert_bits(call(x, SCALE, out=out), quaver.fake_quantize(x, SCALE))
    with pytest.raises(RuntimeError, match=r"^quaver::fake_quantize: out requires grad"):
        call(x.detach(), SCALE, out=torch.empty(4, 6, requires_grad=True))


def test_vmap_is_refused_in_words():
    with pytest.raises(NotImplementedError, match=r"^quaver::quantize: torch.func.vmap is not supported"):
        torch.func.vmap(lambda x, out: ops.quantize.out(x, SCALE, out=out))(normal(3, 4), torch.empty(3, 4))
