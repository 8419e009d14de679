"""fake_quantize: float tensor through codes to a float tensor; its gradient and the mask of it. ARITHMETIC.md (9)."""

from math import inf, nan

import pytest
import torch

import quaver
from quaver import PerChannel, reference
from tests.cases import (
    CODE_DTYPES,
    DEVICES,
    EDGE_SCALES,
    EDGE_SIZES,
    EDGE_VALUES,
    FLOAT_DTYPES,
    GRANULARITIES,
    MODES,
    assert_bits,
    layouts,
    normal,
    scales,
    zero_points,
)

ops = torch.ops.quaver

on_each_device = pytest.mark.parametrize("device", DEVICES)
for_each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
for_each_code_dtype = pytest.mark.parametrize("code_dtype", CODE_DTYPES, ids=str)
for_each_mode = pytest.mark.parametrize("mode", MODES)


def check(x, scale, zero_point=None, **options):
    """Value and mask are the reference's, in the memory that torch.empty_like gives; the value is that of two ops."""
    y = ops.fake_quantize(x, scale, zero_point, **options)
    assert_bits(y, reference.fake_quantize(x, scale, zero_point, **options))
    q = ops.quantize(x, scale, zero_point, **options)
    assert_bits(y, ops.dequantize(q, scale, zero_point, dtype=x.dtype))
    mask = ops.fake_quantize_mask(x, scale, zero_point, **options)
    assert_bits(mask, reference.fake_quantize_mask(x, scale, zero_point, **options))
    assert y.stride() == mask.stride() == torch.empty_like(x).stride()
    return y


def gradient(x, scale, zero_point=None, grad=None, **options):
    x = x.detach().requires_grad_()
    y = quaver.fake_quantize(x, scale, zero_point, **options)
    (found,) = torch.autograd.grad(y, x, torch.ones_like(y) if grad is None else grad)
    return found


# Hand numbers.


@on_each_device
@pytest.mark.parametrize(
    ("x", "scale", "zero_point", "options", "y", "grad"),
    [
        ([0.5, 1.5, -0.5, 2.5], 1.0, None, {}, [0.0, 2.0, 0.0, 2.0], [1, 1, 1, 1]),
        ([0.3, 0.8, -1.1], 0.5, 3, {}, [0.5, 1.0, -1.0], [1, 1, 1]),
        # The ends are codes, what rounds to them passes, and what is clamped to them does not.
        ([126.5, 127.0, 127.49, 127.5, 128.0], 1.0, None, {}, [126.0, 127.0, 127.0, 127.0, 127.0], [1, 1, 1, 0, 0]),
        ([-128.0, -128.5, -128.51, -129.0], 1.0, None, {}, [-128.0] * 4, [1, 1, 0, 0]),
        # The mask is of codes: -3 + 3 is one of uint8's, 255 - 3 the last quotient.
        ([-3.0, -3.5, -3.51, 252.0, 252.4, 252.5, 252.6], 1.0, 3, {"dtype": torch.uint8},
         [-3.0, -3.0, -3.0, 252.0, 252.0, 252.0, 252.0], [1, 0, 0, 1, 1, 1, 0]),
        ([1.0, 2.0, 3.0, -1.0], 1.0, None, {"q_min": 0, "q_max": 2}, [1.0, 2.0, 2.0, 0.0], [1, 1, 0, 0]),
        # The affine mode rounds 126.5 + 1 to 128, no code.
        ([126.5, 125.5], 1.0, 1, {}, [126.0, 126.0], [1, 1]),
        ([126.5, 125.5], 1.0, 1, {"mode": "affine"}, [126.0, 125.0], [0, 1]),
        # 91.5 * (1 / 61) is less than 91.5 / 61 = 1.5
        ([91.5], 61.0, None, {"q_max": 1}, [61.0], [0]),
        ([91.5], 61.0, None, {"q_max": 1, "mode": "reciprocal"}, [61.0], [1]),
        # What seed 2 draws begins with 0.43, 0.50, 0.97: 127.45 goes to 128 and 127.
        ([127.45, 127.45, -128.5], 1.0, None, {"mode": "stochastic", "seed": 2}, [127.0, 127.0, -128.0], [0, 1, 0]),
        ([nan, inf, -inf, 1e38, -1e38], 0.1, 5, {}, [0.0, 12.2, -13.3, 12.2, -13.3], [0, 0, 0, 0, 0]),
        ([nan, inf, -inf], 1.0, None, {"mode": "affine"}, [0.0, 127.0, -128.0], [0, 0, 0]),
        ([nan, inf, -inf], 1.0, None, {"mode": "reciprocal"}, [0.0, 127.0, -128.0], [0, 0, 0]),
        ([nan, inf, -inf], 1.0, None, {"mode": "stochastic"}, [0.0, 127.0, -128.0], [0, 0, 0]),
    ],
)  # fmt: skip
def test_hand_numbers(device, x, scale, zero_point, options, y, grad):
    x, scale = torch.tensor(x, device=device), torch.tensor(scale, device=device)
    if zero_point is not None:
        zero_point = torch.tensor(zero_point, dtype=torch.int32, device=device)
    for implementation in (reference.fake_quantize, quaver.fake_quantize):
        assert_bits(implementation(x, scale, zero_point, **options), torch.tensor(y))
    for implementation in (reference.fake_quantize_mask, quaver.fake_quantize_mask):
        assert_bits(implementation(x, scale, zero_point, **options), torch.tensor(grad, dtype=torch.bool))
    incoming = torch.arange(1.0, len(grad) + 1, device=device) - 2.5
    expected = torch.tensor([g.item() if passes else 0.0 for g, passes in zip(incoming, grad, strict=True)])
    assert_bits(gradient(x, scale, zero_point, incoming, **options), expected)


# The ops are the reference, bit for bit.


@on_each_device
@for_each_dtype
@for_each_code_dtype
@for_each_mode
def test_granularities(device, dtype, code_dtype, mode):
    for shape, scale_shape in GRANULARITIES:
        scale = scales(*scale_shape).to(device)
        x = (normal(*shape).to(device) * reference.for_each_element(scale, shape) * 100).to(dtype)
        zero_point = zero_points(*scale_shape, dtype=code_dtype).to(device)
        check(x, scale, zero_point, dtype=code_dtype, mode=mode, seed=4)
        check(x, scale, dtype=code_dtype, mode=mode, q_min=1, q_max=100)


@on_each_device
@for_each_dtype
@for_each_code_dtype
@for_each_mode
def test_edge_values(device, dtype, code_dtype, mode):
    x = EDGE_VALUES.to(device, dtype)[:, None].expand(-1, len(EDGE_SCALES) + 1).contiguous()
    scale = torch.tensor([*EDGE_SCALES, 1e-45], device=device)[None]  # the reciprocal of 1e-45 is infinite
    limits = torch.iinfo(code_dtype)
    for z in (limits.min, limits.max // 2, limits.max):
        zero_point = torch.full_like(scale, z, dtype=torch.int32)
        check(x, scale, zero_point, dtype=code_dtype, mode=mode)
        check(x.t().contiguous(), scale.t(), zero_point.t(), dtype=code_dtype, mode=mode)


@on_each_device
@for_each_dtype
@for_each_mode
def test_layouts(device, dtype, mode):
    for shape, scale_shape in (((), ()), ((67,), (67,)), ((7, 13), (7, 1)), ((2, 3, 4, 5), (1, 3, 1, 1))):
        x, scale = normal(*shape, dtype=dtype).to(device), scales(*scale_shape).to(device) / 8
        zero_point = zero_points(*scale_shape).to(device)
        y = check(x, scale, zero_point, mode=mode)
        for _, view in layouts(x):
            assert_bits(check(view, scale, zero_point, mode=mode), y)
    check(normal(1, 40, dtype=dtype).to(device).expand(5, 40), scales(5, 1).to(device), mode=mode)


@on_each_device
@for_each_dtype
@for_each_mode
def test_sizes(device, dtype, mode):
    for size in (*EDGE_SIZES, 30_011):
        x = (normal(5, size) * 4).to(device, dtype)
        for scale_shape in ((1, 1), (5, 1), (1, size)):
            check(x, scales(*scale_shape).to(device), zero_points(*scale_shape).to(device), mode=mode)


# The gradient.


@on_each_device
@for_each_dtype
@for_each_mode
def test_the_gradient_is_the_masks(device, dtype, mode):
    """Of another size than 1 and of x's dtype; negative zeros and what is no number pass as they are."""
    x, scale, zero_point = normal(40, 30, dtype=dtype) * 3, scales(40, 1), zero_points(40, 1)
    grad = normal(40, 30, dtype=dtype, seed=7)
    grad[:, 0], grad[:, 1], grad[:, 2] = -0.0, inf, nan
    x, scale, zero_point, grad = (tensor.to(device) for tensor in (x, scale, zero_point, grad))
    for q_min, q_max in ((-128, 127), (-5, 9)):
        options = {"q_min": q_min, "q_max": q_max, "mode": mode, "seed": 8}
        mask = reference.fake_quantize_mask(x, scale, zero_point, **options)
        assert 0 < mask.float().mean() < 1
        expected = torch.where(mask, grad, torch.zeros_like(grad))
        assert_bits(gradient(x, scale, zero_point, grad, **options), expected)
        assert_bits(
            gradient(x.t(), scale.t(), zero_point.t(), grad.t()), expected_of_all(x, scale, zero_point, grad).t()
        )


def expected_of_all(x, scale, zero_point, grad):
    return torch.where(reference.fake_quantize_mask(x, scale, zero_point), grad, torch.zeros_like(grad))


@on_each_device
def test_params_and_modules(device):
    """As a user trains: parameters of a weight, chosen anew at each step, without a gradient."""
    weight = torch.nn.Parameter(normal(4, 6).to(device))
    with torch.no_grad():
        params = quaver.choose_qparams(weight, PerChannel(0), q_max=60)
    y = quaver.fake_quantize(weight, params)
    q = ops.quantize(weight.detach(), params.scale, q_min=-127, q_max=60)
    assert_bits(y, quaver.dequantize(q, params))
    y.square().sum().backward()
    expected = torch.where(quaver.fake_quantize_mask(weight.detach(), params), 2 * y.detach(), 0)
    assert_bits(weight.grad, expected)
    assert params.scale.grad is None


@on_each_device
def test_of_the_straight_through_estimator(device):
    """Inside of the range, the gradient of anything after it, at the fake value."""
    x = torch.linspace(-1, 1, 21, device=device, requires_grad=True)
    y = quaver.fake_quantize(x, torch.tensor(0.25, device=device))
    y.pow(3).sum().backward()
    assert_bits(x.grad, 3 * y.detach().square())


@on_each_device
def test_without_a_gradient_none_is_kept(device):
    scale = torch.tensor(0.5, device=device)
    x = torch.ones(3, device=device, requires_grad=True)
    assert quaver.fake_quantize(x, scale).requires_grad
    assert not quaver.fake_quantize(x.detach(), scale).requires_grad
    with torch.no_grad():
        assert not quaver.fake_quantize(x, scale).requires_grad
    with torch.inference_mode():
        quaver.fake_quantize(x, scale)


@on_each_device
def test_gradients_of_gradients(device):
    """The backward is linear in the gradient that comes in, and 0 in x: masks do not move."""
    scale = torch.tensor(0.1, device=device)
    x = torch.tensor([0.3, -50.0, nan, 2.0], device=device, requires_grad=True)
    weights = torch.tensor([2.0, 3.0, 4.0, 5.0], device=device, requires_grad=True)
    y = quaver.fake_quantize(x, scale)
    (first,) = torch.autograd.grad((weights * y.nan_to_num()).sum(), x, create_graph=True)
    assert_bits(first, torch.tensor([2.0, 0.0, 0.0, 5.0]))
    of_weights, of_x = torch.autograd.grad(first.square().sum(), (weights, x), allow_unused=True)
    assert_bits(of_weights, torch.tensor([4.0, 0.0, 0.0, 10.0]))
    assert of_x is None or not of_x.any()


@on_each_device
@for_each_mode
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(device, mode, backend, dynamic):
    torch._dynamo.reset()

    def function(x, scale):
        return torch.tanh(quaver.fake_quantize(x * 2, scale, q_min=-20, q_max=20, mode=mode, seed=3)).sum()

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=backend)
    for shape in ((5, 7), (9, 4)):
        results = []
        for each in (function, compiled):
            x = (normal(*shape) * 3).to(device).requires_grad_()
            value = each(x, scales(shape[0], 1).to(device))
            value.backward()
            results.append((value, x.grad))
        for actual, expected in zip(results[1], results[0], strict=True):
            assert_bits(actual, expected)
        assert 0 < (results[0][1] == 0).float().mean() < 1


@pytest.mark.parametrize("name", ["scale", "zero_point"])
def test_parameters_have_no_gradient(name):
    arguments = {"x": torch.ones(3), "scale": torch.tensor(1.0), "zero_point": torch.tensor(0.0)}
    arguments[name].requires_grad_()
    with pytest.raises(
        RuntimeError, match=f"quaver::fake_quantize: {name} requires grad, but rounding has no gradient"
    ):
        quaver.fake_quantize(**arguments)


def test_the_mask_takes_no_gradient():
    with pytest.raises(RuntimeError, match="quaver::fake_quantize_mask: x requires grad"):
        quaver.fake_quantize_mask(torch.ones(3, requires_grad=True), torch.tensor(1.0))


@on_each_device
@pytest.mark.parametrize("function", [quaver.fake_quantize, quaver.fake_quantize_mask])
def test_check_reads_the_values(device, function):
    x, zero = torch.ones(3, device=device), torch.zeros((), device=device)
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        function(x, zero, check=True)
    with pytest.raises(ValueError, match="zero_point must lie within"):
        function(x, zero + 1, torch.tensor(128, device=device), check=True)
    assert function(x, zero + 1, torch.tensor(127, device=device), check=True).shape == x.shape
