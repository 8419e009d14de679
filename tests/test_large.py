"""More than 2^31 elements: sizes, strides and indices are 64 bits wide. Needs 10 GB of memory."""

import pytest
import torch

import quaver
from tests import oracle
from tests.cases import assert_bits

pytestmark = pytest.mark.deep

BEYOND = 2**31 + 5  # an index past every int32


def same_everywhere(codes, value):
    lo, hi = codes.aminmax()
    return (lo.item(), hi.item()) == (value, value)


@pytest.fixture(scope="module")
def x():
    """One number seen 2^31 + 5 times, save that it costs no memory."""
    return torch.tensor([1.5], dtype=torch.bfloat16).expand(BEYOND)


def test_quantize_and_dequantize(x):
    q = quaver.quantize(x, torch.tensor(0.5), torch.tensor(4))
    assert q.shape == (BEYOND,)
    assert same_everywhere(q, 7)
    real = quaver.dequantize(q, torch.tensor(0.5), torch.tensor(4), dtype=torch.bfloat16)
    assert same_everywhere(real, 1.5)


def test_random_numbers_of_late_elements(x):
    """1.5 is three quarters of the way to 2."""
    q = quaver.quantize(x, torch.tensor(2.0), mode="stochastic", seed=3)
    late = [oracle.uniform(i, 3) for i in range(BEYOND - 50, BEYOND)]
    assert q[-50:].tolist() == [oracle.quantize(1.5, 2.0, 0, -128, 127, "stochastic", drawn) for drawn in late]
    y = quaver.fake_quantize(x, torch.tensor(2.0), mode="stochastic", seed=3)
    assert_bits(y[-50:], q[-50:].to(torch.bfloat16) * 2)
    assert quaver.fake_quantize_mask(x, torch.tensor(2.0)).all()


def test_a_long_row_of_its_own_kind():
    """The last element of a row of more than 2^31 is its maximum."""
    x = torch.zeros(BEYOND, dtype=torch.bfloat16)
    x[-1] = 127.0
    q, params, row_sum = quaver.dynamic_quantize(x, quaver.PerTensor(), return_row_sum=True)
    assert params.scale.item() == 1.0
    assert (q[-1].item(), q[:-1].count_nonzero().item(), row_sum.item()) == (127, 0, 127)


def test_int8_matmul_with_many_results():
    a = torch.arange(-128, 128, dtype=torch.int8).repeat(256)[:, None]
    b = torch.ones(1, 2**15 + 1, dtype=torch.int8)
    q = quaver.int8_matmul_requantize(a, b, *[torch.tensor(1.0)] * 3)
    assert q.numel() > 2**31
    assert_bits(q[:, 0], a[:, 0])
    assert_bits(q[-300:, -5:], a[-300:].expand(300, 5))
