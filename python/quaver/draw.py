"""Valid calls drawn at random, for whoever compares an op with its definition: odd sizes and strides, values where
rounding goes wrong.

    draw = Draw(random.Random(7), device="cpu")
    torch.ops.quaver.quantize(**draw.call("quantize"))

Equal seeds draw equal calls, on every device. What is drawn never makes results unspecified: scales are positive and
finite, zero points are codes, sums are right.
"""

import math

import torch

from quaver.qparams import MODES, full_range

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CODE_DTYPES = (torch.int8, torch.uint8)
# Nothing, one, primes, and one less and one more than what vectors, warps and tiles hold.
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 257, 1000, 1024, 4097, 16385)
# Zeros, denormals, what overflows as float16 or by dividing, and what is no number.
SPECIAL_VALUES = (
    *(0.0, -0.0, 1e-45, -1e-45, 1e-39, 1.17549435e-38, 6e-8, 1e-30, -1e-30, 0.5, -0.5, 1.5, 2.5, 127.5, -128.5, 255.5),
    *(65504.0, -65520.0, 8388607.5, 2147483648.0, 1e38, -1e38, 3.4028235e38, -3.4028235e38),
    *(float("inf"), float("-inf"), float("nan")),
)
SPECIAL_SCALES = (1.0, 0.1, 1 / 3, 2.0**-20, 1e-45, 1e-30, 1.17549435e-38, 1e30, 3.4028235e38)
MAX_RANK = 6


class Draw:
    """Draws calls with a random.Random on a device; no tensor has more than about `most` elements.

    Where it `packs`, by default on the CPU, some calls bring int8_prepack's form of a matrix, too.
    """

    def __init__(self, random, *, device="cpu", most=4096, packs=None):
        self.random, self.device, self.most = random, device, most
        self.packs = torch.device(device).type == "cpu" if packs is None else packs

    def call(self, op):
        """The arguments of a valid call of this op, by name."""
        return CALLS[op](self)

    def one_of(self, *choices):
        return self.random.choice(choices)

    def chance(self, share):
        return self.random.random() < share

    def generator(self):
        return torch.Generator().manual_seed(self.random.randrange(2**32))

    def seed(self):
        """Any int64."""
        return self.random.randrange(-(2**63), 2**63)

    # Shapes

    def size(self, most):
        if self.chance(0.03):
            return 0
        return self.random.choice([size for size in SIZES if size <= most] or [1])

    def shape(self, least_rank=0):
        rank = max(least_rank, self.one_of(0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 5, MAX_RANK))
        shape, left = [], self.most
        for _ in range(rank):
            shape.append(self.size(left))
            left //= max(shape[-1], 1)
        self.random.shuffle(shape)
        return shape

    def blocks(self, shape):
        """The shape of a scale for each block of a tensor: per tensor, channel, token, group, or anything that fits."""
        kind = self.one_of("tensor", "channel", "token", "group", "any")
        if kind == "tensor" or not shape:
            return [1] * len(shape)
        if kind == "channel":
            axis = self.random.randrange(len(shape))
            return [size if dim == axis else 1 for dim, size in enumerate(shape)]
        if kind == "token":
            return [*shape[:-1], 1]
        if kind == "group":
            return [*shape[:-1], self.divisor(shape[-1])]
        return [self.divisor(size) for size in shape]

    def divisor(self, size):
        if size == 0:
            return self.one_of(0, 1)
        return self.random.choice([count for count in range(1, size + 1) if size % count == 0])

    # Tensors

    def place_for(self, result, *, any_strides):
        """A tensor like a result, to be written instead of a new one; where strides are free, a part of a wider one."""
        if not any_strides or self.chance(0.3):
            return torch.empty_like(result, memory_format=torch.contiguous_format)
        order = self.random.sample(range(result.dim()), result.dim())
        sizes = [result.shape[dim] + self.one_of(0, 0, 1, 16) for dim in order]
        wider = torch.empty(sizes, dtype=result.dtype, device=self.device)
        part = wider[tuple(slice(wider.shape[i] - result.shape[dim], None) for i, dim in enumerate(order))]
        return part.permute(sorted(range(len(order)), key=order.__getitem__))

    def floats(self, shape, dtype=None):
        dtype = dtype or self.one_of(*FLOAT_DTYPES)
        kind = self.one_of("normal", "normal", "ties", "special", "bits", "constant")
        generator = self.generator()
        if kind == "normal":
            x = torch.randn(shape, generator=generator) * 2.0 ** self.random.uniform(-20, 20)
        elif kind == "ties":
            x = torch.randint(-600, 600, shape, generator=generator) / 2 * self.one_of(1.0, 1.0, 0.25, 0.1)
        elif kind == "special":
            x = torch.tensor(SPECIAL_VALUES)[torch.randint(len(SPECIAL_VALUES), shape, generator=generator)]
        elif kind == "bits":
            x = torch.randint(-(2**31), 2**31, shape, generator=generator).to(torch.int32).view(torch.float32)
        else:
            x = torch.tensor(self.random.choice(SPECIAL_VALUES)).repeat(shape)
        return self.laid_out(x.to(dtype))

    def codes(self, shape, dtype=None):
        dtype = dtype or self.one_of(*CODE_DTYPES)
        low, high = full_range(dtype)
        low, high = self.one_of((low, high), (low, high), (high, high), (low, low + 1))
        return self.laid_out(torch.randint(low, high + 1, shape, generator=self.generator(), dtype=dtype))

    def images(self, shape, dtype=None):
        """Codes [N, C, H, W], as often as not channels_last."""
        codes = self.codes(shape, dtype)
        return codes.contiguous(memory_format=torch.channels_last) if self.chance(0.5) else codes

    def scales(self, shape):
        kind = self.one_of("usual", "usual", "powers of two", "special", "any")
        exponents = torch.rand(shape, generator=self.generator())
        if kind == "usual":
            scale = torch.exp2(exponents * 16 - 12)
        elif kind == "powers of two":
            scale = torch.exp2((exponents * 16 - 12).round())
        elif kind == "special":
            scale = torch.tensor(SPECIAL_SCALES)[(exponents * len(SPECIAL_SCALES)).to(torch.int64)]
        else:
            scale = torch.exp2(exponents * 252 - 126)
        return self.laid_out(scale)

    def integers(self, shape, low, high):
        """int32 from low to high."""
        drawn = torch.randint(low, high + 1, shape, generator=self.generator())
        return self.laid_out(drawn.to(torch.int32))

    def laid_out(self, x):
        """The same shape on the device, in some memory layout; where elements share memory, they become equal."""
        x = x.to(self.device)
        kind = self.one_of("contiguous", "contiguous", "permuted", "stepped", "misaligned", "padded", "expanded")
        if kind == "permuted":
            order = self.random.sample(range(x.dim()), x.dim())
            back = [order.index(dim) for dim in range(x.dim())]
            return x.permute(order).contiguous().permute(back)
        if kind == "misaligned":
            return x.new_zeros(x.numel() + 1)[1:].view(x.shape).copy_(x)
        if kind in ("stepped", "padded") and x.dim() > 0:
            dim = self.random.randrange(x.dim())
            step = 2 if kind == "stepped" else 1
            size = x.shape[dim]
            wider = x.new_zeros([*x.shape[:dim], step * size + 3, *x.shape[dim + 1 :]])
            view = wider.narrow(dim, 1, step * size).unflatten(dim, (size, step)).select(dim + 1, 0)
            return view.copy_(x)
        if kind == "expanded" and x.dim() > 0 and x.numel() > 0:
            return x.narrow(self.random.randrange(x.dim()), 0, 1).expand_as(x)
        return x

    # Arguments

    def range_of_codes(self, low, high):
        """q_min and q_max, given or left to their defaults."""
        if self.chance(0.6):
            return {}
        q_min = self.random.randint(low, high - 1)
        return {"q_min": q_min, "q_max": self.random.randint(q_min + 1, high)}

    def parameters(self, shape, q_min, q_max):
        """A scale and perhaps a zero point for a tensor of this shape."""
        blocks = (
            self.one_of([], [1], [1] * self.random.randint(0, MAX_RANK)) if self.chance(0.2) else self.blocks(shape)
        )
        zero_point = {} if self.chance(0.4) else {"zero_point": self.integers(blocks, q_min, q_max)}
        return {"scale": self.scales(blocks), **zero_point}

    def choosing(self):
        """The arguments by which parameters are chosen, for codes of either dtype."""
        dtype, symmetric = self.one_of(*CODE_DTYPES), self.chance(0.5)
        low, high = full_range(dtype)
        if not symmetric:
            span = self.range_of_codes(low, high)
        elif dtype == torch.uint8:
            span = {"q_min": 0, "q_max": self.random.randint(1, high)}
        else:
            span = self.one_of({}, {}, {"q_min": self.random.randint(low, 0), "q_max": self.random.randint(1, high)})
        eps = self.one_of({}, {}, {"eps": self.one_of(1e-8, 0.25, 1e-45, 3e38)})
        return {"dtype": dtype, "symmetric": symmetric, **span, **eps}

    def axis_values(self, axis, out_shape, make, *limits):
        """One value, or one for each row (axis 0) or column (axis 1) of a product."""
        if self.chance(0.4):
            return make(self.one_of([], [1], [1, 1]), *limits)
        wanted = list(out_shape)
        wanted[-1 - axis] = 1
        dims = self.random.randint(2, len(wanted))
        batch = [self.one_of(size, 1) for size in wanted[:-2]]
        return make([*batch, *wanted[-2:]][-dims:], *limits)

    def packed(self, name, b):
        """b's packed form by this name, or nothing."""
        wanted = self.chance(0.3)  # asked on every device: equal seeds draw equal calls
        return {name: torch.ops.quaver.int8_prepack.default(b)} if wanted and self.packs and b.dim() == 2 else {}

    def product(self):
        """a and b with zero points and sums, and the shape of their product."""
        batch = [] if self.chance(0.6) else [self.one_of(1, 1, 2, 3) for _ in range(self.random.randint(1, 4))]
        most = max(1, self.most // math.prod(batch))
        n = self.size(most)
        m = self.size(max(1, most // max(n, 1)))
        k = self.size(max(1, most // max(m, n, 1)))
        out = [*batch, m, n]
        a_batch = [self.one_of(size, size, 1) for size in batch]
        b_batch = [size if mine == 1 else self.one_of(size, 1) for size, mine in zip(batch, a_batch, strict=True)]
        if batch and self.chance(0.3):
            a_batch, b_batch = self.one_of((batch, []), ([], batch))
        a, b = self.codes([*a_batch, m, k]), self.codes([*b_batch, k, n])
        if self.chance(0.3):
            b = b.mT.contiguous().mT
        arguments = {"a": a, "b": b, **self.packed("b_packed", b)}
        for axis, name, codes, along in ((0, "a", a, -1), (1, "b", b, -2)):
            if self.chance(0.5):
                arguments[f"{name}_zero_point"] = self.axis_values(axis, out, self.integers, *full_range(codes.dtype))
            if self.chance(0.3):
                arguments[f"{name}_sum"] = codes.sum(along, keepdim=True, dtype=torch.int32)
        return arguments, out

    def scaled_product(self):
        arguments, out = self.product()
        arguments["a_scale"] = self.axis_values(0, out, self.scales)
        arguments["b_scale"] = self.axis_values(1, out, self.scales)
        if self.chance(0.5):
            arguments["bias"] = self.floats([out[-1]], torch.float32)
        return {**arguments, "relu": self.chance(0.3)}, out

    def requantizing(self, out_shape, bias):
        """From scaled products to codes; a float32 bias becomes an int32 one where the mode asks for it."""
        dtype, mode = self.one_of(*CODE_DTYPES), self.one_of("float", "fixed")
        low, high = full_range(dtype)
        span = self.range_of_codes(low, high)
        arguments = {"out_scale": self.axis_values(1, out_shape, self.scales)}
        if self.chance(0.5):
            limits = span.get("q_min", low), span.get("q_max", high)
            arguments["out_zero_point"] = self.axis_values(1, out_shape, self.integers, *limits)
        if bias is not None:
            arguments["bias"] = self.integers(bias.shape, -100000, 100000) if mode == "fixed" else bias
        return {**arguments, **span, "dtype": dtype, "mode": mode}


# Each op's arguments, in the data's order.


def _choose_qparams(draw):
    x = draw.floats(draw.shape())
    return {"x": x, "scale_shape": draw.blocks(list(x.shape)), **draw.choosing()}


def _quantize(draw):
    dtype = draw.one_of(*CODE_DTYPES)
    low, high = full_range(dtype)
    span = draw.range_of_codes(low, high)
    x = draw.floats(draw.shape())
    parameters = draw.parameters(list(x.shape), span.get("q_min", low), span.get("q_max", high))
    return {"x": x, **parameters, **span, "dtype": dtype, "mode": draw.one_of(*MODES), "seed": draw.seed()}


def _dynamic_quantize(draw):
    arguments = _choose_qparams(draw)
    return {**arguments, "return_row_sum": arguments["x"].dim() > 0 and draw.chance(0.5)}


def _rows(draw):
    """The shape of a tensor whose rows are not too long to be held, and how they become codes."""
    shape = draw.shape(least_rank=1)
    shape[-1] = min(shape[-1], 16384)
    codes = draw.choosing()
    codes.pop("eps", None)
    return shape, {**codes, "return_row_sum": draw.chance(0.5)}


def _rms_norm_quantize(draw):
    shape, codes = _rows(draw)
    x = draw.floats(shape)
    residual = {"residual": draw.floats(shape, x.dtype)} if draw.chance(0.5) else {}
    eps = draw.one_of({}, {"eps": draw.one_of(1e-5, 0.25, 1e-46, 3e38)})
    return {"x": x, "weight": draw.floats(shape[-1:]), **residual, **eps, **codes}


def _silu_mul_quantize(draw):
    shape, codes = _rows(draw)
    gate = draw.floats(shape)
    return {"gate": gate, "up": draw.floats(shape, gate.dtype), **codes}


def _int8_matmul(draw):
    return draw.product()[0]


def _int8_matmul_dequantize(draw):
    return {**draw.scaled_product()[0], "dtype": draw.one_of(*FLOAT_DTYPES)}


def _int8_matmul_requantize(draw):
    arguments, out = draw.scaled_product()
    return {**arguments, **draw.requantizing(out, arguments.get("bias"))}


def _scaled(draw):
    """Int32 products, what scales them, and the shape of all."""
    out = draw.shape(least_rank=2)
    scales = {name: draw.axis_values(axis, out, draw.scales) for axis, name in enumerate(("a_scale", "b_scale"))}
    bias = draw.floats([out[-1]], torch.float32) if draw.chance(0.5) else None
    products = {"acc": draw.integers(out, *draw.one_of((-(2**31), 2**31 - 1), (-50000, 50000)))}
    return {**products, **scales, "bias": bias, "relu": draw.chance(0.3)}, out


def _rescale(draw):
    return {**_scaled(draw)[0], "dtype": draw.one_of(*FLOAT_DTYPES)}


def _requantize(draw):
    arguments, out = _scaled(draw)
    return {**arguments, **draw.requantizing(out, arguments["bias"])}


def _dequantize(draw):
    q = draw.codes(draw.shape())
    return {"q": q, **draw.parameters(list(q.shape), *full_range(q.dtype)), "dtype": draw.one_of(*FLOAT_DTYPES)}


def _int8_linear(draw):
    x = draw.floats(draw.shape(least_rank=1))
    k, n = x.shape[-1], draw.size(64)
    arguments = {"x": x, "weight_q": draw.codes([n, k], torch.int8), "symmetric": draw.chance(0.5)}
    arguments |= draw.packed("weight_packed", arguments["weight_q"].t())
    arguments["weight_scale"] = draw.scales(draw.one_of([], [1, 1], [n, 1], [n, 1]))
    if draw.chance(0.5):
        arguments["bias"] = draw.floats([n], torch.float32)
    if draw.chance(0.5):
        arguments["weight_sum"] = arguments["weight_q"].sum(1, keepdim=True, dtype=torch.int32)
    return {**arguments, "relu": draw.chance(0.5), "dtype": draw.one_of(None, *FLOAT_DTYPES)}


def _int8_conv2d(draw):
    """Shapes whose images and results stay small, with kernels that may reach beyond x's edges."""
    groups = draw.one_of(1, 1, 1, 2, 3, 8)
    of_group, out_of_group = (draw.one_of(1, 1, 2, 3, 16, 20) for _ in range(2))
    if groups * of_group * out_of_group > draw.most:
        out_of_group = 1
    kernel = [draw.one_of(1, 1, 2, 3, 5) for _ in range(2)]
    stride, padding, dilation = (
        [draw.one_of(*some) for _ in range(2)] for some in ((1, 1, 2, 3), (0, 1, 2), (1, 1, 2))
    )
    channels = groups * max(of_group, out_of_group)
    most = min(9, math.isqrt(max(1, draw.most // channels)))
    least = [
        max(0, apart * (taps - 1) + 1 - 2 * more) for taps, apart, more in zip(kernel, dilation, padding, strict=True)
    ]
    size = [draw.random.randint(each, max(each, most)) for each in least]
    image = math.prod(size) * channels
    n = draw.size(max(1, min(3, draw.most // max(image, 1))))
    arguments = {
        "x": draw.images([n, groups * of_group, *size]),
        "weight": draw.images([groups * out_of_group, of_group, *kernel], torch.int8),
        "x_scale": draw.scales(draw.one_of([], [1])),
        "weight_scale": draw.scales(draw.one_of([], [groups * out_of_group, 1, 1, 1])),
        "relu": draw.chance(0.3),
    }
    arguments |= {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if groups == 1:
        arguments |= draw.packed("weight_packed", arguments["weight"].permute(2, 3, 1, 0).flatten(0, 2))
    if draw.chance(0.5):
        arguments["x_zero_point"] = draw.integers([1], *full_range(arguments["x"].dtype))
    if draw.chance(0.5):
        arguments["bias"] = draw.floats([groups * out_of_group], torch.float32)
    dtype = draw.one_of(*FLOAT_DTYPES, *CODE_DTYPES)
    if dtype in FLOAT_DTYPES:
        return {**arguments, "dtype": dtype}
    low, high = full_range(dtype)
    span = draw.range_of_codes(low, high)
    if draw.chance(0.5):
        arguments["out_zero_point"] = draw.integers([], span.get("q_min", low), span.get("q_max", high))
    return {**arguments, **span, "out_scale": draw.scales([]), "dtype": dtype}


CALLS = {
    "choose_qparams": _choose_qparams,
    "quantize": _quantize,
    "dynamic_quantize": _dynamic_quantize,
    "rms_norm_quantize": _rms_norm_quantize,
    "silu_mul_quantize": _silu_mul_quantize,
    "int8_matmul": _int8_matmul,
    "int8_matmul_dequantize": _int8_matmul_dequantize,
    "int8_matmul_requantize": _int8_matmul_requantize,
    "rescale": _rescale,
    "requantize": _requantize,
    "dequantize": _dequantize,
    "fake_quantize": _quantize,
    "fake_quantize_mask": _quantize,
    "int8_linear": _int8_linear,
    "int8_conv2d": _int8_conv2d,
}
