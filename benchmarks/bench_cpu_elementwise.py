"""The CPU's elementwise and reducing ops beside others that do the same work: torch's own, torch.compile of the
reference expression, onnxruntime and the pure-torch reference.

python -m benchmarks.bench_cpu_elementwise [--quick]

Symmetric int8 codes. A tensor of 4096 x 4096 comes from memory, one of 128 x 768 stays in a core's caches. In every run
all candidates take turns, and a ratio is the best other candidate's time over ours in that run; told are the medians
of the runs. Results are written to given places where a candidate can, as quaver, onnxruntime and torch.compile;
torch's quantize_per_* and the reference make theirs. The calls are made under torch.inference_mode(). Before and after
each line one copy is timed: where it takes much longer than it can, something else uses the memory, and the line says
so.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from functools import partial
from itertools import product

import torch

import quaver
from benchmarks import timing
from quaver import PerChannel, PerTensor, PerToken, reference

try:
    import onnxruntime
    from onnx import TensorProto, helper
except ImportError as error:
    onnxruntime, without_onnxruntime = None, str(error)

SHAPES = ((4096, 4096), (128, 768))
SMALL_SHAPES = ((64, 96),)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GRANULARITIES = {"tensor": PerTensor(), "axis 0": PerChannel(0), "axis 1": PerChannel(1)}
THREADS = (1, 2)
RUNS = 5
TURNS = 5
SECONDS_PER_TURN = 2e-3  # a short call is repeated for as long
SLOW = 20  # who takes so many times quaver's time has one turn in a run
DISTURBED = 1.25  # times the fastest copy so far


# The candidates of each op, called without arguments. An op's first is quaver's.


def quantize_expression(x, scale, out):
    out.copy_(torch.clamp(torch.round(x.float() / scale), -128, 127))


def dequantize_expression(q, scale, out):
    out.copy_(q.float() * scale)


def dynamic_expression(x, q, scale_out):
    real = x.float()
    scale = real.abs().amax(1, keepdim=True) / 127
    scale_out.copy_(scale)
    q.copy_(torch.clamp(torch.round(real / scale), -127, 127))


def compiled(expression, *arguments):
    """The compiled expression on its places; None where torch cannot compile here."""
    call = partial(torch.compile(expression, dynamic=False), *arguments)
    try:
        call()
    except Exception as error:  # what goes wrong depends on the machine's compiler
        print(f"no torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    return call


def by_onnxruntime(op, source, scale, axis, target, threads):
    """A session of one node, bound to the tensors' memory; None for what it has not."""
    types = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16, torch.int8: TensorProto.INT8}
    if source.dtype not in types or target.dtype not in types:
        return None
    real = scale.flatten().to(target.dtype if target.is_floating_point() else source.dtype)
    parameter = [] if real.numel() == 1 else [real.numel()]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "scale", "zero"], ["y"], axis=axis)],
        op,
        [helper.make_tensor_value_info("x", types[source.dtype], source.shape)],
        [helper.make_tensor_value_info("y", types[target.dtype], target.shape)],
        [
            helper.make_tensor("scale", types[real.dtype], parameter, real.tolist()),
            helper.make_tensor("zero", TensorProto.INT8, parameter, [0] * real.numel()),
        ],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    numpy_types = {dtype: torch.empty(0, dtype=dtype).numpy().dtype for dtype in (source.dtype, target.dtype)}
    binding.bind_input("x", "cpu", 0, numpy_types[source.dtype], source.shape, source.data_ptr())
    binding.bind_output("y", "cpu", 0, numpy_types[target.dtype], target.shape, target.data_ptr())
    bound = (source, target)  # kept as long as the call

    def call():
        session.run_with_iobinding(binding)
        return bound[1]

    return call


def quantize(x, granularity, threads):
    params = quaver.choose_qparams(x, GRANULARITIES[granularity])
    scale = params.scale
    axis = 0 if granularity == "axis 0" else 1
    place, other = torch.empty_like(x, dtype=torch.int8), torch.empty_like(x, dtype=torch.int8)
    calls = {
        "quaver": partial(torch.ops.quaver.quantize.out, x, scale, out=place),
        "torch": None,
        "compile": compiled(quantize_expression, x, scale, torch.empty_like(place)),
        "onnxruntime": onnxruntime and by_onnxruntime("QuantizeLinear", x, scale, axis, other, threads),
        "reference": partial(reference.quantize, x, scale),
    }
    if x.dtype == torch.float32 and granularity == "tensor":
        calls["torch"] = partial(torch.quantize_per_tensor, x, scale.item(), 0, torch.qint8)
    elif x.dtype == torch.float32:
        channels = (scale.flatten(), torch.zeros(scale.numel(), dtype=torch.int64))
        calls["torch"] = partial(torch.quantize_per_channel, x, *channels, axis, torch.qint8)
    timing.check_exact("quaver", calls["quaver"](), calls["reference"]())
    return calls


def dequantize(x, granularity, threads):
    params = quaver.choose_qparams(x, GRANULARITIES[granularity])
    q, scale = quaver.quantize(x, params), params.scale
    axis = 0 if granularity == "axis 0" else 1
    place = torch.empty_like(x)
    calls = {
        "quaver": partial(torch.ops.quaver.dequantize.out, q, scale, dtype=x.dtype, out=place),
        "torch": None,
        "compile": compiled(dequantize_expression, q, scale, torch.empty_like(x)),
        "onnxruntime": onnxruntime and by_onnxruntime("DequantizeLinear", q, scale, axis, torch.empty_like(x), threads),
        "reference": partial(reference.dequantize, q, scale, dtype=x.dtype),
    }
    if x.dtype == torch.float32 and granularity == "tensor":
        calls["torch"] = torch.quantize_per_tensor(x, scale.item(), 0, torch.qint8).dequantize
    elif x.dtype == torch.float32:
        channels = (scale.flatten(), torch.zeros(scale.numel(), dtype=torch.int64))
        calls["torch"] = torch.quantize_per_channel(x, *channels, axis, torch.qint8).dequantize
    timing.check_exact("quaver", calls["quaver"](), calls["reference"]())
    return calls


def dynamic_quantize(x, granularity, threads):
    scale_shape = PerToken().scale_shape(x.shape)
    places = dict(
        zip(("q", "scale", "zero_point", "row_sum"), torch.ops.quaver.dynamic_quantize(x, scale_shape), strict=True)
    )
    calls = {
        "quaver": partial(torch.ops.quaver.dynamic_quantize.out, x, scale_shape, **places),
        "compile": compiled(dynamic_expression, x, torch.empty_like(places["q"]), torch.empty_like(places["scale"])),
        "reference": partial(reference.dynamic_quantize, x, scale_shape),
    }
    timing.check_exact("quaver", calls["quaver"]()[:3], calls["reference"]()[:3])
    return calls


OPS = {
    "quantize": (quantize, tuple(GRANULARITIES)),
    "dequantize": (dequantize, tuple(GRANULARITIES)),
    "dynamic_quantize": (dynamic_quantize, ("axis 0",)),
}


# Time.


class Memory:
    """The time of one copy of 64 MB, against the least that it has taken."""

    def __init__(self, numel=2**24):
        self.source, self.target = torch.ones(numel), torch.empty(numel)
        self.least = float("inf")

    def probe(self):
        torch.set_num_threads(1)
        taken = min(timing.milliseconds(lambda: self.target.copy_(self.source)) for _ in range(3))
        self.least = min(self.least, taken)
        return taken

    def gigabytes(self, milliseconds):
        return 2 * self.source.nbytes / milliseconds / 1e6


def repeats(call):
    return max(1, min(200, round(SECONDS_PER_TURN * 1e3 / max(timing.milliseconds(call), 1e-3))))


def one_time(call, times):
    start = time.perf_counter()
    for _ in range(times):
        call()
    return 1e3 * (time.perf_counter() - start) / times


def compare(calls, runs, turns):
    """({name: median ms}, the median over the runs of the best other's time over the first's)."""
    times = {name: repeats(call) for name, call in calls.items()}
    first = next(iter(calls))
    once = {name: one_time(call, times[name]) for name, call in calls.items()}
    slow = {name for name in calls if once[name] > SLOW * once[first]}
    medians = []
    for _ in range(runs):
        taken = {name: [] for name in calls}
        for turn in range(turns):
            for name, call in calls.items():
                if turn == 0 or name not in slow:
                    taken[name].append(one_time(call, times[name]))
        medians.append({name: statistics.median(values) for name, values in taken.items()})
    ratios = [min(run[name] for name in run if name != first) / run[first] for run in medians]
    return {name: statistics.median(run[name] for run in medians) for name in calls}, statistics.median(ratios)


# Tables.


NAMES = ("quaver", "torch", "compile", "onnxruntime", "reference")


def print_line(label, moved, found, ratio, note):
    """Times in microseconds, quaver's also in GB/s of input and output."""
    cells = "".join(f"{1e3 * found[name]:>13.1f}" if name in found else f"{'-':>13}" for name in NAMES)
    print(f"{label:<58}{cells}{moved / found['quaver'] / 1e6:>9.1f}{ratio:>8.2f}  {note}", flush=True)


def moved_by(op, x):
    """Bytes of input and output."""
    return x.numel() * (x.element_size() + 1)


def table(op, shapes, dtypes, threads, memory, runs):
    make, granularities = OPS[op]
    ratios = []
    for shape, dtype, granularity, count in product(shapes, dtypes, granularities, threads):
        before = memory.probe()
        torch.set_num_threads(count)
        torch.compiler.reset()
        x = timing.normal(*shape, dtype=dtype)
        calls = {name: call for name, call in make(x, granularity, count).items() if call is not None}
        found, ratio = compare(calls, runs, TURNS)
        slowest = max(before, memory.probe()) / memory.least
        note = f"disturbed: a copy took {slowest:.2f} times its least" if slowest > DISTURBED else ""
        label = f"{op} {list(shape)} {str(dtype).removeprefix('torch.')} {granularity}, threads: {count}"
        print_line(label, moved_by(op, x), found, ratio, note)
        ratios.append(ratio)
    return ratios


def tiny(runs):
    """A call with nearly nothing to do: what the way to a kernel takes."""
    torch.set_num_threads(1)
    x, scale, q = torch.randn(1, 64), torch.tensor(0.02), torch.empty(1, 64, dtype=torch.int8)
    given = {
        "quaver": partial(torch.ops.quaver.quantize.out, x, scale, out=q),
        "torch": partial(torch.quantize_per_tensor, x, 0.02, 0, torch.qint8),
    }
    made = {**given, "quaver": partial(torch.ops.quaver.quantize.default, x, scale)}
    function = {**given, "quaver": partial(quaver.quantize, x, scale, out=q)}
    for what, calls in (("out=", given), ("a result of its own", made), ("quaver.quantize, out=", function)):
        found, ratio = compare(calls, runs, TURNS)
        print_line(f"quantize [1, 64], {what}", moved_by("quantize", x), found, ratio, "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes only, to see that everything runs")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)  # torch's are deprecated
    threads = THREADS[: min(len(THREADS), os.cpu_count() or 1)]
    size = (SHAPES, DTYPES, threads) if not quick else (SMALL_SHAPES, DTYPES[:1], THREADS[:1])
    runs = RUNS if not quick else 1
    timing.announce("Elementwise ops on the CPU")
    if onnxruntime is None:
        print(f"no onnxruntime: {without_onnxruntime}")
    memory = Memory(2**20 if quick else 2**24)
    memory.probe()
    print(
        f"a copy moves {memory.gigabytes(memory.least):.1f} GB/s; below: microseconds, quaver's GB/s, and the ratio of"
    )
    print("the best other's time to quaver's\n")
    print(f"{'':<58}" + "".join(f"{name:>13}" for name in NAMES) + f"{'GB/s':>9}{'ratio':>8}")
    with torch.inference_mode():
        ratios = [ratio for op in OPS for ratio in table(op, *size, memory, runs)]
        tiny(runs)
    print(f"\n{sum(ratio >= 0.97 for ratio in ratios)} of {len(ratios)} ratios are at least 0.97, ", end="")
    print(f"{sum(ratio >= 1.2 for ratio in ratios)} at least 1.2; the least {min(ratios):.2f}")
    print(f"a copy moved {memory.gigabytes(memory.least):.1f} GB/s at best")
    timing.conclude()


if __name__ == "__main__":
    main()
