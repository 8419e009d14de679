"""int8_linear of few rows in one launch, run by the emulator: every dtype, layout, argument and edge."""

import shutil
from itertools import product

import pytest
import torch

from quaver import reference
from tests.cases import EDGE_VALUES, FLOAT_DTYPES, assert_bits, codes, layouts, normal, scales

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import DEVICES, emulated

KERNEL = "linear_gemv_kernel"
SYMMETRY = pytest.mark.parametrize("symmetric", [True, False])


def check(x, weight_q, *args, device="sm_80", seed=1, together=True, **options):
    """The op's results are the reference's, by one launch or by more; gives the launches."""
    scale = scales(weight_q.shape[0], 1)
    with emulated.device(device, seed=seed) as runs:
        actual = emulated.ops().int8_linear(x, weight_q, scale, *args, **options)
    assert_bits(actual, reference.int8_linear(x, weight_q, scale, *args, **options))
    assert (len(runs) == 1 and KERNEL in runs[0].kernel) == together, [run.kernel for run in runs]
    return runs


def weights(n, k, seed=1):
    return codes(n, k, seed=seed)


@SYMMETRY
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_every_number_of_rows_and_codes(dtype, symmetric):
    """K from one vector of a thread to several turns of every warp."""
    for seed, (m, k) in enumerate(product((1, 2, 3, 4), (16, 48, 64, 80, 528, 1040, 4112))):
        n = (1, 8, 15, 16, 17, 40)[seed % 6]
        check(normal(m, k, dtype=dtype), weights(n, k), symmetric=symmetric, seed=seed)


@SYMMETRY
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_every_result(dtype, symmetric):
    x, weight = normal(3, 96, dtype=torch.bfloat16), weights(20, 96)
    for seed, (biased, summed, relu) in enumerate(product((False, True), repeat=3)):
        options = {"bias": normal(20, seed=3)} if biased else {}
        options |= {"weight_sum": weight.sum(1, True, dtype=torch.int32)} if summed else {}
        check(x, weight, symmetric=symmetric, relu=relu, dtype=dtype, seed=seed, **options)


@SYMMETRY
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_layouts(dtype, symmetric):
    for name, x in layouts(normal(4, 112, dtype=dtype)):
        check(x, weights(18, 112), symmetric=symmetric), name
    batch = normal(2, 112, 3, dtype=dtype).transpose(1, 2)[:, ::2]
    check(batch, weights(18, 112), symmetric=symmetric)
    check(normal(1, 112, dtype=dtype).expand(4, 112), weights(18, 112), symmetric=symmetric)
    check(normal(112, dtype=dtype), weights(18, 112), symmetric=symmetric)
    check(normal(2, 112, dtype=dtype), weights(18, 160)[:, 32:144], symmetric=symmetric)


@SYMMETRY
def test_values(symmetric):
    """What is no number, infinite, a tie or too small, alone in a row and beside others."""
    values = torch.cat([EDGE_VALUES, torch.zeros(-len(EDGE_VALUES) % 16)])
    for dtype in FLOAT_DTYPES:
        check(values.to(dtype), weights(9, len(values)), symmetric=symmetric)
        check(torch.stack([0 * values, values, values / 1e38]).to(dtype), weights(9, len(values)), symmetric=symmetric)
    for value in EDGE_VALUES:
        check(value.repeat(2, 32), weights(9, 32), symmetric=symmetric)


def test_one_scale_for_the_weight():
    x, weight = normal(2, 64), weights(24, 64)
    with emulated.device() as runs:
        actual = emulated.ops().int8_linear(x, weight, scales())
    assert_bits(actual, reference.int8_linear(x, weight, scales()))
    assert [KERNEL in run.kernel for run in runs] == [True]


@SYMMETRY
@pytest.mark.parametrize("device", sorted(DEVICES))
def test_devices(device, symmetric):
    for seed in range(3):
        x = normal(seed + 1, 592, dtype=FLOAT_DTYPES[seed])
        check(x, weights(37, 592), normal(37), symmetric=symmetric, device=device, seed=seed)


def test_a_grid_that_is_full_takes_several_rounds():
    """No more blocks than run at once; each goes on with other columns and the codes that it has."""
    x, weight = normal(2, 16), weights(16 * 500 + 3, 16)
    (run,) = check(x, weight, symmetric=False)
    assert run.grid == (4 * DEVICES["sm_80"].multiprocessors, 1, 1)


def test_the_weight_is_read_once_in_whole_sectors_and_banks_do_not_conflict():
    x, weight = normal(4, 1024, dtype=torch.float16), weights(64, 1024)
    (run,) = check(x, weight)
    loads = [each for each in run.counters.each if each.opcode.startswith("ld.global")]
    assert sum(each.traffic.get(weight.data_ptr(), 0) for each in loads) == weight.numel()
    of_operands = [
        each for each in loads if each.traffic.get(weight.data_ptr(), 0) or each.traffic.get(x.data_ptr(), 0)
    ]
    assert all(each.units == each.ideal for each in of_operands)
    shared = [each for each in run.counters.each if ".shared" in each.opcode and each.units]
    assert shared
    assert all(each.units == each.ideal for each in shared)


def test_others_take_several_launches():
    """More rows, codes that do not fill 16 bytes, weights across K, and one tile of which K is taken in parts."""
    check(normal(5, 64), weights(8, 64), together=False)
    check(normal(2, 72), weights(8, 72), together=False)
    check(normal(2, 64), weights(64, 8).t(), together=False)
    check(normal(2, 8208), weights(8, 8208), together=False)
    check(normal(2, 0), weights(8, 0), together=False)
    check(normal(0, 64), weights(8, 64), together=False)
