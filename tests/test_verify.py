"""quaver.backend and quaver.verify: every op is seen, and what is wrong is caught and named."""

import inspect
import random
import re
import threading
import warnings

import pytest
import torch

import quaver
from quaver import QuantLinear, library, reference
from quaver.draw import Draw
from quaver.library import as_tuple
from quaver.verify import VerificationError, first_difference
from tests.cases import DEVICES, assert_bits, codes, normal, scales, zero_points

ops = torch.ops.quaver
X = torch.tensor([[0.5, -1.0, 2.0], [10.0, 20.0, -5.0]])
ONE = torch.tensor(1.0)


OVERLOADS = [getattr(getattr(ops, name), form) for name in library.OPS for form in getattr(ops, name).overloads()]


def drawn(op, seed=0, device="cpu"):
    return Draw(random.Random(f"{op} {seed}"), device=device, most=200).call(op)


def spoil(monkeypatch, name, change):
    """Gives the reference a defect: its function's results pass through change."""
    true = getattr(reference, name)
    monkeypatch.setattr(reference, name, lambda *args, **kwargs: change(true(*args, **kwargs)))


# By name, through the schema: what another op needs to be covered is a function of its name


@pytest.mark.parametrize("overload", OVERLOADS, ids=str)
def test_the_reference_takes_each_ops_arguments(overload):
    """With the same names, and the same defaults, which a mode is not told of."""
    schema = overload._schema
    parameters = inspect.signature(getattr(reference, schema.name.split("::")[1])).parameters
    for argument in schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            continue
        assert argument.name in parameters
        default = parameters[argument.name].default
        if not argument.has_default_value():
            assert default is inspect.Parameter.empty
        elif argument.name == "dtype" and isinstance(argument.default_value, int):
            assert isinstance(default, torch.dtype)  # which one, the next test sees: a schema has numbers for them
        else:
            assert default == argument.default_value
    if not any(argument.alias_info for argument in schema.arguments):
        assert list(parameters) == [argument.name for argument in schema.arguments]


@pytest.mark.parametrize("name", library.OPS)
def test_schema_defaults_for_dtypes_are_the_references(name):
    """Called with no more than it must be, and than shapes depend on, an op gives the dtypes of the reference."""
    required = [a.name for a in getattr(ops, name).default._schema.arguments if not a.has_default_value()]
    required += ["padding", "dilation", "groups"]
    for seed in range(20):
        arguments = {key: value for key, value in drawn(name, seed).items() if key in required}
        for actual, expected in zip(
            as_tuple(getattr(ops, name)(**arguments)), as_tuple(getattr(reference, name)(**arguments)), strict=True
        ):
            assert_bits(actual, expected)


# The reference in the ops' place


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", library.OPS)
def test_each_op_runs_through_the_reference(name, device, monkeypatch):
    calls = []
    true = getattr(reference, name)
    monkeypatch.setattr(reference, name, lambda *args, **kwargs: calls.append(name) or true(*args, **kwargs))
    for seed in range(20):
        arguments = drawn(name, seed, device)
        native = as_tuple(getattr(ops, name)(**arguments))
        with quaver.backend("reference"):
            results = as_tuple(getattr(ops, name)(**arguments))
        for actual, expected in zip(results, native, strict=True):
            assert_bits(actual, expected)
            if expected.numel() > 1 and expected.is_contiguous():
                assert actual.is_contiguous()
        assert len(calls) == seed + 1


def test_strides_are_the_ops():
    x = normal(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    with quaver.backend("reference"):
        assert quaver.quantize(x, ONE).stride() == x.stride()
        assert quaver.quantize(x[..., ::2], ONE).stride() == ops.quantize(x[..., ::2], ONE).stride()


def test_ops_inside_modules_and_functions(monkeypatch):
    layer = QuantLinear.from_float(torch.nn.Linear(64, 8), symmetric=False)
    weight_q, params = quaver.dynamic_quantize(normal(8, 64))
    x = normal(5, 64)
    expected = layer(x), quaver.int8_linear(x, weight_q, params)
    spoil(monkeypatch, "int8_linear", lambda y: y + 1)
    with quaver.backend("reference"):
        actual = torch.nn.Sequential(layer)(x), quaver.int8_linear(x, weight_q, params)
    for got, before in zip(actual, expected, strict=True):
        assert_bits(got, before + 1)
    assert_bits(layer(x), expected[0])  # the block is over


def test_arguments_are_refused_as_ever():
    with quaver.backend("reference"):
        with pytest.raises(TypeError, match=r"^quaver::quantize: x must be a tensor, got list$"):
            quaver.quantize([1.0], ONE)
        with pytest.raises(RuntimeError, match=r"^quaver::quantize: x must be float32, float16 or bfloat16, got int8$"):
            ops.quantize(codes(3), ONE)
        with pytest.raises(RuntimeError, match=r"must share K, got a \[3, 5\] and b \[4, 5\]$"):
            ops.int8_matmul(codes(3, 5), codes(4, 5))
    with quaver.verify(), pytest.raises(RuntimeError, match=r"must share K, got a \[3, 5\] and b \[4, 5\]$"):
        ops.int8_matmul(codes(3, 5), codes(4, 5))
    with pytest.raises(ValueError, match=r"^quaver.backend: name must be 'reference', got 'cuda'$"):
        quaver.backend("cuda")


# What is wrong is caught


def test_every_right_op_passes():
    with quaver.verify():
        for name in library.OPS:
            for seed in range(20):
                getattr(ops, name)(**drawn(name, seed))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", library.OPS)
def test_one_wrong_element_is_caught(name, device, monkeypatch):
    """In each result of each op: its last element's lowest bit is another."""
    arguments = next(
        arguments
        for arguments in (drawn(name, seed, device) for seed in range(1000))
        if all(result.numel() > 0 and not result.isnan().any() for result in as_tuple(getattr(ops, name)(**arguments)))
    )
    count = len(getattr(ops, name).default._schema.returns)
    for number in range(count):

        def change(results, number=number):
            changed = [result.clone().contiguous() for result in as_tuple(results)]
            bytes_of = changed[number].view(-1).view(torch.uint8)
            bytes_of[-changed[number].element_size()] ^= 1
            return changed[0] if count == 1 else tuple(changed)

        with monkeypatch.context() as patch:
            spoil(patch, name, change)
            with quaver.verify(), pytest.raises(VerificationError, match=rf"^quaver::{name}: the element at \["):
                getattr(ops, name)(**arguments)


def test_a_wrong_kernel_is_caught():
    """The op itself is broken: another implementation is registered for the CPU."""

    def broken(x, scale, zero_point=None, **options):
        q = reference.quantize(x, scale, zero_point, **options)
        q[1, 2] += 1
        return q

    with torch.library._scoped_library("quaver", "IMPL") as override:
        with warnings.catch_warnings():  # torch warns of an overridden kernel, of the first one in a process
            warnings.simplefilter("ignore")
            override.impl("quantize", broken, "CPU", allow_override=True)
        with quaver.verify(), pytest.raises(VerificationError) as caught:
            quaver.quantize(X, torch.tensor([[0.5], [1.0]]), torch.tensor([[0], [3]]), q_min=-128, q_max=127)
    assert str(caught.value) == (
        "quaver::quantize: the element at [1, 2] is -1, expected -2 (1 of 6 differ); called with "
        "x: float32 [2, 3] on cpu, scale: float32 [2, 1] on cpu, zero_point: int32 [2, 1] on cpu, "
        "q_min: -128, q_max: 127"
    )
    with quaver.verify():
        quaver.quantize(X, torch.tensor(0.5))


def test_a_wrong_kernel_inside_a_module_is_caught(monkeypatch):
    layer = QuantLinear.from_float(torch.nn.Linear(64, 8))
    spoil(monkeypatch, "int8_linear", lambda y: torch.nextafter(y, torch.tensor(0.0)))
    with quaver.verify(), pytest.raises(VerificationError, match="quaver::int8_linear: the element at"):
        layer(normal(5, 64))


def test_the_result_that_differs_is_named(monkeypatch):
    spoil(monkeypatch, "dynamic_quantize", lambda results: (*results[:2], results[2] + 1, results[3]))
    with (
        quaver.verify(),
        pytest.raises(VerificationError, match=r"at \[0, 0\] is -?\d+, .* of zero_point; called with"),
    ):
        quaver.dynamic_quantize(X)


def test_what_the_reference_fails_on_is_caught(monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("cannot be")

    monkeypatch.setattr(reference, "quantize", fail)
    with quaver.verify(), pytest.raises(VerificationError, match="accepts what the reference fails on: cannot be"):
        quaver.quantize(X, ONE)


def test_unspecified_results_are_named(monkeypatch):
    spoil(monkeypatch, "quantize", lambda q: q + 1)
    with quaver.verify(), pytest.raises(VerificationError, match=r"; but scale has -2\.0: only positive, finite"):
        quaver.quantize(X, torch.tensor([[1.0], [-2.0]]))


@pytest.mark.parametrize(
    ("actual", "expected", "words"),
    [
        (
            torch.tensor([1.0, -0.0]),
            torch.tensor([1.0, 0.0]),
            "the element at [1] is -0.0, expected 0.0 (1 of 2 differ)",
        ),
        (torch.tensor(float("nan")), torch.tensor(1.0), "the element at [] is nan, expected 1.0 (1 of 1 differ)"),
        (torch.ones(2), torch.ones(2, dtype=torch.float16), "the dtype is float32, expected float16"),
        (torch.ones(2), torch.ones(1, 2), "the shape is [2], expected [1, 2]"),
        (torch.ones(2), torch.ones(2, device="meta"), "the device is cpu, expected meta"),
        (torch.tensor([float("nan")]), -torch.tensor([float("nan")]), None),
        (torch.ones(0), torch.ones(0), None),
        (
            torch.arange(6).view(2, 3).t(),
            torch.tensor([[0, 3], [1, 4], [2, 6]]),
            "the element at [2, 1] is 5, expected 6",
        ),
    ],
)
def test_bits(actual, expected, words):
    found = first_difference(actual, expected)
    assert found == words if words is None else found.startswith(words)


# Modes within modes, threads, exceptions


def test_the_innermost_decides(monkeypatch):
    spoil(monkeypatch, "quantize", lambda q: q + 1)
    native = quaver.quantize(X, ONE)
    with quaver.verify(), quaver.backend("reference"):
        assert_bits(quaver.quantize(X, ONE), native + 1)
    with quaver.backend("reference"), quaver.verify(), pytest.raises(VerificationError):
        quaver.quantize(X, ONE)


def test_a_block_ends_with_an_exception(monkeypatch):
    spoil(monkeypatch, "quantize", lambda q: q + 1)
    with pytest.raises(KeyError), quaver.verify():
        raise KeyError
    quaver.quantize(X, ONE)
    mode = quaver.verify()
    for _ in range(2):
        with mode, pytest.raises(VerificationError):
            quaver.quantize(X, ONE)


def test_other_threads_are_not_concerned(monkeypatch):
    spoil(monkeypatch, "quantize", lambda q: q + 1)
    done = []
    with quaver.verify():
        thread = threading.Thread(target=lambda: done.append(quaver.quantize(X, ONE)))
        thread.start()
        thread.join()
    assert len(done) == 1


def test_other_ops_are_not_concerned():
    with quaver.verify(), quaver.backend("reference"):
        assert torch.equal(torch.ones(3) + 1, torch.full((3,), 2.0))


# Forms that write: out=


def test_a_form_that_writes(monkeypatch):
    """An op of the test's own: whatever an out= form is called."""
    monkeypatch.setattr(reference, "negated", lambda x: ((-x).to(torch.int16), x.sum().reshape(1)), raising=False)
    with torch.library._scoped_library("quaver", "FRAGMENT") as fragment:
        fragment.define("negated.out(Tensor x, *, Tensor(a!) out, Tensor(b!) sum_out) -> (Tensor(a!), Tensor(b!))")

        def negated(x, *, out, sum_out):
            sum_out.copy_(x.sum().reshape(1))
            return out.copy_(-x), sum_out

        def wrong(x, *, out, sum_out):
            negated(x, out=out, sum_out=sum_out)
            sum_out += 1
            return out, sum_out

        fragment.impl("negated.out", negated, "Meta")
        for kernel, right in ((negated, True), (wrong, False)):
            fragment.impl("negated.out", kernel, "CPU", allow_override=True)
            out, total = torch.empty(3, dtype=torch.int16), torch.empty(1)
            with quaver.backend("reference"):
                results = ops.negated.out(torch.ones(3), out=out, sum_out=total)
            assert results[0] is out
            assert_bits(out, torch.full((3,), -1, dtype=torch.int16))
            assert_bits(total, torch.tensor([3.0]))
            if right:
                with quaver.verify():
                    ops.negated.out(torch.ones(3), out=out, sum_out=total)
            else:
                words = r"^quaver::negated.out: the element at \[0\] is 4.0, expected 3.0 .* of result 1; called with"
                with quaver.verify(), pytest.raises(VerificationError, match=words):
                    ops.negated.out(torch.ones(3), out=out, sum_out=total)


# Under autocast, in inference mode, and what it is not for


@pytest.mark.parametrize("mode", [torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)])
@pytest.mark.parametrize("name", library.OPS)
def test_with_torchs_other_modes(name, mode):
    with mode, quaver.verify():
        for seed in range(5):
            getattr(ops, name)(**drawn(name, seed))
    with quaver.backend("reference"), mode:
        getattr(ops, name)(**drawn(name))


def call(x):
    return quaver.quantize(x, ONE) * 2


def call_verified(x):
    with quaver.verify():
        return call(x)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("mode", [quaver.verify, lambda: quaver.backend("reference")])
def test_compiled_functions_are_refused(mode, backend):
    compiled = torch.compile(call, backend=backend)
    words = r"^quaver::quantize: quaver\..*\) is for eager mode, but a compiled function called this op inside it$"
    for _ in range(2):  # before it was compiled, and after
        with mode(), pytest.raises(RuntimeError, match=words):
            compiled(X)
        compiled(X)
    torch._dynamo.reset()


@pytest.mark.parametrize("fullgraph", [True, False])
def test_a_compiled_function_cannot_enter(fullgraph):
    torch._dynamo.reset()
    with pytest.raises(Exception, match=re.escape("quaver.verify() is for eager mode")):
        torch.compile(call_verified, backend="eager", fullgraph=fullgraph)(X)


class Quantizing(torch.nn.Module):
    def forward(self, x):
        return call(x)


def test_export_and_fake_tensors_are_refused():
    with quaver.verify(), pytest.raises(RuntimeError, match="is for eager mode"):
        torch.export.export(Quantizing(), (X,), strict=False)
    with quaver.verify(), pytest.raises(RuntimeError, match="needs tensors with values, got fake ones"):
        quaver.quantize(X.to("meta"), ONE.to("meta"))


def test_parameters_of_a_product_are_seen():
    """QuantizationParams and zero points of every form reach the op as it sees them."""
    a, a_params = quaver.dynamic_quantize(normal(4, 6), symmetric=False)
    with quaver.verify():
        quaver.int8_matmul(a, codes(6, 5), a_zero_point=a_params.zero_point, b_zero_point=zero_points(1, 5))
        quaver.int8_matmul_requantize(a, codes(6, 5), a_params, scales(1, 5), scales(1, 5))
