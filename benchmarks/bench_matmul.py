"""int8 products of ready codes on the CPU beside every peer that has them, by the type of the result.

python -m benchmarks.bench_matmul [--quick] [--threads N] [--rows FILE.csv]

Weights are constant: whoever can reorder them has done so before. Results are written to given tensors where a peer
can.

    int32    int8_matmul; torch._int_mm; onnxruntime's MatMulInteger
    uint8    codes about 128: int8_matmul_requantize; oneDNN's qlinear; onnxruntime's QLinearMatMul, whose x is uint8
             too, which it is fastest with
    float32  int8_matmul_dequantize; oneDNN's qlinear

The epilogues alone, of ready int32 products: requantize in both modes, and rescale.

"eager" is what a user of torch writes without such ops: the product in float32, which rounds, scaled; "float32" is
torch's linear layer of the numbers that the codes stand for.
"""

import sys
from functools import partial

import numpy as np
import torch

import quaver
from benchmarks import layers, onnx_calls, peers
from benchmarks.cases import Case, run, shares_found
from benchmarks.timing import Candidate, normal
from quaver import reference


class Problem:
    """A product's operands: x [M, K] and a weight [N, K], as floats and as codes."""

    def __init__(self, m, n, k, seed=0):
        self.shape = m, n, k
        self.x = normal(m, k, seed=seed)
        self.weight = normal(n, k, seed=seed + 1)
        self.q, self.params = quaver.dynamic_quantize(self.x, quaver.PerTensor())
        self.weight_q, self.weight_params = quaver.dynamic_quantize(self.weight, quaver.PerChannel(0))
        self.prepare()

    def prepare(self):
        self.b = self.weight_q.t()
        self.b_packed = quaver.int8_prepack(self.b)
        self.scales = self.params.scale, self.weight_params.scale.t()
        self.out_scale = quaver.int8_matmul_dequantize(self.q, self.b, *self.scales).abs().max() / 127

    def out(self, dtype):
        return torch.empty(*self.shape[:2], dtype=dtype)


class LargestCodes(Problem):
    """All codes are 127: what adds up pairs of products in 16 bits saturates."""

    def __init__(self):
        super().__init__(16, 64, 256)
        self.q.fill_(127)
        self.weight_q.fill_(127)
        self.prepare()


def int32(problem):
    a, b, weight = problem.q, problem.b, problem.weight_q.float()
    onnx = onnx_calls.call("MatMulInteger", {"a": a}, {"b": b.contiguous().numpy()}, problem.out(torch.int32))
    ours = partial(quaver.int8_matmul, a, b, b_packed=problem.b_packed, out=problem.out(torch.int32))
    return {
        "reference": Candidate(partial(reference.int8_matmul, a, b), exact=True),
        "quaver": Candidate(ours, exact=True),
        "eager": Candidate(lambda: torch.nn.functional.linear(a.float(), weight).to(torch.int32)),
        "torch._int_mm": Candidate(partial(torch._int_mm, a, b, out=problem.out(torch.int32)), exact=True),
        "onnxruntime": onnx and Candidate(onnx),
    }


def uint8(problem):
    a, weight = problem.q, problem.weight_q.float()
    args = (a, problem.b, *problem.scales, problem.out_scale)
    codes = {"out_zero_point": torch.tensor(128), "dtype": torch.uint8}
    ours = partial(
        quaver.int8_matmul_requantize, *args, **codes, b_packed=problem.b_packed, out=problem.out(torch.uint8)
    )
    factor = problem.scales[0] * problem.scales[1] / problem.out_scale

    def eager():
        real = torch.nn.functional.linear(a.float(), weight) * factor
        return real.round().add(128).clamp(0, 255).to(torch.uint8)

    def real_codes(q):  # 128 in each would hide what is wrong
        return q.float() - 128

    return {
        "reference": Candidate(partial(reference.int8_matmul_requantize, *args, **codes), True, real_codes),
        "quaver": Candidate(ours, True, real_codes),
        "eager": Candidate(eager, read=real_codes),
        "oneDNN": qlinear(problem, problem.out_scale.item(), 128, torch.uint8, real_codes),
        "onnxruntime": qlinear_matmul(problem, real_codes),
    }


def float32(problem):
    args = (problem.q, problem.b, *problem.scales)
    weight = problem.weight_q.float()
    real = problem.q.float() * problem.scales[0], weight * problem.weight_params.scale
    factor = problem.scales[0] * problem.scales[1]
    ours = partial(quaver.int8_matmul_dequantize, *args, b_packed=problem.b_packed, out=problem.out(torch.float32))
    return {
        "reference": Candidate(partial(reference.int8_matmul_dequantize, *args), exact=True),
        "quaver": Candidate(ours, exact=True),
        "eager": Candidate(lambda: torch.nn.functional.linear(problem.q.float(), weight) * factor),
        "float32": Candidate(partial(torch.nn.functional.linear, *real)),
        "oneDNN": qlinear(problem, 1.0, 0, torch.float32),
    }


def qlinear(problem, out_scale, out_zero_point, dtype, read=lambda result: result):
    """oneDNN's, by torch's op for compiled models."""
    m, n, k = problem.shape

    def make():
        packed = torch.ops.onednn.qlinear_prepack(problem.weight_q, [m, k])
        scale, zeros = problem.weight_params.scale.flatten().contiguous(), torch.zeros(n, dtype=torch.int64)
        given = (problem.q, problem.params.scale.item(), 0, packed, scale, zeros, None)
        call = partial(
            torch.ops.onednn.qlinear_pointwise.default, *given, out_scale, out_zero_point, dtype, "none", [], ""
        )
        call()
        return Candidate(call, read=read)

    return peers.attempt("oneDNN", f"qlinear to {dtype}", make)


def qlinear_matmul(problem, read):
    a_scale, b_scale = problem.scales
    constants = {
        "a_scale": a_scale.reshape(()).numpy(),
        "half": np.array(128, np.uint8),
        "b": problem.b.contiguous().numpy(),
        "b_scale": b_scale.flatten().numpy(),
        "zeros": np.zeros(problem.shape[1], np.int8),
        "y_scale": problem.out_scale.numpy(),
        "y_half": np.array(128, np.uint8),
    }
    about_128 = (problem.q.to(torch.int32) + 128).to(torch.uint8)
    call = onnx_calls.call("QLinearMatMul", {"a": about_128}, constants, problem.out(torch.uint8))
    return call and Candidate(call, read=read)


def fixed(problem):
    """The multiplier is an integer: what microcontrollers and the gemmlowp family compute."""
    args = (problem.q, problem.b, *problem.scales, problem.out_scale)
    ours = partial(
        quaver.int8_matmul_requantize, *args, mode="fixed", b_packed=problem.b_packed, out=problem.out(torch.int8)
    )
    return {
        "reference": Candidate(partial(reference.int8_matmul_requantize, *args, mode="fixed"), exact=True),
        "quaver": Candidate(ours, exact=True),
    }


RESULTS = {"int32": int32, "uint8": uint8, "float32": float32, "int8, fixed": fixed}
SCALED = ("uint8", "float32")  # say how threads scale


def requantize(problem, mode):
    acc = quaver.int8_matmul(problem.q, problem.b)
    args = (acc, *problem.scales, problem.out_scale)
    factor = problem.scales[0] * problem.scales[1] / problem.out_scale
    ours = partial(quaver.requantize, *args, mode=mode, out=problem.out(torch.int8))
    return {
        "reference": Candidate(partial(reference.requantize, *args, mode=mode), exact=True),
        "quaver": Candidate(ours, exact=True),
        "eager": Candidate(lambda: (acc * factor).round().clamp(-128, 127).to(torch.int8)),
    }


def rescale(problem):
    acc = quaver.int8_matmul(problem.q, problem.b)
    args = (acc, *problem.scales)
    factor = problem.scales[0] * problem.scales[1]
    return {
        "reference": Candidate(partial(reference.rescale, *args), exact=True),
        "quaver": Candidate(partial(quaver.rescale, *args, out=problem.out(torch.float32)), exact=True),
        "eager": Candidate(lambda: acc * factor),
    }


EPILOGUES = {
    "requantize": partial(requantize, mode="float"),
    "requantize, fixed": partial(requantize, mode="fixed"),
    "rescale": rescale,
}
EPILOGUE_SHAPES = ((128, 1536, 384), (2048, 4096, 64))  # M, N, K


def cases(chosen):
    for m, n, k in EPILOGUE_SHAPES[:1] if chosen.quick else EPILOGUE_SHAPES:
        problem = Problem(m, n, k)
        for op, make in EPILOGUES.items():
            yield Case(op, f"{m} x {n}", lambda seed, make=make, problem=problem: make(problem))
    for model, layer, m, n, k in layers.on_cpu(chosen.quick):
        problem = Problem(m, n, k)
        for result in RESULTS if chosen.threads == 1 else SCALED:
            what = f"{model}: {layer}, {m} x {n} x {k}"
            yield Case(
                f"product to {result}",
                what,
                lambda seed, make=RESULTS[result], problem=problem: make(problem),
                operations=2 * m * n * k,
            )


def facts(chosen):
    found = {}
    for result in ("int32", "uint8", "float32"):
        found |= shares_found(f"product of the largest codes to {result}", RESULTS[result](LargestCodes()))
    return found


if __name__ == "__main__":
    sys.exit(run("matmul", __doc__, cases, facts))
