"""The int8 matmuls, requantize and int8_linear against their pure-torch references and float32 torch.

python -m benchmarks.bench_matmul [--quick]

The products of all-MiniLM-L6-v2: its attention's projections and both layers of its feed-forward part, for one short
sentence and for a batch. The reference multiplies in float64, which is what makes it exact; float32 is torch's own
product of the same numbers, which rounds, for comparison with what int8 replaces.
"""

from functools import partial
from itertools import product

import torch

import quaver
from benchmarks import timing
from quaver import reference

ROWS = (32, 640)
SMALL_ROWS = (32,)
LAYERS = ((384, 384), (1536, 384), (384, 1536))  # N, K
NAMES = ("quaver", "reference", "float32")


class Problem:
    """The operands of one product, as floats and as codes: a float x [M, K], a weight [N, K] and a bias [N]."""

    def __init__(self, m, n, k):
        self.x = timing.normal(m, k)
        self.weight = timing.normal(n, k, seed=1)
        self.bias = timing.normal(n, seed=2)
        self.q, self.params = quaver.dynamic_quantize(self.x)
        self.weight_q, self.weight_params, self.weight_sum = quaver.dynamic_quantize(self.weight, return_row_sum=True)
        self.weight_scale = self.weight_params.scale


def int8_matmul(problem):
    a, b = problem.q, problem.weight_q.t()
    exact = {
        "quaver": partial(quaver.int8_matmul, a, b),
        "reference": partial(reference.int8_matmul, a, b),
    }
    return exact, {"float32": partial(torch.matmul, a.float(), b.float())}


def int8_matmul_requantize(problem):
    args = (problem.q, problem.weight_q.t(), problem.params.scale, problem.weight_scale.t())
    out_scale = reference.int8_matmul_dequantize(*args, bias=problem.bias).abs().amax() / 127
    exact = {
        "quaver": partial(quaver.int8_matmul_requantize, *args, out_scale, bias=problem.bias),
        "reference": partial(reference.int8_matmul_requantize, *args, out_scale, bias=problem.bias),
    }
    # Only the product: what torch does instead, with floats in and out. Divided by out_scale to be near to the codes.
    x, weight, bias = problem.x, problem.weight / out_scale, problem.bias / out_scale
    return exact, {"float32": partial(torch.nn.functional.linear, x, weight, bias)}


def fixed(problem):
    """What mode "fixed" takes: the scale of the whole of x, and a bias in units of its product with the weight's."""
    q, params = quaver.dynamic_quantize(problem.x, quaver.PerTensor())
    args = (params.scale, problem.weight_scale.t())
    bias = (problem.bias / (args[0] * args[1])[0]).round().to(torch.int32)
    out_scale = reference.int8_matmul_dequantize(q, problem.weight_q.t(), *args).abs().amax() / 127
    return q, (*args, out_scale), {"bias": bias, "mode": "fixed"}


def int8_matmul_requantize_fixed(problem):
    q, args, options = fixed(problem)
    operands = (q, problem.weight_q.t(), *args)
    exact = {
        "quaver": partial(quaver.int8_matmul_requantize, *operands, **options),
        "reference": partial(reference.int8_matmul_requantize, *operands, **options),
    }
    x, weight, bias = problem.x, problem.weight / args[2], problem.bias / args[2]
    return exact, {"float32": partial(torch.nn.functional.linear, x, weight, bias)}


def requantize(problem, mode):
    q, args, options = fixed(problem)
    acc = quaver.int8_matmul(q, problem.weight_q.t())
    options = options if mode == "fixed" else {"bias": problem.bias}
    exact = {
        "quaver": partial(quaver.requantize, acc, *args, **options),
        "reference": partial(reference.requantize, acc, *args, **options),
    }
    factor, shift = args[0] * args[1] / args[2], problem.bias / args[2]  # the least that floats would do
    return exact, {"float32": lambda: (acc * factor + shift).round().clamp(-128, 127).to(torch.int8)}


def rescale(problem):
    acc = quaver.int8_matmul(problem.q, problem.weight_q.t())
    args = (acc, problem.params.scale, problem.weight_scale.t())
    exact = {
        "quaver": partial(quaver.rescale, *args, bias=problem.bias),
        "reference": partial(reference.rescale, *args, bias=problem.bias),
    }
    factor, shift = args[1] * args[2], problem.bias
    return exact, {"float32": lambda: acc * factor + shift}


def int8_linear(problem, symmetric):
    args = (problem.x, problem.weight_q, problem.weight_scale, problem.bias)
    options = {"weight_sum": problem.weight_sum, "symmetric": symmetric}
    exact = {
        "quaver": partial(quaver.int8_linear, *args, **options),
        "reference": partial(reference.int8_linear, *args, **options),
    }
    return exact, {"float32": partial(torch.nn.functional.linear, problem.x, problem.weight, problem.bias)}


OPS = {
    "int8_matmul": int8_matmul,
    "int8_matmul_requantize": int8_matmul_requantize,
    "int8_matmul_requantize fixed": int8_matmul_requantize_fixed,
    "rescale": rescale,
    "requantize float": partial(requantize, mode="float"),
    "requantize fixed": partial(requantize, mode="fixed"),
    "int8_linear symmetric": partial(int8_linear, symmetric=True),
    "int8_linear asymmetric": partial(int8_linear, symmetric=False),
}


def main():
    rows = SMALL_ROWS if timing.wants_small_sizes(__doc__.splitlines()[0]) else ROWS
    timing.announce("int8 products against their pure-torch reference and float32")
    timing.print_header("op, M x N x K", NAMES)
    for m, (n, k) in product(rows, LAYERS):
        problem = Problem(m, n, k)
        for name, op in OPS.items():
            timing.print_row(f"{name}, {m} x {n} x {k}", timing.compare(*op(problem)))
    timing.conclude()


if __name__ == "__main__":
    main()
