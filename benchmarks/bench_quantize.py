"""quantize, dequantize, dynamic_quantize, fake_quantize and ops that make the rows they quantize, against references.

python -m benchmarks.bench_quantize [--quick]

Symmetric int8 codes, in every mode of quantize; per tensor, per row (channel 0) and per column (channel 1); real
numbers in float32 and bfloat16.
"""

from functools import partial
from itertools import product

import torch

import quaver
from benchmarks import timing
from quaver import reference

SIZES = ((1024, 1024), (4096, 4096))
SMALL_SIZES = ((256, 256),)
GRANULARITIES = {
    "per tensor": quaver.PerTensor(),
    "per channel 0": quaver.PerChannel(0),
    "per channel 1": quaver.PerChannel(1),
}
DTYPES = (torch.float32, torch.bfloat16)


def quantize(x, granularity, op="quantize", **options):
    params = quaver.choose_qparams(x, granularity)
    codes = {"q_min": params.q_min, "q_max": params.q_max}
    return {
        "quaver": partial(getattr(quaver, op), x, params, **options),
        "reference": partial(getattr(reference, op), x, params.scale, **codes, **options),
    }


def quantize_into_a_place(x, granularity):
    calls = quantize(x, granularity)
    return {**calls, "quaver": partial(calls["quaver"], out=calls["quaver"]())}


def dequantize(x, granularity):
    q, params = quaver.dynamic_quantize(x, granularity)
    return {
        "quaver": partial(quaver.dequantize, q, params, dtype=x.dtype),
        "reference": partial(reference.dequantize, q, params.scale, dtype=x.dtype),
    }


def dynamic_quantize(x, granularity):
    scale_shape = granularity.scale_shape(x.shape)

    def by_quaver():
        q, params = quaver.dynamic_quantize(x, granularity)
        return q, params.scale, params.zero_point

    def by_reference():
        return reference.dynamic_quantize(x, scale_shape)[:3]

    return {"quaver": by_quaver, "reference": by_reference}


def rms_norm_quantize(x, granularity):
    arguments = (x, torch.ones(x.shape[1], dtype=x.dtype))
    return {
        "quaver": lambda: quaver.rms_norm_quantize(*arguments, residual=x)[0],
        "reference": lambda: reference.rms_norm_quantize(*arguments, residual=x)[0],
    }


def silu_mul_quantize(x, granularity):
    gate, up = x.chunk(2, 1)
    return {
        "quaver": lambda: quaver.silu_mul_quantize(gate, up)[0],
        "reference": lambda: reference.silu_mul_quantize(gate, up)[0],
    }


OF_ROWS = {"rms_norm_quantize": rms_norm_quantize, "silu_mul_quantize": silu_mul_quantize}  # one scale for each

OPS = {
    "quantize": quantize,
    **{f"quantize {mode}": partial(quantize, mode=mode) for mode in ("affine", "reciprocal", "stochastic")},
    "quantize out=": quantize_into_a_place,
    "dequantize": dequantize,
    "dynamic_quantize": dynamic_quantize,
    **OF_ROWS,
    "fake_quantize": partial(quantize, op="fake_quantize"),
    "fake_quantize_mask": partial(quantize, op="fake_quantize_mask"),
}


def main():
    sizes = SMALL_SIZES if timing.wants_small_sizes(__doc__.splitlines()[0]) else SIZES
    timing.announce("Quantization against its pure-torch reference")
    timing.print_header("op, granularity, dtype, shape", ("quaver", "reference"))
    for shape, dtype, (op, calls) in product(sizes, DTYPES, OPS.items()):
        x = timing.normal(*shape, dtype=dtype)
        for name, granularity in GRANULARITIES.items():
            if op in OF_ROWS and name != "per channel 0":
                continue
            label = f"{op}, {name}, {str(dtype).removeprefix('torch.')}, {list(shape)}"
            timing.print_row(label, timing.compare(calls(x, granularity)))
    timing.conclude()


if __name__ == "__main__":
    main()
