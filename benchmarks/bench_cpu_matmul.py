"""int8 products on the CPU beside every peer that has them, by the type of the result.

python -m benchmarks.bench_cpu_matmul [--quick]

Each block of lines is one product and one number of threads; its candidates take turns. Weights are constant: whoever
can reorder them has done so before. Results are written to given tensors where a peer can. A call is timed right after
another of its own, so that its data are in the caches that they fit into: a weight of 16 MiB in the last. A neighbour
on the host can slow the tiles of AMX for a while: a fixed product is timed before and after each block, and a block is
marked beside which it took a third longer than at its best.

    int32    quaver's int8_matmul; torch._int_mm
    uint8    codes about 128: quaver's int8_matmul_requantize; oneDNN's qlinear; onnxruntime's QLinearMatMul, whose x is
             uint8 too, which it is fastest with
    dynamic  float32 to float32, quantized on the way: quaver's int8_linear; onnxruntime's DynamicQuantizeMatMul;
             torch's quantized linear_dynamic
"""

from functools import partial

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

import quaver
from benchmarks import timing

SHAPES = (  # M, K, N
    (1, 4096, 4096),
    (16, 4096, 4096),
    (128, 768, 3072),
    (512, 1024, 1024),
    (2048, 2048, 2048),
    (32, 384, 384),
    (128, 384, 1536),
)
SMALL_SHAPES = ((32, 384, 384),)
DISTURBED = 4 / 3


def onnx_session(nodes, inputs, constants, output, threads):
    """inputs and output: (name, ONNX's type, shape)."""
    values = [helper.make_tensor_value_info(*each) for each in (*inputs, output)]
    given = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", values[:-1], values[-1:], given)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnx_call(session, inputs, out):
    """A call that reads and writes tensors where they are."""
    binding = session.io_binding()

    def place(tensor):
        return ("cpu", 0, tensor.numpy().dtype, list(tensor.shape), tensor.data_ptr())

    for name, tensor in inputs.items():
        binding.bind_input(name, *place(tensor))
    binding.bind_output("y", *place(out))

    def call(inputs=inputs):  # which keeps them where they are
        session.run_with_iobinding(binding)
        return out

    return call


class Problem:
    """A product's operands: x [M, K] and a weight [N, K], as floats and as codes."""

    def __init__(self, m, k, n):
        self.shape = m, n, k
        self.x = timing.normal(m, k)
        self.weight = timing.normal(n, k, seed=1)
        self.q, self.params = quaver.dynamic_quantize(self.x, quaver.PerTensor())
        self.weight_q, self.weight_params = quaver.dynamic_quantize(self.weight, quaver.PerChannel(0))
        self.b = self.weight_q.t()
        self.b_packed = quaver.int8_prepack(self.b)
        self.scales = self.params.scale, self.weight_params.scale.t()
        y = quaver.int8_matmul_dequantize(self.q, self.b, *self.scales)
        self.out_scale = y.abs().max() / 127

    def out(self, dtype):
        m, n, _ = self.shape
        return torch.empty(m, n, dtype=dtype)


def int32(problem, threads):
    outs = [problem.out(torch.int32) for _ in range(2)]
    exact = {
        "quaver": partial(quaver.int8_matmul, problem.q, problem.b, b_packed=problem.b_packed, out=outs[0]),
        "_int_mm": partial(torch._int_mm, problem.q, problem.b, out=outs[1]),
    }
    return exact, {}


def uint8(problem, threads):
    m, n, k = problem.shape
    a_scale, b_scale = problem.scales
    quaver_call = partial(
        quaver.int8_matmul_requantize,
        problem.q,
        problem.b,
        a_scale,
        b_scale,
        problem.out_scale,
        out_zero_point=torch.tensor(128),
        dtype=torch.uint8,
        b_packed=problem.b_packed,
        out=problem.out(torch.uint8),
    )
    qlinear = partial(
        torch.ops.onednn.qlinear_pointwise.default,
        problem.q,
        a_scale.item(),
        0,
        torch.ops.onednn.qlinear_prepack(problem.weight_q, [m, k]),
        b_scale.flatten().contiguous(),
        torch.zeros(n, dtype=torch.int64),
        None,
        problem.out_scale.item(),
        128,
        torch.uint8,
        "none",
        [],
        "",
    )
    node = helper.make_node(
        "QLinearMatMul", ["a", "a_scale", "half", "b", "b_scale", "zeros", "y_scale", "half"], ["y"]
    )
    constants = {
        "a_scale": a_scale.reshape(()).numpy(),
        "b": problem.b.contiguous().numpy(),
        "b_scale": b_scale.flatten().numpy(),
        "half": np.array(128, np.uint8),
        "zeros": np.zeros(n, np.int8),
        "y_scale": problem.out_scale.numpy(),
    }
    types = [("a", TensorProto.UINT8, [m, k])], constants, ("y", TensorProto.UINT8, [m, n])
    session = onnx_session([node], *types, threads)
    about_128 = (problem.q.to(torch.int32) + 128).to(torch.uint8)
    return {"quaver": quaver_call}, {
        "qlinear": qlinear,
        "onnxruntime": onnx_call(session, {"a": about_128}, problem.out(torch.uint8)),
    }


def dynamic(problem, threads):
    m, n, k = problem.shape
    quaver_call = partial(
        quaver.int8_linear,
        problem.x,
        problem.weight_q,
        problem.weight_params,
        weight_packed=problem.b_packed,
        out=problem.out(torch.float32),
    )
    constants = {"b": problem.b.contiguous().numpy(), "b_scale": problem.scales[1].flatten().numpy()}
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "b", "b_scale"], ["y"], domain="com.microsoft")
    types = [("x", TensorProto.FLOAT, [m, k])], constants, ("y", TensorProto.FLOAT, [m, n])
    session = onnx_session([node], *types, threads)
    zeros = torch.zeros(n, dtype=torch.int64)
    weight = torch.quantize_per_channel(problem.weight, problem.weight_params.scale.flatten(), zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    return {"quaver": quaver_call}, {
        "onnxruntime": onnx_call(session, {"x": problem.x}, problem.out(torch.float32)),
        "linear_dynamic": partial(torch.ops.quantized.linear_dynamic, problem.x, packed),
    }


RESULTS = {"int32": int32, "uint8": uint8, "dynamic": dynamic}


def warm_milliseconds(call):
    call()
    return timing.milliseconds(call)


class Probe:
    """Whether the machine is as fast as at its best: by a fixed product's time."""

    def __init__(self):
        self.problem = Problem(256, 1024, 1024)
        self.best = float("inf")
        self.seconds()

    def seconds(self):
        call, _ = int32(self.problem, 1)
        took = sorted(timing.milliseconds(call["quaver"]) for _ in range(9))[4]
        self.best = min(self.best, took)
        return took


def main():
    shapes = SMALL_SHAPES if timing.wants_small_sizes(__doc__.splitlines()[0]) else SHAPES
    timing.announce("int8 products on the CPU beside those of torch, oneDNN and onnxruntime")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        probe = Probe()
        for shape in shapes:
            problem = Problem(*shape)
            for name, candidates in RESULTS.items():
                before = probe.seconds()
                timings = timing.compare(*candidates(problem, threads), clock=warm_milliseconds)
                worst = max(before, probe.seconds()) / probe.best
                label = f"{name}, {' x '.join(map(str, shape))}, {threads} thread{'s' * (threads > 1)}"
                label += f", DISTURBED {worst:.1f}x" if worst > DISTURBED else ""
                timing.print_header("result, M x K x N", timings)
                timing.print_row(label, timings)
    timing.conclude()


if __name__ == "__main__":
    main()
