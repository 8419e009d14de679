"""The ops among torch's own ways: compiled, exported, packaged, under autocast, in inference mode, in threads.

Everywhere the bits are those of the plain call.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import quaver
from quaver import library
from quaver.inductor import every_argument
from quaver.library import as_tuple
from quaver.selftest import case
from tests.cases import DEVICES, FLOAT_DTYPES, assert_bits, codes, normal, scales, zero_points

ops = torch.ops.quaver
K, N = 32, 5


def rows(m):
    return normal(m, K)


def row_values(m):
    return scales(m, 1), zero_points(m, 1)


# {op: (a call of it, its tensors for m rows)}; every tensor's first dimension is m, or no dimension is.
SIZED = {
    "choose_qparams": (lambda x: ops.choose_qparams(x, [x.shape[0], 1], symmetric=False), lambda m: (rows(m),)),
    "quantize": (ops.quantize, lambda m: (rows(m), *row_values(m))),
    "dynamic_quantize": (
        lambda x: ops.dynamic_quantize(x, [x.shape[0], 4], symmetric=False, return_row_sum=True),
        lambda m: (rows(m),),
    ),
    "rms_norm_quantize": (
        lambda x, weight, h: ops.rms_norm_quantize(x, weight, residual=h, symmetric=False, return_row_sum=True),
        lambda m: (rows(m), normal(K), rows(m)),
    ),
    "silu_mul_quantize": (lambda x: ops.silu_mul_quantize(*x.chunk(2, -1), dtype=torch.int8), lambda m: (rows(m),)),
    "int8_matmul": (
        lambda a, b, z: ops.int8_matmul(a, b.t(), a_zero_point=z),
        lambda m: (codes(m, K), codes(N, K), zero_points(m, 1)),
    ),
    "int8_matmul_dequantize": (
        lambda a, b, a_scale, bias: ops.int8_matmul_dequantize(a, b.t(), a_scale, a_scale[:1], bias=bias, relu=True),
        lambda m: (codes(m, K), codes(N, K), scales(m, 1), normal(N)),
    ),
    "int8_matmul_requantize": (
        lambda a, b, a_scale, z: ops.int8_matmul_requantize(a, b.t(), a_scale, a_scale[:1], z, out_zero_point=None),
        lambda m: (codes(m, K), codes(N, K), scales(m, 1), scales(1, N)),
    ),
    "rescale": (
        lambda acc, a_scale, bias: ops.rescale(acc, a_scale, a_scale[:1], bias=bias, dtype=torch.bfloat16),
        lambda m: (codes(m, N).to(torch.int32), scales(m, 1), normal(N)),
    ),
    "requantize": (
        lambda acc, a_scale, b_scale: ops.requantize(acc, a_scale, b_scale, b_scale, mode="fixed"),
        lambda m: (codes(m, N).to(torch.int32), scales(m, 1), scales(1, N)),
    ),
    "dequantize": (
        lambda q, scale, z: ops.dequantize(q, scale, z, dtype=torch.float16),
        lambda m: (codes(m, K), *row_values(m)),
    ),
    "fake_quantize": (
        lambda x, scale, z: ops.fake_quantize(x, scale, z, mode="reciprocal"),
        lambda m: (rows(m), *row_values(m)),
    ),
    "fake_quantize_mask": (
        lambda x, scale, z: ops.fake_quantize_mask(x, scale, z, mode="stochastic", seed=3),
        lambda m: (rows(m), *row_values(m)),
    ),
    "int8_linear": (
        lambda x, weight_q, scale, bias: ops.int8_linear(x, weight_q, scale, bias, symmetric=False),
        lambda m: (rows(m), codes(N, K), scales(N, 1), normal(N)),
    ),
    "int8_conv2d": (
        lambda x, weight, scale, bias: ops.int8_conv2d(
            x, weight, scale[0], scale, bias=bias, padding=[1, 0], stride=[2, 2]
        ),
        lambda m: (codes(m, 3, 5, 4), codes(N, 3, 3, 2), scales(N, 1, 1, 1), normal(N)),
    ),
}


def assert_same(actual, expected):
    for got, wanted in zip(as_tuple(actual), as_tuple(expected), strict=True):
        assert_bits(got, wanted)


def on(device, tensors):
    return tuple(tensor.to(device) for tensor in tensors)


def test_every_op_is_here():
    assert tuple(SIZED) == library.OPS


# torch.compile


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", library.OPS)
def test_compiled(name, dynamic, device):
    """By Inductor, in one graph; with dynamic shapes compiled once for every number of rows."""
    torch._dynamo.reset()
    function, tensors = SIZED[name]
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic)
    for m in (6, 33, 4):
        arguments = on(device, tensors(m))
        with torch._dynamo.config.patch(error_on_recompile=dynamic and m != 6):
            assert_same(compiled(*arguments), function(*arguments))


# torch.export and AOTInductor


class AllOps(torch.nn.Module):
    """The data's way for m rows, through every function of quaver, and what no compiler rounds otherwise."""

    def __init__(self):
        super().__init__()
        self.layer = quaver.QuantLinear.from_float(torch.nn.Linear(K, N), symmetric=False)

    def forward(self, x, b, b_scale):
        params = quaver.choose_qparams(x, quaver.PerToken(), symmetric=False)
        a = quaver.quantize(x, params)
        q, q_params = quaver.dynamic_quantize(x, quaver.PerGroup(8))
        acc = quaver.int8_matmul(a, b.t(), a_zero_point=params.zero_point)
        y = quaver.int8_matmul_dequantize(a, b.t(), params, b_scale, dtype=torch.bfloat16)
        z = quaver.int8_matmul_requantize(a, b.t(), params, b_scale, b_scale[:, :1])
        scaled = quaver.rescale(acc, params, b_scale)
        codes = quaver.requantize(acc, params, b_scale, b_scale[:, :1], mode="fixed")
        seen = quaver.fake_quantize(x, params) * quaver.fake_quantize_mask(x, params)
        normed, _, h = quaver.rms_norm_quantize(x, b_scale.new_ones(K), residual=x)
        gated, _ = quaver.silu_mul_quantize(*h.chunk(2, -1))
        images = quaver.int8_conv2d(a.view(-1, 2, 4, K // 8), b[:4, :18].view(4, 2, 3, 3), b_scale[0, 0], b_scale[0, 0])
        return (
            images,
            a,
            acc,
            y,
            z,
            scaled,
            codes,
            seen,
            normed,
            gated,
            quaver.dequantize(q, q_params),
            self.layer(torch.relu(x)),
        )


def module_and_tensors(m):
    return (normal(m, K, seed=m), codes(N, K), scales(1, N))


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(0)
    module = AllOps()
    shapes = {"x": {0: torch.export.Dim("m", min=2, max=4096)}, "b": None, "b_scale": None}
    return module, torch.export.export(module, module_and_tensors(6), dynamic_shapes=shapes)


def test_exported_for_any_number_of_rows(exported):
    module, program = exported
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {name for name in library.OPS if f"quaver.{name}.default" in called} == set(library.OPS)
    for m in (6, 2, 4096, 77):
        assert_same(program.module()(*module_and_tensors(m)), module(*module_and_tensors(m)))


def test_an_exported_program_is_kept_and_loaded(exported, tmp_path):
    module, program = exported
    torch.export.save(program, tmp_path / "all_ops.pt2")
    loaded = torch.export.load(tmp_path / "all_ops.pt2").module()
    assert_same(loaded(*module_and_tensors(9)), module(*module_and_tensors(9)))


@pytest.mark.deep
def test_packaged_by_aotinductor(exported, tmp_path):
    """In half a minute of g++. Without the pass, torch 2.13's package does not load."""
    module, program = exported
    path = torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(tmp_path / "all_ops.pt2"),
        inductor_configs={"post_grad_custom_post_pass": every_argument},
    )
    packaged = torch._inductor.aoti_load_package(path)
    for m in (6, 2, 4096, 77):
        assert_same(packaged(*module_and_tensors(m)), module(*module_and_tensors(m)))


@pytest.mark.parametrize("name", library.OPS)
def test_every_argument_is_written_out(name):
    """With the values that the call has: the graph gives the same bits."""
    function, tensors = SIZED[name]
    traced = make_fx(function)(*tensors(6))
    every_argument(traced.graph)
    (node,) = (node for node in traced.graph.nodes if str(node.target) == f"quaver.{name}.default")
    assert list(node.kwargs) == [a.name for a in node.target._schema.arguments if a.kwarg_only]
    traced.recompile()
    assert_same(traced(*tensors(6)), function(*tensors(6)))


# torch.func


@pytest.mark.parametrize("name", library.OPS)
def test_vmap_is_refused_in_words(name):
    function, tensors = SIZED[name]
    batched, *others = tensors(4)
    with pytest.raises(NotImplementedError, match=rf"^quaver::{name}: torch.func.vmap is not supported; call it once"):
        torch.func.vmap(lambda x: function(x, *others))(batched.expand(3, *batched.shape))


def test_vmap_beside_an_op_is_none_of_its_business():
    x, scale = normal(4, 6), torch.tensor(0.1)
    scaled = torch.func.vmap(lambda factor: quaver.quantize(x, scale) * factor)(torch.tensor([1, 2]))
    assert torch.equal(scaled[1], quaver.quantize(x, scale) * 2)


@pytest.mark.parametrize("function", [quaver.quantize, quaver.fake_quantize])
def test_forward_mode_is_refused_in_words(function):
    x, scale = normal(4, 6), torch.tensor(0.1)
    with pytest.raises(NotImplementedError, match=r"^quaver::\w+: x has a tangent, but forward-mode"):
        torch.func.jvp(lambda x: function(x, scale).float(), (x,), (x,))
    primal, _ = torch.func.jvp(lambda y: function(x, scale) + y, (x,), (x,))
    assert_bits(primal, function(x, scale) + x)


# Autocast changes nothing: an op computes with what it is given.


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autocast_dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", library.OPS)
def test_autocast_changes_no_op(name, autocast_dtype, device):
    function, tensors = SIZED[name]
    arguments = on(device, tensors(6))
    expected = function(*arguments)
    with torch.autocast(device, autocast_dtype):
        assert_same(function(*arguments), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_layers_under_autocast(dtype, device):
    """Their results have their inputs' dtypes, whatever autocast makes of float layers around them."""
    torch.manual_seed(0)
    first, second = torch.nn.Linear(K, K, device=device), torch.nn.Linear(K, N, device=device)
    layer = quaver.QuantLinear.from_float(second, symmetric=False)
    x = normal(6, K, dtype=dtype).to(device)
    expected = layer(x)
    with torch.autocast(device, torch.bfloat16), torch.no_grad():
        assert_bits(layer(x), expected)
        assert expected.dtype == dtype
        hidden = first(x.to(torch.float32))
        assert hidden.dtype == torch.bfloat16
        result = layer(hidden)
    assert_bits(result, layer(hidden.detach()))
    assert result.dtype == torch.bfloat16


# Inference mode


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", library.OPS)
def test_inference_mode(name, device):
    function, tensors = SIZED[name]
    expected = function(*on(device, tensors(6)))
    with torch.inference_mode():
        results = function(*on(device, tensors(6)))
    assert all(result.is_inference() for result in as_tuple(results))
    assert_same(results, expected)
    assert_same(function(*on(device, tensors(6))), expected)
    with torch.inference_mode():
        made_inside = on(device, tensors(6))
    assert_same(function(*made_inside), expected)


# Threads


@pytest.mark.parametrize("device", DEVICES)
def test_eight_threads_get_the_same_bits(device):
    """All of them call all ops at once, each op with its own threads inside."""
    calls = [(name, case(name, number, device=device)) for number in range(12) for name in library.OPS]
    calls += [(name, on(device, SIZED[name][1](700))) for name in library.OPS]

    def run(call):
        name, arguments = call
        if isinstance(arguments, dict):
            return as_tuple(getattr(ops, name)(**arguments))
        return as_tuple(SIZED[name][0](*arguments))

    expected = [run(call) for call in calls]
    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(lambda _: [run(call) for call in calls], range(8)):
            for actual, wanted in zip(results, expected, strict=True):
                assert_same(actual, wanted)
