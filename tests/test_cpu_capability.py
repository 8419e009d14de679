"""The CPU kernels' instruction sets give the same bits: digests of every op's results, from a process for each set."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import quaver
from quaver import _C, PerChannel, PerTensor, PerToken
from tests.cases import (
    CODE_DTYPES,
    EDGE_SCALES,
    EDGE_VALUES,
    FLOAT_DTYPES,
    MODES,
    codes,
    normal,
    products,
    scales,
    zero_points,
)

CAPABILITIES = tuple(_C.cpu_capabilities())  # from the least to the most


def digest(tensor):
    """Of a tensor's bits; NaN has one payload here, since none is law."""
    if tensor.is_floating_point():
        tensor = tensor.where(~tensor.isnan(), float("nan"))
    data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()


def results():
    """(what, tensor): every op in the data's order, over vectors and their tails, conversions and hard values."""
    for dtype in FLOAT_DTYPES:
        x = torch.cat([normal(71, 131) * 100, EDGE_VALUES.repeat(2)[:131].expand(3, 131)]).to(dtype)
        tall = x.t().contiguous()
        for symmetric in (True, False):
            for granularity in (PerTensor(), PerChannel(0), PerChannel(1)):
                params = quaver.choose_qparams(x, granularity, symmetric=symmetric)
                yield f"choose_qparams {dtype} {granularity} scale", params.scale
                yield f"choose_qparams {dtype} {granularity} zero point", params.zero_point
        for code_dtype in CODE_DTYPES:
            for mode in MODES:
                arguments = {"dtype": code_dtype, "mode": mode}
                for op in (quaver.quantize, quaver.fake_quantize, quaver.fake_quantize_mask):
                    for shape in ((1, 1), (74, 1), (1, 131), (74, 131)):
                        q = op(x, scales(*shape), zero_points(*shape, dtype=code_dtype), **arguments)
                        yield f"{op.__name__} {dtype} {code_dtype} {mode} {shape}", q
                    for scale in torch.tensor(EDGE_SCALES):
                        yield f"{op.__name__} {dtype} {code_dtype} {mode} by {scale}", op(tall, scale, **arguments)
            q, _, row_sum = quaver.dynamic_quantize(
                x, PerToken(), symmetric=False, dtype=code_dtype, return_row_sum=True
            )
            yield f"dynamic_quantize {dtype} {code_dtype}", q
            yield f"dynamic_quantize {dtype} {code_dtype} row sums", row_sum

        gate = torch.cat([x, torch.linspace(-110, 110, 131 * 60).reshape(60, 131).to(dtype)])
        for kind in ({}, {"symmetric": False, "dtype": torch.uint8}):
            for length in (131, 64, 1):
                options = {**kind, "return_row_sum": True}
                first, second = gate[:, :length], gate.flip(0)[:, :length]
                weight = normal(length, dtype=dtype)
                made = quaver.rms_norm_quantize(first, weight, residual=second, **options)
                gated = quaver.silu_mul_quantize(first, second, **options)
                for op, results in (("rms_norm_quantize", made), ("silu_mul_quantize", gated)):
                    q, params, *rest = results
                    for number, result in enumerate((q, params.scale, params.zero_point, *rest)):
                        yield f"{op} {dtype} {kind} {length} result {number}", result

    # Extreme codes: their pairs overflow the 16 bits of instructions that multiply bytes.
    m, k, n = 37, 259, 131
    for a_dtype in CODE_DTYPES:
        for b_dtype in CODE_DTYPES:
            name = f"{a_dtype} x {b_dtype}"
            a, b = codes(m, k, dtype=a_dtype), codes(k, n, dtype=b_dtype, seed=1)
            a[:3] = torch.iinfo(a_dtype).max
            b[:, :70] = torch.iinfo(b_dtype).min
            offsets = {
                "a_zero_point": zero_points(m, 1, dtype=a_dtype),
                "b_zero_point": zero_points(1, n, dtype=b_dtype),
            }
            yield f"int8_matmul {name}", quaver.int8_matmul(a, b)
            yield f"int8_matmul {name}, a weight", quaver.int8_matmul(a, b.t().contiguous().t())
            yield f"int8_prepack {b_dtype}", quaver.int8_prepack(b)
            yield f"int8_matmul {name}, packed", quaver.int8_matmul(a, b, b_packed=quaver.int8_prepack(b))
            yield f"int8_matmul {name}, zero points", quaver.int8_matmul(a, b, **offsets)
            for rows, depth, columns in ((1, 259, 131), (16, 64, 32), (19, 128, 64), (33, 256, 96), (35, 131, 33)):
                part = a[:rows, :depth], b[:depth, :columns]
                corrections = {"a_zero_point": offsets["a_zero_point"][:rows]} if rows % 2 else {}
                yield f"int8_matmul {name}, {rows} rows", quaver.int8_matmul(*part, **corrections)
            factors = (scales(m, 1), scales(1, n))
            rest = {**offsets, "bias": normal(n), "relu": a_dtype is b_dtype}
            for dtype in FLOAT_DTYPES:
                y = quaver.int8_matmul_dequantize(a, b, *factors, dtype=dtype, **rest)
                yield f"int8_matmul_dequantize {name} {dtype}", y
            for code_dtype in CODE_DTYPES:
                q = quaver.int8_matmul_requantize(a, b, *factors, scales(1, n) * 100, dtype=code_dtype, **rest)
                yield f"int8_matmul_requantize {name} {code_dtype}", q
                fixed = {**rest, "bias": products(n), "dtype": code_dtype, "mode": "fixed"}
                q = quaver.int8_matmul_requantize(a, b, *factors, scales(1, n) * 100, **fixed)
                yield f"int8_matmul_requantize {name} {code_dtype} fixed", q

    acc = products(37, 1031, most=2**31 - 1) >> codes(37, 1031).abs() % 31
    factors = (scales(37, 1), scales(1, 1031), 2.0**12 * scales(1, 1031, seed=3))
    for view in (acc, acc[:, ::2]):
        for dtype in FLOAT_DTYPES:
            columns = (factors[1][:, : view.shape[1]], normal(view.shape[1]))
            y = quaver.rescale(view, factors[0], columns[0], bias=columns[1], relu=view is acc, dtype=dtype)
            yield f"rescale {dtype}", y
    for code_dtype in CODE_DTYPES:
        for mode in ("float", "fixed"):
            for view in (acc, acc[:, ::2]):
                columns = (factors[1][:, : view.shape[1]], factors[2][:, : view.shape[1]])
                for relu in (False, True):
                    q = quaver.requantize(view, factors[0], *columns, dtype=code_dtype, mode=mode, relu=relu)
                    yield f"requantize {code_dtype} {mode} {relu}", q

    for x_dtype in CODE_DTYPES:
        for c, o, groups, kernel, size in (
            (3, 40, 1, (7, 7), 23),
            (64, 70, 1, (3, 3), 14),
            (64, 33, 1, (1, 1), 9),
            (24, 36, 3, (3, 2), 11),
            (70, 70, 70, (3, 3), 37),
            (5, 10, 5, (5, 5), 12),
        ):
            x, weight = codes(2, c, size, size, dtype=x_dtype), codes(o, c // groups, *kernel, seed=1)
            x[:, :, :3] = torch.iinfo(x_dtype).max
            where = {"stride": 1 + c % 2, "padding": kernel[0] // 2, "groups": groups}
            rest = {"x_zero_point": zero_points(1, dtype=x_dtype), "bias": normal(o)}
            for memory_format in (torch.contiguous_format, torch.channels_last):
                image = x.contiguous(memory_format=memory_format)
                args = (image, weight, scales(1), scales(o, 1, 1, 1))
                name = f"int8_conv2d {x_dtype} {c} {o} {groups} {memory_format}"
                yield name, quaver.int8_conv2d(*args, **where, **rest)
                yield f"{name} half", quaver.int8_conv2d(*args, **where, relu=True, dtype=torch.float16)
                yield f"{name} codes", quaver.int8_conv2d(*args, 100 * scales(1), **where, **rest, dtype=x_dtype)

    magnitudes = torch.exp2(torch.linspace(-149, 127, 10_007))  # past both ends of float16, into bfloat16's denormals
    for dtype in FLOAT_DTYPES:
        for code_dtype in CODE_DTYPES:
            q = codes(10_007, dtype=code_dtype)
            yield f"dequantize {code_dtype} {dtype}", quaver.dequantize(q, magnitudes, dtype=dtype)
            x = quaver.dequantize(q, torch.tensor(0.1), torch.tensor(5), dtype=dtype)
            yield f"dequantize {code_dtype} {dtype} per tensor", x
        y = quaver.int8_linear(normal(19, 259, dtype=dtype), codes(131, 259), scales(131, 1), symmetric=False)
        yield f"int8_linear {dtype}", y
        y = quaver.int8_linear(normal(19, 259, dtype=dtype), codes(131, 259), scales(131, 1), relu=True)
        yield f"int8_linear {dtype} relu", y


def main():
    found = [(what, digest(tensor)) for what, tensor in results()]
    print(json.dumps({"capability": quaver.build_info()["cpu_capability"], "digests": found}))


def run_with(capability, **more):
    """main() in a process of its own, with more in its environment: the capability is read once in a process."""
    environment = {name: value for name, value in os.environ.items() if name != "QUAVER_CPU_CAPABILITY"} | more
    if capability is not None:
        environment["QUAVER_CPU_CAPABILITY"] = capability
    process = subprocess.run(
        [sys.executable, "-c", "from tests.test_cpu_capability import main; main()"],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


FLAGS = {
    "amx": {"amx_int8", "amx_tile", "avx512_vnni"},
    "avx512_vnni": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"},
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
    "avx_vnni": {"avx2", "avx_vnni"},
    "avx2": {"avx2"},
    "portable": set(),
}


def machine_flags():
    """What the kernel says that the machine has; nothing where it is not Linux or not x86."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def test_nothing_that_the_machine_has_is_overlooked(machine):
    """By the kernel's word: an instruction set that is not found is tested nowhere. Tiles may be refused."""
    flags = machine_flags()
    best, *others = [name for name, needed in FLAGS.items() if needed <= flags]
    assert machine["capability"] in ((best, others[0]) if best == "amx" else (best,))


def test_a_name_of_no_capability_is_refused():
    environment = {**os.environ, "QUAVER_CPU_CAPABILITY": "sse9"}
    done = subprocess.run(
        [sys.executable, "-c", "import quaver"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    names = ", ".join(CAPABILITIES)
    assert done.stderr.splitlines()[-1] == f"ValueError: QUAVER_CPU_CAPABILITY must be one of {names}, got sse9"


@pytest.fixture(scope="module")
def machine():
    """What this machine gives when nothing caps it."""
    return run_with(None)


@pytest.mark.parametrize("capability", CAPABILITIES[:-1])
def test_every_capability_gives_the_same_bits(machine, capability):
    capped = run_with(capability)
    rank = CAPABILITIES.index
    allowed = min(rank(capability), rank(machine["capability"]))
    assert rank(capped["capability"]) <= allowed, "the cap had no effect"
    if capability != "avx_vnni":  # which some machines lack that have more
        assert rank(capped["capability"]) == allowed, "the cap was lower than asked for"
    pairs = zip(capped["digests"], machine["digests"], strict=True)
    different = [what for (what, got), (_, wanted) in pairs if got != wanted]
    assert not different, f"{len(different)} results differ from {machine['capability']}'s, first {different[:5]}"
