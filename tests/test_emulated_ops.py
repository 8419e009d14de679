"""Every CUDA op, run by the emulator from the PTX that nvcc makes of the shipped sources, equals the reference.

Launchers, grids and registration are the shipped ones (tests/emulator/README.md). A race, an access out of bounds or to
memory that nothing wrote, a divergent barrier: each fails the test that meets it.
"""

import importlib.util
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

import quaver
from quaver import reference
from tests.cases import (
    CODE_DTYPES,
    EDGE_SCALES,
    EDGE_VALUES,
    FLOAT_DTYPES,
    GRANULARITIES,
    MODES,
    assert_bits,
    codes,
    in_every_run,
    layouts,
    normal,
    products,
    scales,
    zero_points,
)

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import DEVICES, LaunchError, Module, Result, build, emulated
from tests.emulator.module import Counters

CUOBJDUMP = Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin", "cuobjdump")


def check(op, *args, device="sm_80", seed=1, draws=None, **kwargs):
    """The op's results on a pretended device are the reference's; gives the launches.

    `seed` is of the order of warps and blocks; an op's own is `draws`.
    """
    if draws is not None:
        kwargs["seed"] = draws
    with emulated.device(device, seed=seed) as runs:
        actual = getattr(emulated.ops(), op)(*args, **kwargs)
    expected = getattr(reference, op)(*args, **kwargs)
    if isinstance(expected, torch.Tensor):
        actual, expected = (actual,), (expected,)
    for got, wanted in zip(actual, expected, strict=True):
        assert_bits(got, wanted)
    return runs


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_choose_qparams(dtype, symmetric):
    for seed, (shape, scale_shape) in enumerate(GRANULARITIES):
        scale_shape = scale_shape if len(scale_shape) == len(shape) else (1,) * len(shape)
        check("choose_qparams", normal(*shape, dtype=dtype), scale_shape, symmetric=symmetric, seed=seed)
    edges = EDGE_VALUES.to(dtype).repeat(7, 1)
    for name, x in layouts(edges):
        check("choose_qparams", x, (7, 1), symmetric=symmetric), name
    check("choose_qparams", edges[:, :20], (1, 20), symmetric=symmetric, eps=0.25)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_quantize(dtype, code_dtype, mode):
    for seed, (shape, scale_shape) in enumerate(GRANULARITIES):
        x, scale = normal(*shape, dtype=dtype), scales(*scale_shape)
        zero_point = zero_points(*scale_shape, dtype=code_dtype)
        check("quantize", x, scale, zero_point, dtype=code_dtype, mode=mode, seed=seed, draws=seed - 3)
        check("quantize", x, scale, dtype=code_dtype, mode=mode, q_min=1, q_max=100)
    for scale in EDGE_SCALES:
        check("quantize", EDGE_VALUES.to(dtype), torch.tensor(scale), torch.tensor(7, dtype=torch.int32), mode=mode)
    for name, x in layouts(normal(2, 3, 5, 7, dtype=dtype)):
        check("quantize", x, scales(2, 1, 5, 1), dtype=code_dtype, mode=mode), name


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", ["fake_quantize", "fake_quantize_mask"])
def test_fake_quantize(op, dtype, mode):
    """The type of codes is a range of numbers to these kernels."""
    for seed, (shape, scale_shape) in enumerate(GRANULARITIES):
        x, scale = normal(*shape, dtype=dtype) * 3, scales(*scale_shape)
        code_dtype = CODE_DTYPES[seed % 2]
        zero_point = zero_points(*scale_shape, dtype=code_dtype)
        check(op, x, scale, zero_point, dtype=code_dtype, mode=mode, seed=seed, draws=2**40 + seed)
    for scale in (*EDGE_SCALES, 1e-45):
        check(op, EDGE_VALUES.to(dtype), torch.tensor(scale), torch.tensor(7, dtype=torch.int32), mode=mode)
    for name, x in layouts(normal(2, 3, 5, 7, dtype=dtype)):
        check(op, x, scales(2, 1, 5, 1), q_min=1, q_max=100, mode=mode), name


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
def test_dequantize(dtype, code_dtype):
    for seed, (shape, scale_shape) in enumerate(GRANULARITIES):
        q, scale = codes(*shape, dtype=code_dtype), scales(*scale_shape)
        check("dequantize", q, scale, zero_points(*scale_shape, dtype=code_dtype), dtype=dtype, seed=seed)
        check("dequantize", q, scale, dtype=dtype)
    every_code = torch.arange(*((0, 256) if code_dtype == torch.uint8 else (-128, 128)), dtype=code_dtype)
    for scale in EDGE_SCALES:
        check("dequantize", every_code, torch.tensor(scale), dtype=dtype)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_dynamic_quantize(dtype, symmetric):
    x = normal(9, 300, dtype=dtype)
    for scale_shape in ((1, 1), (9, 1), (1, 300), (9, 3)):
        check("dynamic_quantize", x, scale_shape, symmetric=symmetric, return_row_sum=True)
    check("dynamic_quantize", x.t(), (300, 1), symmetric=symmetric, return_row_sum=True)
    check("dynamic_quantize", x[:, :0], (9, 1), symmetric=symmetric, return_row_sum=True)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_rms_norm_quantize(dtype, symmetric):
    for seed, shape in enumerate([(9, 300), (7,), (0, 5), (5, 0), (2, 3, 64), (2, 1, 3, 2, 1, 40)]):
        for code_dtype in CODE_DTYPES if not symmetric else CODE_DTYPES[:1]:
            codes_of = {"symmetric": symmetric, "dtype": code_dtype, "return_row_sum": True}
            x, weight = normal(*shape, dtype=dtype), normal(shape[-1], dtype=FLOAT_DTYPES[seed % 3])
            check("rms_norm_quantize", x, weight, **codes_of, seed=seed)
            check("rms_norm_quantize", x, weight, residual=normal(*shape, dtype=dtype, seed=1), eps=0.1, seed=seed)
    edges = EDGE_VALUES.to(dtype).repeat(7, 1)
    weight = EDGE_VALUES.flip(0)
    for (_, x), (_, residual) in zip(layouts(edges), layouts(edges.flip(1)), strict=True):
        check("rms_norm_quantize", x, weight, symmetric=symmetric)
        check("rms_norm_quantize", x, weight.repeat_interleave(2)[::2], residual=residual, symmetric=symmetric)
    x = torch.cat([normal(40, 24), torch.zeros(1, 24)]).to(dtype)
    for column in range(24):
        x[column, column] = EDGE_VALUES[-1 - column]
    check("rms_norm_quantize", x, torch.ones(24), symmetric=symmetric, eps=1e-46, q_min=-5, q_max=100)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_silu_mul_quantize(dtype, symmetric):
    for seed, shape in enumerate([(9, 300), (7,), (0, 5), (5, 0), (2, 3, 64), (2, 1, 3, 2, 1, 40)]):
        gate, up = 4 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
        for code_dtype in CODE_DTYPES if not symmetric else CODE_DTYPES[:1]:
            codes_of = {"symmetric": symmetric, "dtype": code_dtype, "return_row_sum": True}
            check("silu_mul_quantize", gate, up, **codes_of, seed=seed)
    hard = torch.cat([EDGE_VALUES, torch.linspace(-110, 110, 1000), torch.exp2(torch.linspace(-30, 7, 100))])
    gate = torch.cat([hard, -hard])[:2200].to(dtype)
    for up in (torch.ones_like(gate), gate.flip(0)):
        # Rows of few, whose scale shows a small product's last bit.
        gates, ups = gate[: len(gate) // 8 * 8].view(-1, 8), up[: len(gate) // 8 * 8].view(-1, 8)
        for (_, a), (_, b) in zip(layouts(gates), layouts(ups), strict=True):
            check("silu_mul_quantize", a, b, symmetric=symmetric, return_row_sum=True)


@pytest.mark.parametrize("a_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("b_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("b_is_weight", [True, False], ids=["b = w.t()", "b [K, N]"])
def test_int8_matmul(a_dtype, b_dtype, b_is_weight):
    for seed, (m, n, k) in enumerate(
        [(1, 1, 1), (64, 64, 32), (65, 63, 33), (3, 130, 7), (5, 2, 0), (0, 3, 4), (17, 64, 100)]
    ):
        a = codes(m, k, dtype=a_dtype)
        b = codes(n, k, dtype=b_dtype).t() if b_is_weight else codes(k, n, dtype=b_dtype)
        check("int8_matmul", a, b, seed=seed)
        a_zero_point, b_zero_point = zero_points(m, 1, dtype=a_dtype), zero_points(1, n, dtype=b_dtype)
        check("int8_matmul", a, b, a_zero_point=a_zero_point, b_zero_point=b_zero_point)
        check("int8_matmul", a, b, a_zero_point=torch.tensor(5, dtype=torch.int32))
        given = {"a_sum": a.sum(1, True, dtype=torch.int32), "b_sum": b.sum(0, True, dtype=torch.int32)}
        runs = check("int8_matmul", a, b, a_zero_point=a_zero_point, b_zero_point=b_zero_point, **given)
        assert all("matmul" in run.kernel for run in runs), "sums that were given were computed again"


def test_int8_matmul_of_batches():
    a, b = codes(2, 3, 5, 40), codes(3, 40, 9, seed=1)
    a_zero_point, b_zero_point = zero_points(2, 3, 5, 1), zero_points(3, 1, 9)
    check("int8_matmul", a, b, a_zero_point=a_zero_point, b_zero_point=b_zero_point)
    check("int8_matmul", a, b[0], a_zero_point=a_zero_point, b_zero_point=b_zero_point[0])
    check("int8_matmul", a[0, 0], b, b_zero_point=b_zero_point)
    check("int8_matmul", a.transpose(0, 1), codes(2, 40, 9), a_zero_point=a_zero_point.transpose(0, 1))
    check("int8_matmul", codes(2, 1, 2, 1, 3, 8), codes(3, 1, 2, 8, 5), b_zero_point=zero_points(2, 1, 5))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_int8_matmul_dequantize_and_requantize(relu, with_bias):
    m, n, k = 33, 70, 65
    a, b = codes(m, k), codes(n, k, seed=1).t()
    bias = normal(2 * n)[::2] if with_bias else None
    for a_scale, b_scale in ((scales(m, 1), scales(1, n)), (scales(1, 1), scales())):
        common = {"a_zero_point": zero_points(m, 1), "b_zero_point": zero_points(1, n), "bias": bias, "relu": relu}
        for dtype in FLOAT_DTYPES:
            check("int8_matmul_dequantize", a, b, a_scale, b_scale, dtype=dtype, **common)
        for dtype in CODE_DTYPES:
            for shape in ((), (1, n)):
                out = {"out_zero_point": zero_points(*shape, dtype=dtype), "dtype": dtype}
                check("int8_matmul_requantize", a, b, a_scale, b_scale, 64 * scales(*shape), **out, **common)
    check("int8_matmul_requantize", a, b, scales(m, 1), scales(1, n), scales(), q_min=-5, q_max=5)


# Powers of 2 as multipliers, and products of which they make halves and quarters, what overflows and what vanishes.
FIXED_TIES = torch.exp2(torch.tensor([-40.0, -33, -32, -31, -20, -8, -2, -1, 0, 1, 2, 7, 20, 29, 30, 40, 100, 127]))
FIXED_PRODUCTS = torch.tensor([0, *(sign * (2**n + d) for n in range(31) for d in (-1, 0, 1) for sign in (1, -1))] * 4)
INT32_ENDS = torch.tensor([-(2**31), 1 - 2**31, 2**31 - 1, 2**31 - 2], dtype=torch.int32)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("mode", ["float", "fixed"])
@pytest.mark.parametrize("dtype", CODE_DTYPES, ids=str)
def test_requantize(dtype, mode, relu):
    for seed, shape in enumerate([(), (5,), (64,), (0, 3), (3, 0), (9, 1), (40, 64), (33, 70), (2, 3, 16, 20)]):
        m, n = (1, 1, *shape)[-2:]
        bias = normal(n) if mode == "float" else products(n, most=2**16)
        for row, column in (((), ()), ((m, 1), (1, n)), ((*shape[:-2], m, 1), (*shape[:-2], 1, n))):
            factors = (scales(*row), scales(*column, seed=3), 2.0**12 * scales(*column, seed=4))
            out = {"out_zero_point": zero_points(*column, dtype=dtype), "dtype": dtype, "mode": mode, "relu": relu}
            check("requantize", products(*shape), *factors, bias=bias, **out, seed=seed)
            check("requantize", products(*shape), *factors, dtype=dtype, mode=mode, relu=relu)
    ends = torch.cat([FIXED_PRODUCTS.to(torch.int32), INT32_ENDS, INT32_ENDS]).expand(len(FIXED_TIES), -1)
    one = torch.tensor(1.0)
    for acc in (ends.contiguous(), ends.t().contiguous().t(), ends.t().contiguous()):
        row, column = (FIXED_TIES[:, None], one) if acc.shape == ends.shape else (one, FIXED_TIES[None])
        check("requantize", acc, row, column, one, dtype=dtype, mode=mode, relu=relu)
        check("requantize", acc, row, column, torch.tensor(0.1), dtype=dtype, mode=mode, q_min=3, q_max=100)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_rescale(dtype, relu):
    for seed, shape in enumerate([(), (5,), (64,), (0, 3), (3, 0), (9, 1), (40, 64), (33, 70), (2, 3, 16, 20)]):
        m, n = (1, 1, *shape)[-2:]
        for row, column in (((), ()), ((m, 1), (1, n)), ((*shape[:-2], m, 1), (*shape[:-2], 1, n))):
            for bias in (None, normal(n)):
                factors = (scales(*row), scales(*column, seed=3))
                check("rescale", products(*shape), *factors, bias=bias, dtype=dtype, relu=relu, seed=seed)
    # Products that float32 must round, ties among them, and zeros of either sign
    ends = torch.cat([FIXED_PRODUCTS.to(torch.int32), INT32_ENDS, INT32_ENDS]).expand(len(FIXED_TIES), -1)
    one = torch.tensor(1.0)
    for acc in (ends.contiguous(), ends.t().contiguous().t(), ends.t().contiguous()):
        row, column = (FIXED_TIES[:, None], one) if acc.shape == ends.shape else (one, FIXED_TIES[None])
        for bias in (
            None,
            torch.tensor([-0.0, float("nan"), float("inf"), -1e30]).repeat(acc.shape[1])[: acc.shape[1]],
        ):
            check("rescale", acc, row, column, bias=bias, dtype=dtype, relu=relu)


@pytest.mark.parametrize("relu", [False, True])
def test_int8_matmul_requantize_fixed(relu):
    m, n, k = 33, 70, 65
    a, b = codes(m, k), codes(n, k, seed=1).t()
    for a_scale, b_scale in ((scales(m, 1), scales(1, n)), (scales(1, 1), scales())):
        for dtype in CODE_DTYPES:
            for bias in (None, products(2 * n, most=2**12)[::2]):
                points = {"a_zero_point": zero_points(m, 1), "out_zero_point": zero_points(1, n, dtype=dtype)}
                options = {"bias": bias, "relu": relu, "dtype": dtype, "mode": "fixed"}
                check("int8_matmul_requantize", a, b, a_scale, b_scale, 64 * scales(1, n), **points, **options)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_int8_linear(dtype, symmetric):
    weight, scale = codes(40, 72), scales(40, 1)
    for relu in (False, True):
        x = normal(2, 5, 72, dtype=dtype)
        check("int8_linear", x, weight, scale, normal(40), symmetric=symmetric, relu=relu)
    weight_sum = weight.sum(1, True, dtype=torch.int32)
    check("int8_linear", normal(72, dtype=dtype), weight, scale, weight_sum=weight_sum, symmetric=symmetric)


@pytest.mark.parametrize("device", in_every_run(DEVICES))
def test_every_architecture(device):
    """From the PTX that its driver would choose, under three orders of warps and blocks."""
    for seed in (0, 1, 2):
        check(
            "dynamic_quantize",
            normal(5, 130, dtype=torch.bfloat16),
            (5, 1),
            device=device,
            seed=seed,
            return_row_sum=True,
        )
        check("dequantize", codes(5, 130), scales(5, 1), dtype=torch.bfloat16, device=device, seed=seed)
        x, other = normal(3, 2056), normal(3, 2056, seed=1)
        check("rms_norm_quantize", x, normal(2056), residual=other, device=device, seed=seed)
        check("silu_mul_quantize", x, other, symmetric=False, device=device, seed=seed)
        scale = scales(30, 1)
        check(
            "int8_linear", normal(70, 64), codes(30, 64), scale, normal(30), symmetric=False, device=device, seed=seed
        )
        for n in (64, 30):
            factors = (scales(70, 1), scales(1, n), 2.0**12 * scales(1, n, seed=3))
            for mode in ("float", "fixed"):
                check("requantize", products(70, n), *factors, mode=mode, device=device, seed=seed)
            check("rescale", products(70, n), *factors[:2], dtype=torch.bfloat16, device=device, seed=seed)


# What the harness itself must see.


def test_results_that_no_kernel_wrote_are_reported(monkeypatch):
    """A launch that does nothing: every output keeps what memory held."""
    nothing = Result([], Counters)
    monkeypatch.setattr(Module, "launch_packed", lambda self, name, **launch: nothing)
    with pytest.raises(emulated.EmulationError, match="1 results have bytes that no kernel wrote"):
        check("quantize", normal(3), torch.tensor(0.1))


def test_nothing_of_an_op_stays_in_device_memory():
    """Else other arrays, which get the addresses later, would lie in what is left of it."""
    check("int8_linear", normal(3, 8), codes(4, 8), scales(4, 1), symmetric=False)
    assert build.machine().allocations() == 0


def test_an_error_of_the_emulator_is_not_lost(monkeypatch):
    """Not even where a test expects the op to fail, and catches the error that its failed launch becomes."""

    def fail(self, name, **launch):
        raise KeyError("a defect of the emulator")

    monkeypatch.setattr(Module, "launch_packed", fail)
    with pytest.raises(KeyError, match="a defect of the emulator"):
        check("quantize", normal(3), torch.tensor(0.1))
    with pytest.raises(KeyError), emulated.device():  # noqa: SIM117
        with pytest.raises(RuntimeError, match="the CUDA launch failed"):
            emulated.ops().quantize(normal(3), torch.tensor(0.1))


def test_a_refused_launch_is_the_ops_error(monkeypatch):
    def refuse(self, name, **launch):
        raise LaunchError("too large")

    monkeypatch.setattr(Module, "launch_packed", refuse)
    with pytest.raises(RuntimeError, match="quaver::quantize: the CUDA launch failed: cudaErrorInvalidValue"):
        check("quantize", normal(3), torch.tensor(0.1))


def device_code(library):
    """{(architecture, source file): lines of PTX}, without debugging sections and where files were compiled."""
    dump = subprocess.run([CUOBJDUMP, "-ptx", library], capture_output=True, text=True, check=True).stdout
    found = {}
    for part in re.split(r"Fatbin (?:ptx|elf) code:", dump):
        if ".version" not in part:
            continue
        architecture = re.search(r"arch = (sm_\d+)", part).group(1)
        source = re.search(r"(\w+)_cu_[0-9a-f]{8}", part).group(1).split("GLOBAL__N__")[1].split("_", 1)[1]
        code = re.split(r"^\s*\.(?:file|section)", part[part.index(".version") :], flags=re.MULTILINE)[0]
        found[architecture, source] = re.sub(
            r"(GLOBAL__N__|INTERNAL_)[0-9a-f]+_|_cu_[0-9a-f]{8}", "", code
        ).splitlines()
    return found


@pytest.mark.skipif(not quaver.build_info()["cuda"], reason="quaver was built without its CUDA kernels")
def test_the_emulated_library_is_the_shipped_code():
    shipped = device_code(importlib.util.find_spec("quaver._C_cuda").origin)
    emulated_code = device_code(emulated.library()._name)
    assert emulated_code.keys() == shipped.keys()
    for place, lines in shipped.items():
        assert emulated_code[place] == lines, f"the PTX of {place} differs"
