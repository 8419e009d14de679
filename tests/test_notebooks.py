"""The source notebooks, replayed: every number that they print, their other worked pieces, and where they fail."""

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch

import quaver
from quaver import PerChannel, PerTensor, quant_tool
from tests.cases import assert_bits, normal
from tests.notebook_numbers import EXAMPLES, OUTLIER, SEED_0, SEED_1, SEED_8215, TRAPS, ZERO_POINTS

FIELDS = [(name, field) for name, example in EXAMPLES.items() for field in example.printed]


def asymmetric(x):
    """Parameters, codes and what they stand for, from the ops; the notebooks add the zero point before rounding."""
    params = quaver.choose_qparams(x, symmetric=False)
    q = quaver.quantize(x, params, mode="affine")
    return params, q, quaver.dequantize(q, params)


def symmetric(x):
    q, params = quaver.dynamic_quantize(x, PerTensor())
    return params, q, quaver.dequantize(q, params)


# How each example computes its fields: {field: text}.


def asymmetric_torch(x):
    x = torch.tensor(x)
    q, x_hat, params = quant_tool.quantize_dequant(x, sym=False)
    for ours, tools in zip(asymmetric(x)[1:], (q, x_hat), strict=True):
        assert_bits(ours, tools)
    return {
        "x_max": f"{x.max()}",
        "x_min": f"{x.min()}",
        "scale": f"{params.scale}",
        "zero point before rounding": f"{params.q_min - x.min() / params.scale}",
        "zero point": f"{params.zero_point}",
        "codes": f"{q}",
        "x_hat": f"{x_hat}",
        "error": f"{x - x_hat}",
    }


def truncated(x):
    """The notebook casts to int8 before it rounds, so its codes are truncated: ours are in test_truncation."""
    x = torch.tensor(x)
    scale = quaver.choose_qparams(x).scale
    return {"scale": f"{scale.item()}", "codes": f"{(x / scale).to(torch.int8)}"}


def numpy_fields(x, params, q, x_hat):
    return {
        "x": f"{x.numpy()}",
        "scale": f"{params.scale.item()}",
        "zero point": f"{params.zero_point.to(torch.float32).item()}",
        "codes": f"{q.to(torch.float32).numpy()}",
        "x_hat": f"{x_hat.numpy()}",
        "error": f"{(x_hat - x).numpy()}",
    }


def symmetric_numpy(x):
    x = torch.tensor(x)
    return numpy_fields(x, *symmetric(x))


def asymmetric_numpy(x):
    x = torch.tensor(x)
    return numpy_fields(x, *asymmetric(x))


def without_zero_point(x, dtype=torch.int8):
    """The asymmetric scale used as if it were symmetric: the notebooks' first attempt, which saturates."""
    params = quaver.choose_qparams(x, symmetric=False)
    q = quaver.quantize(x, params.scale, dtype=dtype)
    return params, q, quaver.dequantize(q, params.scale)


def no_zero_point(x):
    x = torch.tensor(x)
    params, q, x_hat = without_zero_point(x)
    uint8 = without_zero_point(x, torch.uint8)[1]  # holds what int8 cannot
    before = torch.where(x < 0, q.to(torch.float32), uint8.to(torch.float32))
    return {**numpy_fields(x, params, q, x_hat), "before saturation": f"{before.numpy()}"}


def saturated_maximum(x):
    return {"x_hat": str(without_zero_point(torch.tensor(x))[2].numpy().max())}


def uniform(x):
    """Symmetric in its codes, -127..127, but with the range divided by 255."""
    x = torch.tensor(x)
    scale = quaver.choose_qparams(x, symmetric=False).scale
    return {"codes": f"{quaver.quantize(x, scale, q_min=-127, q_max=127).tolist()}"}


def product(x):
    """Real matrices 1x1 in, int8 through the product, real out. The product's range is known from calibration."""
    (a, a_range), (b, b_range), out_range = x
    a_params, b_params, out_params = (
        quaver.choose_qparams(torch.tensor([ends]), symmetric=False) for ends in (a_range, b_range, out_range)
    )
    a_q = quaver.quantize(torch.tensor([[a]]), a_params)
    b_q = quaver.quantize(torch.tensor([[b]]), b_params)
    out_q = quaver.int8_matmul_requantize(a_q, b_q, a_params, b_params, out_params)
    m = a_params.scale * b_params.scale / out_params.scale
    return {
        "S1": f"{a_params.scale.item():.9f}",
        "Z1": f"{a_params.zero_point.item()}",
        "code of a": f"{a_q.item()}",
        "S2": f"{b_params.scale.item():.9f}",
        "Z2": f"{b_params.zero_point.item()}",
        "code of b": f"{b_q.item()}",
        "S3": f"{out_params.scale.item():.9f}",
        "Z3": f"{out_params.zero_point.item()}",
        "M": f"{m.item():.9f}",
        "a * b": f"{quaver.dequantize(out_q, out_params).item():.6f}",
    }


def tool(x):
    x, arguments = torch.tensor(x[0]), x[1]
    q, x_hat, params = quant_tool.quantize_dequant(x, **arguments)
    granularity = PerChannel(0) if arguments.get("per_channel") else PerTensor()
    ours, ours_params = quaver.dynamic_quantize(x, granularity, symmetric=arguments.get("sym", True))
    assert_bits(ours, q)  # no tie here: where the zero point is added makes no difference
    assert_bits(quaver.dequantize(ours, ours_params), x_hat)
    return {"x": f"{x}", "params": f"{params}", "codes": f"{q}", "x_hat": f"{x_hat}", "error": f"{x_hat - x}"}


def one_spaced(text):
    """The text without its columns' alignment, which differs between versions; its digits are what counts."""
    return " ".join(text.replace("[", "[ ").split())


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_printed(name, field):
    replay, x, printed, not_ours = EXAMPLES[name]
    ours = one_spaced(globals()[replay](x)[field])
    if field in not_ours:
        reason, text = not_ours[field]
        assert ours == one_spaced(text) != one_spaced(printed[field]), reason
    else:
        assert ours == one_spaced(printed[field])


def test_every_field_is_accounted_for():
    explained = [(name, field) for name, example in EXAMPLES.items() for field in example.not_ours]
    assert len(FIELDS) == 70
    assert len(explained) == 7
    assert set(explained) <= set(FIELDS)


def test_seeds_give_the_numbers():
    for seed, numbers in ((8215, SEED_8215), (1, SEED_1)):
        assert np.random.RandomState(seed).randn(3).astype("float32").tolist() == np.float32(numbers).tolist()
    assert torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).tolist() == SEED_0


# The seven fields that quaver does not print: what their numbers are.


@pytest.mark.parametrize("name", ["no zero point, seed 8215", "asymmetric, seed 8215", "asymmetric, seed 1"])
def test_numpy_1_divided_in_float64(name):
    x = torch.tensor(EXAMPLES[name].x)
    quotient = (x.max() - x.min()).item() / 255
    assert f"{quotient}" == EXAMPLES[name].printed["scale"]
    assert quaver.choose_qparams(x, symmetric=False).scale.item() == np.float32(quotient)


def test_numpy_1_divided_in_float64_symmetric():
    x = torch.tensor(SEED_1)
    quotient = x.abs().max().item() / 127
    assert f"{quotient}" == EXAMPLES["symmetric, seed 1"].printed["scale"]
    assert quaver.choose_qparams(x).scale.item() == np.float32(quotient)


def test_the_saturated_maximum_belongs_to_other_data():
    rounded = [1.62, -0.61, -0.52]
    assert f"{(rounded[0] - rounded[1]) / 256:.10f}".startswith("0.0087109")
    assert f"{127 * 0.0087109:.7f}" == EXAMPLES["the saturated maximum in prose"].printed["x_hat"]
    assert saturated_maximum(rounded)["x_hat"] == "1.1106275"  # the rounded data under the notebook's own formula


def test_no_one_rounding_gives_the_printed_row():
    _, x, printed, _ = EXAMPLES["ten numbers"]
    steps = np.array(x) / (20 / 255)
    away = np.sign(steps) * np.ceil(np.abs(steps))
    for rounded in (np.round(steps), np.floor(steps), np.ceil(steps), np.trunc(steps), away):
        assert str(np.clip(rounded, -127, 127).astype(int).tolist()) != printed["codes"]
    for codes in (quaver.quantize(torch.tensor(x), torch.tensor(20 / 255)), symmetric(torch.tensor(x))[1]):
        assert codes.tolist() == [127, -127, 1, 3, 2, 1, -2, -3, -1, -4]  # with all codes, and with 10 / 127 as scale
        assert codes[2] == codes[5]  # 0.11 and 0.05 share a code, as the notebook says


def test_the_product_truncated_and_rounded():
    (s1, z1), (s2, z2), (s3, z3) = ((2.2 / 255, 11), (2.2 / 255, -12), (2.8 / 255, -55))
    codes = torch.tensor([[46]], dtype=torch.int8)
    acc = quaver.int8_matmul(codes, codes, a_zero_point=torch.tensor(z1), b_zero_point=torch.tensor(z2))
    assert acc.item() == (46 - z1) * (46 - z2) == 2030
    steps = s1 * s2 / s3 * acc.item()
    assert 13.76 < steps < 13.77
    assert f"{math.trunc(steps) * s3:.6f}" == EXAMPLES["0.3 * 0.5 through int8"].printed["a * b"]
    q = quaver.int8_matmul_requantize(
        codes,
        codes,
        *(torch.tensor(s) for s in (s1, s2, s3)),
        a_zero_point=torch.tensor(z1),
        b_zero_point=torch.tensor(z2),
        out_zero_point=torch.tensor(z3),
    )
    assert q.item() == -41 == round(steps) + z3
    rounded = quaver.dequantize(q, torch.tensor(s3), torch.tensor(z3)).item()
    assert abs(rounded - 0.15) < abs(math.trunc(steps) * s3 - 0.15)


# The notebooks' other worked pieces.


def test_without_a_zero_point_the_maximum_saturates():
    x = torch.tensor(SEED_8215)
    assert without_zero_point(x)[1].tolist() == [24, 127, -112]
    assert without_zero_point(x, torch.uint8)[1].tolist() == [24, 143, 0]
    params, q, x_hat = asymmetric(x)
    assert q.tolist() == [8, 127, -128]
    half_step = params.scale.item() / 2
    assert (x_hat - x).abs().max() <= half_step < (without_zero_point(x)[2] - x).abs().max()


def test_truncation():
    squashed, params = quaver.dynamic_quantize(torch.tensor(OUTLIER), PerTensor())
    assert squashed.tolist() == [0, 0, 0, 0, 0, 0, 127]  # one outlier takes all the codes
    x = torch.tensor(OUTLIER).clip(-5, 5)
    q, params = quaver.dynamic_quantize(x, PerTensor())
    assert q.tolist() == [-15, -5, -2, -3, 7, 14, 127]  # rounded: ours
    truncated_codes = (x / params.scale).to(torch.int8)
    assert truncated_codes.tolist() == [-14, -5, -1, -3, 7, 14, 127]  # the notebook's: two codes are one off
    error = (quaver.dequantize(q, params) - x).abs()
    assert (error <= (quaver.dequantize(truncated_codes, params) - x).abs()).all()
    assert error.max() <= params.scale.item() / 2


def test_a_far_point_leaves_three_codes_to_the_rest():
    x = torch.cat([torch.linspace(-1, 1, 1000), torch.tensor([100.0])])
    assert symmetric(x)[1].unique().tolist() == [-1, 0, 1, 127]  # nothing saturates: the resolution is what is lost


def test_symmetric_codes_waste_half_their_range_on_data_of_one_sign():
    x = torch.linspace(0, 1, 1000)
    assert symmetric(x)[1].unique().numel() == 128
    assert asymmetric(x)[1].unique().numel() == 256


@pytest.mark.parametrize(("lo", "hi"), ZERO_POINTS)
def test_three_ways_to_write_the_zero_point(lo, hi):
    x = torch.tensor([lo, hi])
    s = quant_tool.get_asymmetric_qparams(x).scale
    ways = torch.round(-128 - x[0] / s), -128 - torch.round(x[0] / s), 127 - torch.round(x[1] / s)
    assert tuple(way.item() for way in ways) == ZERO_POINTS[lo, hi]
    assert quant_tool.get_asymmetric_qparams(x).zero_point == ways[0]
    assert quaver.choose_qparams(x, symmetric=False).zero_point.item() == ways[0]


def test_the_three_ways_do_differ():
    whole, from_q_min, from_q_max = zip(*ZERO_POINTS.values(), strict=True)
    assert whole != from_q_min != from_q_max != whole


# The notebook's tool, its formulas written out, and where they fail.


def notebook_qparams(x, per_channel=False, channel_dim=0, symmetric=True, eps=1e-8):
    others = tuple(dim for dim in range(x.dim()) if dim != channel_dim)
    lo, hi = (x.amin(others, keepdim=True), x.amax(others, keepdim=True)) if per_channel else (x.min(), x.max())
    if symmetric:
        scale = (torch.maximum(-lo, hi) / 127).clip(eps)
        return scale, torch.zeros_like(scale)
    scale = ((hi - lo) / 255).clip(eps)
    return scale, (-128 - torch.round(lo / scale)).clip(-128, 127)


def notebook_quantize_dequant(x, scale, zero_point):
    q = torch.round(x / scale + zero_point).clip(-128, 127).to(torch.int8)
    return q, (q.to(torch.float32) - zero_point) * scale


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("channel", [None, 0, 1, 2])
def test_the_notebooks_bits(sym, channel):
    """Wherever the range holds 0, and no float overflows, the tool's bits are those of the notebook's formulas."""
    for seed in range(50):
        x = normal(4, 5, 6, seed=seed) * 10.0 ** (seed % 13 - 9)  # down to where eps decides
        arguments = {} if channel is None else {"per_channel": True, "channel_dim": channel}
        scale, zero_point = notebook_qparams(x, symmetric=sym, **arguments)
        q, x_hat = notebook_quantize_dequant(x, scale, zero_point)
        ours_q, ours_x_hat, params = quant_tool.quantize_dequant(x, sym=sym, **arguments)
        assert_bits(params.scale, scale)
        assert_bits(params.zero_point, zero_point)
        assert_bits(ours_q, q)
        assert_bits(ours_x_hat, x_hat)
        assert (params.q_min, params.q_max) == (-128, 127)


def test_the_tool_adds_the_zero_point_before_it_rounds():
    x = torch.tensor([-0.5, 0.5, 1.5, 2.5])
    params = quant_tool.QuantizationParams(torch.tensor(1.0), torch.tensor(3.0), -128, 127)
    assert_bits(quant_tool.quantize_tensor(x, params), notebook_quantize_dequant(x, params.scale, params.zero_point)[0])
    assert quant_tool.quantize_tensor(x, params).tolist() == [2, 4, 4, 6]
    assert quaver.quantize(x, params.scale, torch.tensor(3)).tolist() == [3, 3, 5, 5]  # the default, ONNX's


@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("name", TRAPS)
def test_trap(name, sym):
    values, dtype, *results = TRAPS[name]
    notebook_error, ((bound, steps), zero_point, codes) = results[sym]
    x = torch.tensor(values, dtype=getattr(torch, dtype))

    notebook_x_hat = notebook_quantize_dequant(x, *notebook_qparams(x, symmetric=sym))[1]
    error = (notebook_x_hat - x).abs().max().item()
    assert error == notebook_error or (math.isnan(error) and math.isnan(notebook_error))

    q, x_hat, params = quant_tool.quantize_dequant(x, sym=sym)
    assert params.scale == torch.tensor(bound) / torch.tensor(steps)
    assert params.zero_point.item() == zero_point
    assert q.tolist() == codes
    real = x.to(torch.float32).nan_to_num(0.0)  # NaN becomes the zero point, which stands for 0
    # Half a step; x / scale and x_hat are rounded once each, by 2^-24 of at most 255 steps.
    assert ((x_hat - real).abs() <= (0.5 + 255 * 2**-23) * params.scale).all()


def test_trap_uint8():
    """The notebook casts to int8 whatever the dtype: codes beyond 127 wrap. Ours are uint8."""
    x = torch.tensor([0.0, 1.0, 2.55])
    q, x_hat, params = quant_tool.quantize_dequant(x, dtype=torch.uint8, sym=False)
    assert (q.dtype, q.tolist()) == (torch.uint8, [0, 100, 255])
    assert_bits(x_hat, torch.tensor([0.0, 100.0, 255.0]) * params.scale)
    assert torch.round(x / params.scale).to(torch.uint8).view(torch.int8).tolist() == [0, 100, -1]


# The six names.


def test_signatures():
    def parameters(function):
        return str(inspect.signature(function).replace(return_annotation=inspect.Signature.empty))

    qparams = "(x: torch.Tensor, per_channel: bool = False, channel_dim: int = 0, dtype=torch.int8, eps: float = 1e-08)"
    assert parameters(quant_tool.get_symmetric_qparams) == qparams
    assert parameters(quant_tool.get_asymmetric_qparams) == qparams
    codes = "qparams: quaver.quant_tool.QuantizationParams)"
    assert parameters(quant_tool.quantize_tensor) == f"(x: torch.Tensor, {codes}"
    assert parameters(quant_tool.dequantize_tensor) == f"(q: torch.Tensor, {codes}"
    assert parameters(quant_tool.quantize_dequant) == (
        "(x: torch.Tensor, per_channel: bool = False, channel_dim: int = 0, dtype=torch.int8, sym: bool = True)"
    )


def test_qparams_class():
    fields = {field.name: (field.type, field.default) for field in dataclasses.fields(quant_tool.QuantizationParams)}
    assert fields == {
        "scale": (torch.Tensor, dataclasses.MISSING),
        "zero_point": (torch.Tensor, dataclasses.MISSING),
        "q_min": (int, dataclasses.MISSING),
        "q_max": (int, dataclasses.MISSING),
    }
    params = quant_tool.get_asymmetric_qparams(torch.tensor(SEED_0), True, 1)
    assert params.scale.dtype == params.zero_point.dtype == torch.float32  # the notebook's zero points are floats
    assert params.scale.shape == params.zero_point.shape == (1, 3)
    assert quant_tool.get_symmetric_qparams(torch.tensor(SEED_0)).scale.shape == ()
