"""What a GPU alone can show of the ops; `pytest --gpu cuda tests/test_gpu.py`, a part of `make gpu-test`.

`--gpu cpu` is a rehearsal, with everything that is torch.cuda's left out.
"""

import contextlib
import importlib

import pytest
import torch

from quaver import _C, library, reference
from quaver.explain import KERNELS
from quaver.library import as_tuple
from quaver.selftest import case
from tests.cases import CODE_DTYPES, assert_bits, codes, normal, scales, zero_points

pytestmark = pytest.mark.gpu
ops = torch.ops.quaver
EVERY_OP = pytest.mark.parametrize("op", library.OPS)


@pytest.fixture
def device(request):
    return torch.device(request.config.getoption("--gpu"))


def is_gpu(device):
    return device.type == "cuda"


def assert_defined(op, arguments, results):
    for actual, expected in zip(as_tuple(results), as_tuple(getattr(reference, op)(**arguments)), strict=True):
        assert_bits(actual, expected)


@EVERY_OP
def test_captured_in_a_graph(op, device):
    """A replay computes again, from what its arguments hold by then, and writes the same places."""
    for number in range(3):
        arguments = case(op, number, device=device)
        call = getattr(ops, op)
        results = call(**arguments)  # what is loaded lazily is loaded before
        if is_gpu(device):
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                results = call(**arguments)
            for result in as_tuple(results):
                result.zero_()
            graph.replay()
        assert_defined(op, arguments, results)


@EVERY_OP
def test_the_host_waits_for_nothing(op, device):
    arguments = case(op, 0, device=device)
    with _synchronizing_is_an_error() if is_gpu(device) else contextlib.nullcontext():
        results = getattr(ops, op)(**arguments)
    assert_defined(op, arguments, results)


@contextlib.contextmanager
def _synchronizing_is_an_error():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@EVERY_OP
def test_on_a_stream_of_its_own(op, device):
    """Its work waits for the stream's: the arguments are there only after a long kernel."""
    arguments = case(op, 1, device=device)
    if not is_gpu(device):
        assert_defined(op, arguments, getattr(ops, op)(**arguments))
        return
    stream = torch.cuda.Stream()
    late = {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in arguments.items()}
    for value in late.values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)
        for name, value in late.items():
            if isinstance(value, torch.Tensor):
                value.copy_(arguments[name], non_blocking=True)
        results = getattr(ops, op)(**late)
    stream.synchronize()
    assert_defined(op, late, results)


@EVERY_OP
def test_on_another_device_than_the_current_one(op, device):
    if is_gpu(device) and torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    arguments = case(op, 2, device="cuda:1" if is_gpu(device) else device)
    assert_defined(op, arguments, getattr(ops, op)(**arguments))


@EVERY_OP
def test_the_same_bits_a_hundred_times(op, device):
    """Beside another stream's work, which changes the order of blocks."""
    arguments = case(op, 99, device=device)  # a larger one
    first = [result.clone() for result in as_tuple(getattr(ops, op)(**arguments))]
    busy = torch.cuda.Stream() if is_gpu(device) else None
    noise = normal(1024, 1024).to(device)
    for _ in range(100 if busy else 2):
        if busy:
            with torch.cuda.stream(busy):
                noise @ noise
        for result, again in zip(first, as_tuple(getattr(ops, op)(**arguments)), strict=True):
            assert_bits(again, result)


# Every kernel of the matmuls, whatever the plan would take


@contextlib.contextmanager
def planned(problem, kernel, splits):
    library_of_cuda = importlib.import_module("quaver._C_cuda")
    library_of_cuda.set_matmul_plan(problem, kernel, splits)
    try:
        yield
    finally:
        library_of_cuda.clear_matmul_plans()


def every_plan(multiply, device):
    """Calls it once for each kernel and several numbers of parts of K that can compute it, planned so."""
    multiply()
    if not is_gpu(device):
        return
    problem = importlib.import_module("quaver._C_cuda").last_matmul()
    for kernel, splits, *_ in _C.matmul_plans(problem):
        if splits in (1, 2, 5):
            with planned(problem, kernel, splits):
                try:
                    multiply()
                except AssertionError as error:
                    raise AssertionError(f"{KERNELS[kernel]} in {splits} parts: {error}") from error


@pytest.mark.parametrize(
    ("m", "n", "k"), [(5, 40, 512), (16, 129, 2064), (200, 300, 1000), (513, 1025, 2001), (64, 64, 16384)]
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("a_dtype", CODE_DTYPES, ids=str)
@pytest.mark.parametrize("b_dtype", CODE_DTYPES, ids=str)
def test_every_kernel_of_a_matmul(m, n, k, transposed, a_dtype, b_dtype, device):
    a, b = codes(m, k, dtype=a_dtype).to(device), codes(n, k, dtype=b_dtype, seed=1).to(device).t()
    if transposed:
        b = b.contiguous()
    points = {
        "a_zero_point": zero_points(m, 1, dtype=a_dtype).to(device),
        "b_zero_point": zero_points(1, n, dtype=b_dtype).to(device),
    }
    expected = reference.int8_matmul(a, b, **points)
    every_plan(lambda: assert_bits(ops.int8_matmul(a, b, **points), expected), device)
    factors = (scales(m, 1).to(device), scales(1, n).to(device), 2.0**10 * scales(1, n, seed=3).to(device))
    expected = reference.int8_matmul_requantize(a, b, *factors, **points)
    every_plan(lambda: assert_bits(ops.int8_matmul_requantize(a, b, *factors, **points), expected), device)


def test_products_beyond_2_to_the_31(device):
    """A result of more elements than 32 bits number, of which the last rows are compared."""
    m, n, k = (70_000, 32_768, 64) if is_gpu(device) else (700, 328, 64)
    a, b = codes(m, k).to(device), codes(n, k, seed=1).to(device).t()
    product = ops.int8_matmul(a, b)
    for rows in (slice(0, 64), slice(m - 64, m)):
        assert_bits(product[rows], reference.int8_matmul(a[rows], b))
