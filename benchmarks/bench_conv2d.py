"""Convolutions of codes on the CPU beside float ones and the peers that have them.

python -m benchmarks.bench_conv2d [--quick] [--threads N] [--rows FILE.csv]

Layers of EfficientNet-B0 and ResNet-50 on pictures of 224 x 224, in channels_last, by the type of the result. Weights
are constant: whoever can reorder them has done so before.

    float32  int8_conv2d; onnxruntime's ConvInteger, which gives int32 that is not scaled, and takes and gives NCHW
    uint8    int8_conv2d; "torch" is torch.ao's quantized convolution

"float32" and "bfloat16" are torch's convolutions of the numbers that the codes stand for.
"""

import copy
import sys
import warnings
from dataclasses import dataclass, replace
from functools import partial

import torch

import quaver
from benchmarks import onnx_calls, peers
from benchmarks.cases import Case, run, shares_found
from benchmarks.timing import Candidate, normal
from quaver import reference


@dataclass(frozen=True)
class Layer:
    """channels in and out, pixels along a side, the kernel's side."""

    inputs: int
    outputs: int
    side: int
    kernel: int
    stride: int = 1
    groups: int = 1

    def __str__(self):
        pixels, kernel = f"{self.side} x {self.side}", f"{self.kernel} x {self.kernel}"
        return f"{self.inputs} to {self.outputs} channels, {pixels} pixels, kernel {kernel}"

    def operations(self, count):
        out = self.side // self.stride
        return 2 * count * out * out * self.outputs * self.inputs // self.groups * self.kernel**2


LAYERS = {
    "EfficientNet-B0: expand": Layer(24, 144, 56, 1),
    "EfficientNet-B0: depthwise": Layer(240, 240, 28, 5, 1, 240),
    "EfficientNet-B0: project": Layer(672, 112, 14, 1),
    "ResNet-50: first": Layer(3, 64, 224, 7, 2),
    "ResNet-50: 3 x 3": Layer(128, 128, 28, 3),
    "ResNet-50: 3 x 3, stride 2": Layer(256, 256, 28, 3, 2),
}
COUNTS = (1, 8)  # pictures


class Problem:
    """A convolution's operands as floats and as codes."""

    def __init__(self, layer, count):
        self.layer = layer
        self.x = (
            normal(count, layer.inputs, layer.side, layer.side).relu().contiguous(memory_format=torch.channels_last)
        )
        self.conv = torch.nn.Conv2d(
            *(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.kernel // 2),
            groups=layer.groups,
            bias=False,
        ).to(memory_format=torch.channels_last)
        self.conv.requires_grad_(False)
        self.conv.weight.copy_(normal(*self.conv.weight.shape, seed=1))
        self.prepare()

    def prepare(self):
        layer = self.layer
        self.params = quaver.choose_qparams(self.x, quaver.PerTensor(), symmetric=False, dtype=torch.uint8)
        self.q = quaver.quantize(self.x, self.params, dtype=torch.uint8)
        self.weight_q, self.weight_params = quaver.dynamic_quantize(self.conv.weight, quaver.PerChannel(0))
        self.args = (self.q, self.weight_q, self.params.scale, self.weight_params.scale)
        self.where = {"stride": layer.stride, "padding": layer.kernel // 2, "groups": layer.groups}
        self.options = {"x_zero_point": self.params.zero_point, **self.where}
        self.packed = None
        if layer.groups == 1:
            self.packed = quaver.int8_prepack(self.weight_q.permute(2, 3, 1, 0).flatten(0, 2))
        self.out_params = quaver.choose_qparams(
            self.conv(self.x), quaver.PerTensor(), symmetric=False, dtype=torch.uint8
        )

    def both(self, **options):
        """The reference and quaver."""
        options |= self.options
        return {
            "reference": Candidate(partial(reference.int8_conv2d, *self.args, **options), exact=True),
            "quaver": Candidate(
                partial(quaver.int8_conv2d, *self.args, **options, weight_packed=self.packed), exact=True
            ),
        }


class LargestCodes(Problem):
    """All codes are their type's largest: what adds up pairs of products in 16 bits saturates."""

    def __init__(self):
        super().__init__(Layer(64, 32, 8, 1), 1)
        self.x.fill_(1.0)
        self.conv.weight.fill_(1.0)
        self.prepare()


def to_float32(problem):
    bfloat16 = copy.deepcopy(problem.conv).to(torch.bfloat16)
    return problem.both() | {
        "float32": Candidate(partial(problem.conv, problem.x)),
        "bfloat16": Candidate(partial(bfloat16, problem.x.to(torch.bfloat16))),
        "onnxruntime": by_onnxruntime(problem),
    }


def to_uint8(problem):
    scale, zero_point = problem.out_params.scale, problem.out_params.zero_point
    codes = problem.both(out_scale=scale, out_zero_point=zero_point, dtype=torch.uint8)

    def real(q):
        return quaver.dequantize(q, problem.out_params)

    codes = {name: replace(candidate, read=real) for name, candidate in codes.items()}
    return codes | {"torch": peers.attempt("torch", "quantized.conv2d", partial(by_torch, problem))}


def by_torch(problem):
    scale, zeros = problem.weight_params.scale.flatten(), torch.zeros(problem.layer.outputs, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = torch.quantize_per_channel(problem.conv.weight, scale, zeros, 0, torch.qint8)
        x_scale, zero = problem.params.scale.item(), problem.params.zero_point.item()
        x = torch.quantize_per_tensor(problem.x, x_scale, zero, torch.quint8)
    side, layer = [problem.layer.kernel // 2] * 2, problem.layer
    packed = torch.ops.quantized.conv2d_prepack(weight, None, [layer.stride] * 2, side, [1, 1], layer.groups)
    out_scale, out_zero = problem.out_params.scale.item(), problem.out_params.zero_point.item()
    call = partial(torch.ops.quantized.conv2d, x, packed, out_scale, out_zero)
    call()
    return Candidate(call, read=torch.Tensor.dequantize)


def by_onnxruntime(problem):
    """Its convolution of codes to int32, scaled here for the comparison alone; in its own layout."""
    layer, q = problem.layer, problem.q.contiguous()
    out = torch.empty(problem.conv(problem.x).shape, dtype=torch.int32)
    constants = {
        "weight": problem.weight_q.contiguous().numpy(),
        "zero": problem.params.zero_point.reshape(()).to(torch.uint8).numpy(),
    }
    pads, strides = [layer.kernel // 2] * 4, [layer.stride] * 2
    call = onnx_calls.call("ConvInteger", {"q": q}, constants, out, pads=pads, strides=strides, group=layer.groups)
    scale = (problem.params.scale * problem.weight_params.scale).reshape(1, -1, 1, 1)
    return call and Candidate(call, read=lambda acc: acc * scale)


def cases(chosen):
    layers = dict(list(LAYERS.items())[:2]) if chosen.quick else LAYERS
    for (name, layer), count in ((each, n) for each in layers.items() for n in COUNTS[: 1 if chosen.quick else None]):
        problem = Problem(layer, count)
        what = f"{name}, {layer}, {count} picture{'s' * (count > 1)}"
        for type_, candidates in (("float32", to_float32), ("uint8", to_uint8)):
            make = lambda seed, problem=problem, candidates=candidates: candidates(problem)  # noqa: E731
            yield Case(f"convolution to {type_}", what, make, operations=layer.operations(count))


def facts(chosen):
    return shares_found("convolution of the largest codes to uint8", to_uint8(LargestCodes()))


if __name__ == "__main__":
    sys.exit(run("conv2d", __doc__, cases, facts))
