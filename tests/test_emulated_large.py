"""More than 2^31 elements through the CUDA kernels, in the emulator: numbers and places of elements are 64 bits wide.

Only the last blocks of a launch run, those whose numbers are large. Needs 10 GB of memory.
"""

import shutil

import pytest
import torch

from quaver import reference
from tests.cases import assert_bits, codes, normal, scales, zero_points

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import emulated
from tests.test_emulated_ops import check

pytestmark = pytest.mark.deep

LAST = 40  # blocks of 4,096 elements


def run_last_blocks(op, *args, **kwargs):
    """The op's result where only its launch's last blocks have run: the rest of it is left unwritten, which is said."""
    results = []

    def last_blocks(module, name, *, grid, **how):
        return module.launch_packed(name, grid=grid, first_block=grid[0] - LAST, **how)

    unwritten = pytest.raises(emulated.EmulationError, match=r"^1 results have bytes that no kernel wrote$")
    with emulated.launched_by(last_blocks), unwritten, emulated.device("sm_80", seed=1):
        results.append(getattr(emulated.ops(), op)(*args, **kwargs))
    return results[0]


def test_the_last_of_many_elements():
    """In three rows, so that the last one's elements have numbers, and its places have offsets, beyond 2^31."""
    rows, columns = 3, 2**31 // 3 + 50_000
    x = torch.empty(rows, columns, dtype=torch.bfloat16)
    end = 30 * 4096
    x[-1, -end:] = normal(end, dtype=torch.bfloat16)
    scale, zero_point = scales(rows, 1), zero_points(rows, 1)
    q = run_last_blocks("quantize", x, scale, zero_point)
    assert q.numel() > 2**31 + end
    expected = reference.quantize(x[-1:, -end:], scale[-1:], zero_point[-1:])
    assert_bits(q[-1:, -end:], expected)


def test_rows_far_apart():
    """Five rows of a matrix of more than 2^31 elements, each 2^30 from the last: offsets beyond 2^32."""
    rows, columns, apart = 5, 3000, 2**30 + 8
    wide = torch.empty(rows * apart, dtype=torch.bfloat16).view(rows, apart)
    wide[:, 1 : columns + 1] = normal(rows, columns, dtype=torch.bfloat16)
    for x in (wide[:, 1 : columns + 1], wide[:, 8:columns]):
        columns_of_x = x.shape[1]
        check("quantize", x, scales(rows, 1), zero_points(rows, 1))
        check("quantize", x, scales(1, columns_of_x), zero_points(1, columns_of_x))
        check("quantize", x, scales(rows, 1), zero_points(rows, 1), mode="stochastic")
        check("fake_quantize", x, scales(rows, 1), zero_points(rows, 1))
        check("choose_qparams", x, (rows, 1), symmetric=False)
        check("choose_qparams", x, (1, columns_of_x))
        check("choose_qparams", x, (1, 1))
        check("dynamic_quantize", x, (rows, 1), symmetric=False, return_row_sum=True)
    bytes_apart = wide.view(torch.int8).view(rows, 2 * apart)
    bytes_apart[:, 1 : columns + 1] = codes(rows, columns)
    q = bytes_apart[:, 1 : columns + 1]
    check("dequantize", q, scales(rows, 1), zero_points(rows, 1), dtype=torch.float16)
    check("int8_matmul", q, codes(columns, 3), b_zero_point=torch.tensor(5, dtype=torch.int32))
