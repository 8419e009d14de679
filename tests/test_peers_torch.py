"""torch's own int8 arithmetic, number for number.

torch multiplies by 1 / scale where ONNX and quaver divide. By powers of two both are exact, and the codes are equal. By
other scales they differ by at most one code, and only where a tie lies within the roundings: u = 2^-24 of the quotient
in a division, 2u in a product with a reciprocal. Some of torch's functions add the zero point before they round, which
is quaver's mode "affine", and some after it, which is the default, or with torch's own product the mode "reciprocal";
quantize_per_tensor and _per_channel do one or the other by how torch was built. NaN, of which each does something
else, is left out.
"""

import pytest
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - defines torch.ops.quantized_decomposed

import quaver
from quaver import PerTensor, PerToken
from tests.cases import CODE_DTYPES, DEVICES, EDGE_VALUES, FLOAT_DTYPES, assert_bits, codes, normal, scales
from tests.test_peers_onnx import exact_weight, from_a_tie

decomposed = torch.ops.quantized_decomposed
pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning")

POWERS_OF_TWO = (2.0**-100, 2.0**-20, 2.0**-7, 0.25, 1.0, 2.0**40)
OTHER_SCALES = (1e-30, 0.0123, 0.1, 1 / 3, 0.7, 1e30)


def limits(dtype):
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max


# Products. On CUDA torch takes only some sizes. Without VNNI, torch's oneDNN saturates as onnxruntime does.

PRODUCTS = [(17, 8, 8), (32, 64, 48), (64, 2048, 64), (1, 1, 1), (33, 129, 31), (5, 1041, 9), (2, 131071, 3), (3, 0, 5)]
TAKEN = [
    (device, M, K, N)
    for device in DEVICES
    for M, K, N in PRODUCTS
    if device == "cpu" or (M > 16 and K > 0 and K % 8 == N % 8 == 0)
]


@pytest.mark.parametrize(("device", "M", "K", "N"), TAKEN)
def test_int_mm(device, M, K, N):  # noqa: N803
    a, b = codes(M, K).to(device), exact_weight(codes(N, K, seed=1)).to(device).t()
    extremes = [(torch.full_like(a, code), exact_weight(torch.full_like(b, code))) for code in (-128, 127)]
    for left, right in ((a, b), (a, b.contiguous()), *extremes):
        assert_bits(quaver.int8_matmul(left, right), torch._int_mm(left, right))


# Codes. Each peer: the scale's shape for x of four rows, our mode with its place of the zero point, its call.


def quantized(dtype):
    return {torch.int8: torch.qint8, torch.uint8: torch.quint8}[dtype]


BY_BUILD = "by how torch was built"


PEERS = {
    "decomposed.quantize_per_tensor": (
        (1, 1),
        "onnx",
        lambda x, s, z, dtype: decomposed.quantize_per_tensor(x, s.item(), z.item(), *limits(dtype), dtype),
    ),
    "decomposed.quantize_per_channel": (
        (4, 1),
        "onnx",
        lambda x, s, z, dtype: decomposed.quantize_per_channel(x, s[:, 0], z[:, 0], 0, *limits(dtype), dtype),
    ),
    "decomposed.quantize_per_token": (
        (4, 1),
        "affine",
        lambda x, s, z, dtype: decomposed.quantize_per_token(x, s, z, *limits(dtype), dtype),
    ),
    "decomposed.quantize_per_channel_group": (
        (4, 2),
        "affine",
        lambda x, s, z, dtype: decomposed.quantize_per_channel_group(x, s, z, *limits(dtype), dtype, x.shape[1] // 2),
    ),
    "quantize_per_tensor": (
        (1, 1),
        BY_BUILD,
        lambda x, s, z, dtype: torch.quantize_per_tensor(x, s.item(), z.item(), quantized(dtype)).int_repr(),
    ),
    "quantize_per_channel": (
        (4, 1),
        BY_BUILD,
        lambda x, s, z, dtype: torch.quantize_per_channel(x, s[:, 0], z[:, 0], 0, quantized(dtype)).int_repr(),
    ),
}


EDGES = EDGE_VALUES[~EDGE_VALUES.isnan()]
TIES = torch.arange(-160, 160) + 0.5
PLAIN = torch.cat([EDGES, normal(2000 - len(EDGES)) * 80])
STEPS = torch.cat([TIES.repeat_interleave(5), PLAIN]).double()
ULPS = torch.cat([torch.arange(-2, 3).repeat(len(TIES)), torch.zeros(len(PLAIN))]).to(torch.int32)


def settled(mode, shape, theirs):
    """Mode "affine" or "onnx": 0.5 by a scale of 1 and a zero point of 3 becomes 4 where that is added first."""
    if mode != BY_BUILD:
        return mode
    half = theirs(torch.full((4, 2), 0.5), torch.ones(shape), torch.full(shape, 3, dtype=torch.int32), torch.int8)
    return {4: "affine", 3: "onnx"}[half[0, 0].item()]


def data(peer_mode, mode, s):
    """Hard values, up to 2^30 steps in builds that add after rounding: they convert to int32 without saturating."""
    x = hard_to_round(s)
    return torch.where((x / s).abs() < 2**30, x, 0) if (peer_mode, mode) == (BY_BUILD, "onnx") else x


def hard_to_round(scale):
    """Four rows, each with its scales: ties and what is up to 2 ulp beside them; edge values but NaN; others."""
    x = (STEPS * scale.double().repeat_interleave(len(STEPS) // scale.shape[1], 1).expand(4, -1)).float()
    return (x.view(torch.int32) + ULPS).view(torch.float32)


def parameters(shape, scale, dtype):
    """Scales and zero points of the shape: powers of two around the scale; low, high, odd and even codes."""
    low, high = limits(dtype)
    scale = scale * torch.exp2(torch.arange(shape.numel()) % 3).reshape(shape)
    for first in (low, high, 0, 3):
        yield scale, torch.tensor([first, 7, low + 1, high, 0, 10, 127, low][: shape.numel()]).reshape(shape).int()


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("peer", PEERS)
def test_codes_by_powers_of_two(peer, dtype):
    shape, peer_mode, theirs = PEERS[peer]
    mode = settled(peer_mode, shape, theirs)
    for scale in POWERS_OF_TWO:
        for s, z in parameters(torch.Size(shape), scale, dtype):
            x = data(peer_mode, mode, s)
            assert_bits(quaver.quantize(x, s, z, dtype=dtype, mode=mode), theirs(x, s, z, dtype))
            no_zero = torch.zeros_like(z)  # then the modes are one
            assert_bits(quaver.quantize(x, s, no_zero, dtype=dtype), theirs(x, s, no_zero, dtype))


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@pytest.mark.parametrize("peer", PEERS)
def test_codes_by_other_scales(peer, dtype):
    shape, peer_mode, theirs = PEERS[peer]
    mode = settled(peer_mode, shape, theirs)
    differing = 0
    for scale in OTHER_SCALES:
        for s, z in parameters(torch.Size(shape), scale, dtype):
            x = data(peer_mode, mode, s)
            by_division = quaver.quantize(x, s, z, dtype=dtype, mode=mode).int()
            by_reciprocal = theirs(x, s, z, dtype).int()
            differs = by_division != by_reciprocal
            assert (by_division - by_reciprocal).abs().max() <= 1

            steps, zero = (p.double().repeat_interleave(x.shape[1] // p.shape[1], 1) for p in (s, z))
            steps, zero = x.double() / steps, zero.expand_as(x)
            rounded = steps.abs() + (steps + zero).abs() if mode == "affine" else steps.abs()
            assert (from_a_tie(steps) <= 3 * 2.0**-24 * rounded)[differs].all()
            differing += differs.sum().item()
    assert differing > 0


# Mode "reciprocal": the same bits by every scale whose reciprocal is finite.

EVERY_SCALE = (*POWERS_OF_TWO, *OTHER_SCALES, 3e-39, 1.17549435e-38, 3.4028235e38 / 4)
for_each_float = pytest.mark.parametrize("float_dtype", FLOAT_DTYPES, ids=str)


def rows_and_parameters(float_dtype, dtype):
    """(x of four rows, scales, zero points), scales and zero points for each row."""
    for scale in EVERY_SCALE:
        for s, z in parameters(torch.Size((4, 1)), torch.tensor(scale), dtype):
            x = hard_to_round(s)  # NaN where the largest scales' multiples overflow
            yield x.where(~x.isnan(), 0).to(float_dtype), s, z


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@for_each_float
def test_reciprocal(float_dtype, dtype):
    differing = 0
    for x, s, z in rows_and_parameters(float_dtype, dtype):
        ours = quaver.quantize(x, s, z, dtype=dtype, mode="reciprocal")
        assert_bits(ours, decomposed.quantize_per_channel(x, s[:, 0], z[:, 0], 0, *limits(dtype), dtype))
        differing += (ours != quaver.quantize(x, s, z, dtype=dtype)).sum().item()
        for row in range(4):
            theirs = decomposed.quantize_per_tensor(x, s[row].item(), z[row].item(), *limits(dtype), dtype)
            assert_bits(quaver.quantize(x, s[row], z[row], dtype=dtype, mode="reciprocal"), theirs)
    assert differing > 0 or float_dtype != torch.float32  # from division


def with_gradient(function, x, *arguments, **options):
    """The result, and its gradient under positive ones: torch multiplies, and gives -0 where a negative one stops."""
    x = x.clone().requires_grad_()
    y = function(x, *arguments, **options)
    return y, *torch.autograd.grad(y, x, normal(*x.shape, dtype=x.dtype).abs())


@pytest.mark.parametrize("dtype", CODE_DTYPES)
@for_each_float
def test_fake_quantize_and_its_gradient(float_dtype, dtype):
    """Up to 2^62 steps: beyond, torch converts to int64 without saturating."""
    low, high = limits(dtype)
    options = {"dtype": dtype, "mode": "reciprocal"}
    stopped = 0
    for x, s, z in rows_and_parameters(float_dtype, dtype):
        x = torch.where((x.double() / s.double()).abs() < 2**62, x, 0)
        ours = with_gradient(quaver.fake_quantize, x, s, z, **options)
        theirs = with_gradient(torch.fake_quantize_per_channel_affine, x, s[:, 0], z[:, 0], 0, low, high)
        for our, their in zip(ours, theirs, strict=True):
            assert_bits(our, their)
        stopped += (ours[1] == 0).sum().item()
        ours = with_gradient(quaver.fake_quantize, x, s[1], z[1], q_min=low + 5, q_max=high - 1, **options)
        theirs = with_gradient(torch.fake_quantize_per_tensor_affine, x, s[1, 0], z[1, 0], low + 5, high - 1)
        for our, their in zip(ours, theirs, strict=True):
            assert_bits(our, their)
    assert stopped > 0


# What the codes stand for.


@pytest.mark.parametrize("dtype", CODE_DTYPES)
def test_dequantize(dtype):
    """Every code with every zero point, each zero point with a scale of its own."""
    low, high = limits(dtype)
    every = torch.arange(low, high + 1)
    q, z, s = every.to(dtype).repeat(256, 1), every[:, None].int(), scales(256, 1)
    ours = quaver.dequantize(q, s, z)
    assert_bits(ours, decomposed.dequantize_per_channel(q, s[:, 0], z[:, 0], 0, low, high, dtype))
    assert_bits(ours, decomposed.dequantize_per_token(q, s, z, low, high, dtype, torch.float32))
    assert_bits(ours, decomposed.dequantize_per_channel_group(q, s, z, low, high, dtype, 256, torch.float32))
    for row in range(0, 256, 15):
        theirs = decomposed.dequantize_per_tensor(q[row], s[row].item(), z[row].item(), low, high, dtype)
        assert_bits(ours[row], theirs)


@pytest.mark.parametrize("scale", [*POWERS_OF_TWO, *OTHER_SCALES])
@pytest.mark.parametrize("dtype", CODE_DTYPES)
def test_fake_quantize(dtype, scale):
    """Its codes are those of quantized_decomposed; what they stand for is ours at every scale.

    Up to 2^62 steps: beyond, it converts to int64 without saturating.
    """
    low, high = limits(dtype)
    for s, z in parameters(torch.Size((4, 1)), scale, dtype):
        x = hard_to_round(s)
        x = torch.where((x / s).abs() < 2**62, x, 0)
        q = decomposed.quantize_per_channel(x, s[:, 0], z[:, 0], 0, low, high, dtype)
        fake = torch.fake_quantize_per_channel_affine(x, s[:, 0], z[:, 0], 0, low, high)
        assert_bits(quaver.dequantize(q, s, z), fake)
        if scale in POWERS_OF_TWO:
            assert_bits(quaver.dequantize(quaver.quantize(x, s, z, dtype=dtype), s, z), fake)
        q = decomposed.quantize_per_tensor(x, s[1].item(), z[1].item(), low, high, dtype)
        fake = torch.fake_quantize_per_tensor_affine(x, s[1].item(), z[1].item(), low, high)
        assert_bits(quaver.dequantize(q, s[1], z[1]), fake)


# Parameters. In these rows no min / scale is beside a tie, where q_min - round(min / scale) may be our neighbour.

ROWS = normal(500, 64) * torch.exp2(torch.arange(500) % 20 - 10)[:, None] + torch.arange(500)[:, None] % 3 - 1


def test_choose_qparams():
    tiny = torch.finfo(torch.float32).tiny
    for x in ROWS:
        scale, zero_point = decomposed.choose_qparams.tensor(x, -128, 127, tiny, torch.int8)
        ours = quaver.choose_qparams(x, symmetric=False)
        assert_bits(ours.scale, scale.reshape(1).float())
        assert_bits(ours.zero_point, zero_point.reshape(1).int())
        scale, zero_point = decomposed.choose_qparams_symmetric.tensor(x, -127, 127, tiny, torch.int8)
        ours = quaver.choose_qparams(x, PerTensor())
        assert_bits(ours.scale, scale.reshape(1).float())
        assert zero_point == 0


def test_choose_qparams_per_token():
    scale, zero_point = decomposed.choose_qparams_per_token_asymmetric(ROWS, torch.int8)
    ours = quaver.choose_qparams(ROWS, PerToken(), symmetric=False)
    assert_bits(ours.scale, scale.float())
    assert_bits(ours.zero_point, zero_point.int())
    scale, _ = decomposed.choose_qparams_per_token(ROWS, torch.int8)
    assert_bits(quaver.choose_qparams(ROWS, PerToken()).scale, scale)
