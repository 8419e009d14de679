"""The elementwise and reducing ops on the CPU beside everything that does the same work.

python -m benchmarks.bench_elementwise [--quick] [--threads N] [--rows FILE.csv]

Symmetric int8 codes. A tensor of 4096 x 4096 comes from memory ("cold"), one of 128 x 768 stays in a core's caches
("warm"). Codes and floats of x's size are written to given places by quaver, onnxruntime, torch.compile and the eager
expressions; the others make theirs, as they must: from memory, a part of their time.
"eager" is the expression that a user of torch writes, "compile" torch.compile of it, "decomposed" torch's
quantized_decomposed ops.
"""

import sys
from functools import partial
from itertools import product

import torch

import quaver
from benchmarks import onnx_calls, peers
from benchmarks.cases import COLD, WARM, Case, run
from benchmarks.timing import Candidate, normal
from quaver import PerChannel, PerTensor, PerToken, reference

LARGE, SMALL = (4096, 4096), (128, 768)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GRANULARITIES = {"tensor": PerTensor(), "channel 0": PerChannel(0), "channel 1": PerChannel(1)}
DECOMPOSED = "torch.ao.quantization.fx._decomposed"  # importing it registers the ops
AO = "torchao.quantization.quant_primitives"


# What a user of torch writes.


def quantize_expression(x, scale, out):
    return out.copy_(torch.clamp(torch.round(x.float() / scale), -128, 127))


def dequantize_expression(q, scale, out):
    return out.copy_(q.float() * scale)


def choose_expression(x, dims):
    return x.float().abs().amax(dims, keepdim=True) / 127


def dynamic_expression(x, q, scale_out):
    real = x.float()
    scale = real.abs().amax(1, keepdim=True) / 127
    scale_out.copy_(scale)
    return q.copy_(torch.clamp(torch.round(real / scale), -127, 127))


def torch_rms_norm(x, weight, q, scale):
    return dynamic_expression(torch.nn.functional.rms_norm(x, x.shape[1:], weight, 1e-6), q, scale)


def torch_silu_mul(gate, up, q, scale):
    return dynamic_expression(torch.nn.functional.silu(gate) * up, q, scale)


def fake_expression(x, scale, out):
    return out.copy_(torch.clamp(torch.round(x.float() / scale), -128, 127) * scale)


# The peers, each a Candidate or None.


def compiled(expression, *arguments):
    """Of float32 alone: each takes seconds to compile."""
    if arguments[0].dtype not in (torch.float32, torch.int8):
        return None
    call = partial(torch.compile(expression, dynamic=False), *arguments)
    return Candidate(call) if peers.attempt("torch.compile", expression.__name__, call) is not None else None


def by_torchao(name, *arguments, **options):
    ao = peers.find(AO)
    if ao is None:
        return None
    call = partial(getattr(ao, name), *arguments, **options)
    return Candidate(call) if peers.attempt("torchao", name, call) is not None else None


def decomposed(name, *arguments):
    if peers.find(DECOMPOSED) is None:
        return None
    call = partial(getattr(torch.ops.quantized_decomposed, name), *arguments)
    return Candidate(call) if peers.attempt("quantized_decomposed", name, call) is not None else None


def onnx(*arguments, **attributes):
    call = onnx_calls.call(*arguments, **attributes)
    return call and Candidate(call)


def parameters(scale, dtype):
    """onnxruntime's: the scale in the real numbers' dtype, and zeros."""
    if dtype not in onnx_calls.NUMPY:
        return None
    real = (scale.reshape(()) if scale.numel() == 1 else scale.flatten()).to(dtype).numpy()
    return {"scale": real, "zero": (real * 0).astype("int8")}


def axis_of(granularity):
    return 0 if granularity == "channel 0" else 1


def block_of(granularity, shape):
    """torchao's name for a granularity."""
    return {"tensor": shape, "channel 0": (1, shape[1]), "channel 1": (shape[0], 1)}[granularity]


def zeros_like(scale):
    return torch.zeros(scale.numel(), dtype=torch.int64)


# The ops: {name: Candidate or None}, with operands of their own.


def quantize(shape, dtype, granularity, seed):
    x = normal(*shape, dtype=dtype, seed=seed)
    scale = quaver.choose_qparams(x, GRANULARITIES[granularity]).scale
    places = [torch.empty(shape, dtype=torch.int8) for _ in range(4)]
    axis, flat, zeros = axis_of(granularity), scale.flatten(), zeros_like(scale)
    found = {
        "reference": Candidate(partial(reference.quantize, x, scale), exact=True),
        "quaver": Candidate(partial(quaver.quantize, x, scale, out=places[0]), exact=True),
        "eager": Candidate(partial(quantize_expression, x, scale, places[1])),
        "compile": compiled(quantize_expression, x, scale, places[2]),
        "torchao": by_torchao(
            "quantize_affine", x, block_of(granularity, shape), flat, zeros.int(), torch.int8, -128, 127
        ),
    }
    if dtype == torch.float32:
        if granularity == "tensor":
            native = partial(torch.quantize_per_tensor, x, scale.item(), 0, torch.qint8)
            found["decomposed"] = decomposed("quantize_per_tensor", x, scale.item(), 0, -128, 127, torch.int8)
        else:
            native = partial(torch.quantize_per_channel, x, flat, zeros, axis, torch.qint8)
            found["decomposed"] = decomposed("quantize_per_channel", x, flat, zeros, axis, -128, 127, torch.int8)
        found["torch"] = Candidate(native, read=torch.Tensor.int_repr)
    given = parameters(scale, dtype)
    if given:
        found["onnxruntime"] = onnx("QuantizeLinear", {"x": x}, given, places[3], axis=axis)
    return found


def dequantize(shape, dtype, granularity, seed):
    x = normal(*shape, dtype=dtype, seed=seed)
    params = quaver.choose_qparams(x, GRANULARITIES[granularity])
    q, scale = quaver.quantize(x, params), params.scale
    places = [torch.empty(shape, dtype=dtype) for _ in range(4)]
    axis, flat, zeros = axis_of(granularity), scale.flatten(), zeros_like(scale)
    found = {
        "reference": Candidate(partial(reference.dequantize, q, scale, dtype=dtype), exact=True),
        "quaver": Candidate(partial(quaver.dequantize, q, scale, dtype=dtype, out=places[0]), exact=True),
        "eager": Candidate(partial(dequantize_expression, q, scale, places[1])),
        "compile": compiled(dequantize_expression, q, scale, places[2]) if dtype == torch.float32 else None,
        "torchao": by_torchao(
            *("dequantize_affine", q, block_of(granularity, shape), flat, zeros.int(), torch.int8, -128, 127),
            output_dtype=dtype,
        ),
    }
    if dtype == torch.float32:
        if granularity == "tensor":
            codes = torch.quantize_per_tensor(x, scale.item(), 0, torch.qint8)
            found["decomposed"] = decomposed("dequantize_per_tensor", q, scale.item(), 0, -128, 127, torch.int8)
        else:
            codes = torch.quantize_per_channel(x, flat, zeros, axis, torch.qint8)
            found["decomposed"] = decomposed("dequantize_per_channel", q, flat, zeros, axis, -128, 127, torch.int8)
        found["torch"] = Candidate(codes.dequantize)
    given = parameters(scale, dtype)
    if given:
        found["onnxruntime"] = onnx("DequantizeLinear", {"q": q}, given, places[3], axis=axis)
    return found


def choose_qparams(shape, dtype, granularity, seed):
    x = normal(*shape, dtype=dtype, seed=seed)
    scale_shape = GRANULARITIES[granularity].scale_shape(x.shape)
    dims = tuple(dim for dim, size in enumerate(scale_shape) if size == 1)
    ao = peers.find(AO)
    return {
        "reference": Candidate(lambda: reference.choose_qparams(x, scale_shape)[0], exact=True),
        "quaver": Candidate(partial(torch.ops.quaver.choose_qparams, x, scale_shape), True, lambda found: found[0]),
        "eager": Candidate(partial(choose_expression, x, dims)),
        "compile": compiled(choose_expression, x, dims),
        "torchao": ao
        and by_torchao(
            *("choose_qparams_affine", x, ao.MappingType.SYMMETRIC, block_of(granularity, shape), torch.int8),
            keepdim=True,
        ),
    }


def row_places(results):
    """Where ops that quantize rows may write, from what they made."""
    names = ("q", "scale", "zero_point", "row_sum", "residual_out")
    return dict(zip(names, results, strict=False))


def dynamic_quantize(shape, dtype, _, seed):
    x = normal(*shape, dtype=dtype, seed=seed)
    scale_shape = PerToken().scale_shape(x.shape)
    places = row_places(torch.ops.quaver.dynamic_quantize(x, scale_shape))
    own = [(torch.empty_like(places["q"]), torch.empty_like(places["scale"])) for _ in range(2)]
    bitsandbytes = peers.find("bitsandbytes")
    found = {
        "reference": Candidate(lambda: reference.dynamic_quantize(x, scale_shape)[:3], exact=True),
        "quaver": Candidate(
            partial(torch.ops.quaver.dynamic_quantize.out, x, scale_shape, **places), True, lambda made: made[:3]
        ),
        "eager": Candidate(partial(dynamic_expression, x, *own[0])),
        "compile": compiled(dynamic_expression, x, *own[1]),
    }
    if bitsandbytes is not None and dtype == torch.float16:  # it takes no other
        call = partial(bitsandbytes.functional.int8_vectorwise_quant, x)
        if peers.attempt("bitsandbytes", "int8_vectorwise_quant", call):
            found["bitsandbytes"] = Candidate(call, read=lambda made: made[0])
    return found


def fake_quantize(shape, dtype, granularity, seed):
    x = normal(*shape, dtype=dtype, seed=seed)
    scale = quaver.choose_qparams(x, GRANULARITIES[granularity]).scale
    places = [torch.empty(shape, dtype=dtype) for _ in range(3)]
    found = {
        "reference": Candidate(partial(reference.fake_quantize, x, scale), exact=True),
        "quaver": Candidate(partial(quaver.fake_quantize, x, scale, out=places[0]), exact=True),
        "eager": Candidate(partial(fake_expression, x, scale, places[1])),
        "compile": compiled(fake_expression, x, scale, places[2]),
    }
    if dtype == torch.float32:
        if granularity == "tensor":
            call = partial(torch.fake_quantize_per_tensor_affine, x, scale.item(), 0, -128, 127)
        else:
            zeros = zeros_like(scale).int()
            call = partial(
                torch.fake_quantize_per_channel_affine, x, scale.flatten(), zeros, axis_of(granularity), -128, 127
            )
        found["torch"] = Candidate(call)
    return found


def quantize_in_mode(mode, shape, dtype, granularity, seed):
    x = normal(*shape, dtype=dtype, seed=seed)
    scale = quaver.choose_qparams(x, GRANULARITIES[granularity]).scale
    place = torch.empty(shape, dtype=torch.int8)
    ours = partial(quaver.quantize, x, scale, mode=mode, out=place)
    return {
        "reference": Candidate(partial(reference.quantize, x, scale, mode=mode), exact=True),
        "quaver": Candidate(ours, exact=True),
        "eager": Candidate(partial(quantize_expression, x, scale, torch.empty_like(place))),
    }


def fake_quantize_mask(shape, dtype, granularity, seed):
    x = normal(*shape, dtype=dtype, seed=seed)
    scale = quaver.choose_qparams(x, GRANULARITIES[granularity]).scale / 2  # so that some are clamped

    def eager():
        code = torch.round(x.float() / scale)
        return (code >= -128) & (code <= 127)

    return {
        "reference": Candidate(partial(reference.fake_quantize_mask, x, scale), exact=True),
        "quaver": Candidate(partial(quaver.fake_quantize_mask, x, scale), exact=True),
        "eager": Candidate(eager),
    }


def rows_made(op, expression, *arguments):
    """An op that makes the rows that it quantizes, and the expression of torch's that does the same."""
    by_reference, ours = getattr(reference, op), getattr(torch.ops.quaver, op)
    results = row_places(ours(*arguments))
    places = [(torch.empty_like(results["q"]), torch.empty_like(results["scale"])) for _ in range(2)]
    return {
        "reference": Candidate(lambda: by_reference(*arguments)[:3], exact=True),
        "quaver": Candidate(partial(ours.out, *arguments, **results), True, lambda made: made[:3]),
        "eager": Candidate(partial(expression, *arguments, *places[0])),
        "compile": compiled(expression, *arguments, *places[1]),
    }


def rms_norm_quantize(shape, dtype, _, seed):
    x, weight = normal(*shape, dtype=dtype, seed=seed), normal(shape[1], dtype=dtype, seed=1)
    return rows_made("rms_norm_quantize", torch_rms_norm, x, weight)


def silu_mul_quantize(shape, dtype, _, seed):
    gate, up = (normal(*shape, dtype=dtype, seed=each) for each in (seed, seed + 1))
    return rows_made("silu_mul_quantize", torch_silu_mul, gate, up)


ALL, ROWS, ONE = tuple(GRANULARITIES), ("channel 0",), ("tensor",)
X, CODES = None, 1  # bytes of what is moved for an element beside x itself: as many as x's, or a code's
OPS = {  # op: (candidates, granularities, what is moved beside x)
    "choose_qparams": (choose_qparams, ALL, ()),
    "quantize": (quantize, ALL, (CODES,)),
    **{
        f"quantize, {mode}": (partial(quantize_in_mode, mode), ONE, (CODES,))
        for mode in ("affine", "reciprocal", "stochastic")
    },
    "dynamic_quantize": (dynamic_quantize, ROWS, (CODES,)),
    "rms_norm_quantize": (rms_norm_quantize, ROWS, (CODES,)),
    "silu_mul_quantize": (silu_mul_quantize, ROWS, (X, CODES)),
    "dequantize": (dequantize, ALL, (CODES,)),
    "fake_quantize": (fake_quantize, ALL, (X,)),
    "fake_quantize_mask": (fake_quantize_mask, ONE, (CODES,)),
}


def cases(chosen):
    sizes = {LARGE: COLD, SMALL: WARM} if not chosen.quick else {SMALL: WARM}
    dtypes = DTYPES if not chosen.quick and chosen.threads == 1 else DTYPES[:1]  # one says how threads scale
    for (op, (make, granularities, beside)), (shape, memory), dtype in product(OPS.items(), sizes.items(), dtypes):
        for granularity in granularities:
            item = dtype.itemsize
            moved = shape[0] * shape[1] * (item + sum(item if each is X else each for each in beside))
            name = str(dtype).removeprefix("torch.")
            what = f"{shape[0]} x {shape[1]}, {name}, per {granularity}"
            yield Case(op, what, partial(make, shape, dtype, granularity), memory, moved, moved)


if __name__ == "__main__":
    sys.exit(run("elementwise", __doc__, cases))
