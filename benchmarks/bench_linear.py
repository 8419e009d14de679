"""Linear layers on the CPU, floats in and floats out: int8 with its quantization beside float ones and every peer.

python -m benchmarks.bench_linear [--quick] [--threads N] [--rows FILE.csv]

"quaver" is int8_linear with one scale for each row, as QuantLinear calls it; "quaver, asymmetric" has zero points;
"product alone" is the same product of ready codes. "torch" is torch.ao's quantize_dynamic; "torchao",
"quanto" and "bitsandbytes" are their int8 linear layers. float32 and bfloat16 are torch's own layers: what int8 has to
beat.
"""

import copy
import sys
from functools import partial

import torch

import quaver
from benchmarks import layers, onnx_calls, peers, rows
from benchmarks.cases import Case, run, shares_found
from benchmarks.timing import Candidate, normal
from quaver import reference

SCALED = "MiniLM-L6"  # the model whose layers say how threads scale


class Problem:
    """A layer, its codes and an input."""

    def __init__(self, m, n, k, seed=0):
        self.shape = m, n, k
        self.x = normal(m, k, seed=seed)
        self.layer = torch.nn.Linear(k, n)
        self.layer.weight.data.copy_(normal(n, k, seed=seed + 1) / k**0.5)
        self.layer.bias.data.copy_(normal(n, seed=seed + 2))
        self.layer.requires_grad_(False)
        self.prepare()

    def prepare(self):
        per_output = quaver.PerChannel(0)
        self.weight_q, self.params, self.weight_sum = quaver.dynamic_quantize(
            self.layer.weight, per_output, return_row_sum=True
        )
        self.packed = quaver.int8_prepack(self.weight_q.t())


def candidates(problem):
    x, layer, weight_q, params, bias = problem.x, problem.layer, problem.weight_q, problem.params, problem.layer.bias
    given = (x, weight_q, params.scale, bias)
    q, x_params = quaver.dynamic_quantize(x)
    b_scale = params.scale.t()
    product = partial(
        quaver.int8_matmul_dequantize, q, weight_q.t(), x_params.scale, b_scale, bias=bias, b_packed=problem.packed
    )
    ours = partial(quaver.int8_linear, *given, weight_packed=problem.packed)
    bfloat16 = copy.deepcopy(layer).to(torch.bfloat16)
    codes, scale = weight_q.float(), b_scale

    def eager():
        x_scale = x.abs().amax(1, keepdim=True) / 127
        rounded = torch.clamp(torch.round(x / x_scale), -127, 127)
        return torch.nn.functional.linear(rounded, codes) * x_scale * scale + bias

    return {
        "reference": Candidate(partial(reference.int8_linear, *given), exact=True),
        "quaver": Candidate(ours, exact=True),
        "quaver, asymmetric": Candidate(partial(ours, weight_sum=problem.weight_sum, symmetric=False)),
        rows.ALONE: Candidate(product),
        "eager": Candidate(eager),
        "float32": Candidate(partial(layer, x)),
        "bfloat16": Candidate(partial(bfloat16, x.to(torch.bfloat16))),
        "torch": peers.attempt("torch", "quantize_dynamic", partial(quantize_dynamic, problem)),
        "onnxruntime": dynamic_matmul(problem),
        "torchao": peers.find("torchao")
        and peers.attempt("torchao", "Int8DynamicActivationInt8Weight", partial(torchao, problem)),
        "quanto": peers.find("optimum.quanto") and peers.attempt("optimum.quanto", "int8", partial(quanto, problem)),
        "bitsandbytes": peers.find("bitsandbytes")
        and peers.attempt("bitsandbytes", "Linear8bitLt", partial(bitsandbytes, problem)),
    }


# The peers. Each is called once, so that what it cannot do shows here.


def called(layer, x):
    call = partial(layer, x)
    call()
    return Candidate(call)


def quantize_dynamic(problem):
    holder = torch.nn.Sequential(copy.deepcopy(problem.layer))
    return called(torch.ao.quantization.quantize_dynamic(holder, {torch.nn.Linear}, dtype=torch.qint8), problem.x)


def dynamic_matmul(problem):
    m, n, _ = problem.shape
    constants = {
        "b": problem.weight_q.t().contiguous().numpy(),
        "b_scale": problem.params.scale.flatten().numpy(),
        "b_zero": torch.zeros(n, dtype=torch.int8).numpy(),
        "bias": problem.layer.bias.numpy(),
    }
    call = onnx_calls.call(
        "DynamicQuantizeMatMul", {"x": problem.x}, constants, torch.empty(m, n), domain="com.microsoft"
    )
    return call and Candidate(call)


def torchao(problem):
    quantization = peers.find("torchao.quantization")
    holder = torch.nn.Sequential(copy.deepcopy(problem.layer))
    with torch.inference_mode(False):
        quantization.quantize_(holder, quantization.Int8DynamicActivationInt8WeightConfig())
    return called(holder, problem.x)


def quanto(problem):
    library = peers.find("optimum.quanto")
    holder = torch.nn.Sequential(copy.deepcopy(problem.layer))
    with torch.inference_mode(False), torch.no_grad():
        library.quantize(holder, weights=library.qint8)
        library.freeze(holder)
    return called(holder, problem.x)


def bitsandbytes(problem):
    _, n, k = problem.shape
    library = peers.find("bitsandbytes").nn
    layer = library.Linear8bitLt(k, n, has_fp16_weights=False)
    with torch.inference_mode(False):
        weight = problem.layer.weight.clone()
        layer.weight = library.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        layer.bias = problem.layer.bias
        layer = layer.to("cpu")  # where it makes the codes
    return called(layer, problem.x)


class LargestCodes(Problem):
    """Codes of one number are their type's largest: what adds up pairs of products in 16 bits saturates."""

    def __init__(self):
        super().__init__(16, 64, 256)
        self.x.fill_(1.0)
        self.layer.weight.fill_(1.0)
        self.layer.bias.zero_()
        self.prepare()


def facts(chosen):
    return shares_found("linear layer of the largest codes", candidates(LargestCodes()))


def cases(chosen):
    for model, layer, m, n, k in layers.on_cpu(chosen.quick):
        if chosen.threads > 1 and model != SCALED:
            continue
        problem = Problem(m, n, k)
        what = f"{model}: {layer}, {m} x {n} x {k}"
        yield Case("linear layer", what, lambda seed, problem=problem: candidates(problem), operations=2 * m * n * k)


if __name__ == "__main__":
    sys.exit(run("linear", __doc__, cases, facts))
