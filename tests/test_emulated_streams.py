"""Every CUDA op goes where it is told and could be captured into a CUDA graph: streams, devices, what the host does.

The emulator's stand-in for the CUDA runtime notes every call and every launch's stream; no GPU has run these either.
"""

import ctypes
import mmap
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from quaver import library, reference
from quaver.draw import Draw
from quaver.library import as_tuple
from tests.cases import assert_bits, codes, zero_points

if shutil.which("nvcc") is None:
    pytest.skip("the emulator runs what nvcc makes of the kernels, and there is no nvcc", allow_module_level=True)

from tests.emulator import Result, emulated
from tests.emulator.module import Counters

ROOT = Path(__file__).parent.parent

# What a launcher may ask or set while a stream is being captured; a launch itself and its error.
QUESTIONS = {
    *("cudaFuncSetAttribute", "cudaFuncGetAttributes", "cudaGetDevice", "cudaDeviceGetAttribute"),
    *("cudaOccupancyMaxActiveBlocksPerMultiprocessor", "cudaPeekAtLastError"),
}
LAUNCHES = {"cudaLaunchKernel", "cudaLaunchKernelExC", "cudaGetLastError"}


def as_it_is_read(weight, groups):
    """Of other layouts torch makes a copy, beside x: on a real device, not on one that is pretended."""
    if weight.shape[1] == 1 and groups > 1:
        return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    return weight.contiguous(memory_format=torch.channels_last)


def drawn(op, seed):
    """A call that launches something."""
    while True:
        arguments = Draw(random.Random(f"{op} {seed}"), most=300, packs=False).call(op)
        if all(value.numel() > 0 for value in arguments.values() if isinstance(value, torch.Tensor)):
            if op == "int8_conv2d":
                arguments["weight"] = as_it_is_read(arguments["weight"], arguments["groups"])
            return arguments
        seed += 1000


def check(op, arguments, **where):
    """The op on a pretended device gives the reference's bits; gives the launches."""
    with emulated.device(**where) as runs:
        results = getattr(emulated.ops(), op)(**arguments)
    for actual, expected in zip(as_tuple(results), as_tuple(getattr(reference, op)(**arguments)), strict=True):
        assert_bits(actual, expected)
    return runs


# CUDA graphs


@pytest.mark.parametrize("op", library.OPS)
def test_an_op_calls_nothing_that_a_stream_capture_forbids(op):
    """The stand-in acts as if every stream were being captured, and refuses what a capture does not allow.

    What an op may call besides is not much: a test says so when it grows.
    """
    for seed in range(8):
        calls = set(check(op, drawn(op, seed)).calls)
        assert {"cudaLaunchKernel", "cudaGetLastError"} <= calls
        assert calls <= LAUNCHES | QUESTIONS


def test_what_a_capture_forbids_would_be_seen():
    with pytest.raises(emulated.EmulationError, match="cudaDeviceSynchronize: a stream that is being captured"):  # noqa: SIM117
        with emulated.device():
            emulated.library().cudaDeviceSynchronize()
    check("quantize", drawn("quantize", 0))  # its launch finds no error of the block before


def at_addresses_that_nobody_may_read(arguments):
    """The tensors in pages of their own that the host may not touch; whatever keeps them alive."""
    pages, moved = [], {}
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            memory = mmap.mmap(-1, max(1, value.untyped_storage().nbytes()))
            value = torch.frombuffer(memory, dtype=value.dtype).as_strided(value.shape, value.stride())
            pages.append((value.data_ptr(), len(memory), memory))
        moved[name] = value
    for address, size, _ in pages:
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), 0) == 0
    return moved, pages


def run_without_launching(op):
    """Calls an op whose tensors the host may not touch; its launches are left out."""
    emulated.stand_in()
    arguments, pages = at_addresses_that_nobody_may_read(drawn(op, 0))
    launched = []

    def leave_out(module, name, **how):
        launched.append(name)
        return Result([], Counters)

    unwritten = pytest.raises(emulated.EmulationError, match=r"^\d+ results have bytes that no kernel wrote$")
    with unwritten, emulated.launched_by(leave_out), emulated.device():
        getattr(emulated.ops(), op)(**arguments)
    assert launched
    return pages


def in_a_process_of_its_own(program):
    command = [sys.executable, "-c", f"import tests.test_emulated_streams as streams\n{program}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_op_reads_device_memory_on_the_host():
    done = in_a_process_of_its_own("for op in streams.library.OPS: streams.run_without_launching(op)")
    assert done.returncode == 0, done.stderr


def test_a_read_on_the_host_would_be_seen():
    done = in_a_process_of_its_own(
        "moved, pages = streams.at_addresses_that_nobody_may_read({'x': streams.torch.ones(3)})\nmoved['x'].sum()"
    )
    assert done.returncode == -signal.SIGSEGV


# Streams and devices


@pytest.mark.parametrize("op", library.OPS)
def test_every_launch_goes_to_the_current_stream_of_its_tensors_device(op):
    """Two streams of two devices, of different architectures, in turn."""
    for seed, (index, stream) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (0, 1), (1, 0)]):
        arguments = drawn(op, seed // 2)
        runs = check(op, arguments, name=("sm_80", "sm_90")[index], index=index, stream=stream)
        assert {run.stream for run in runs} == {emulated.stream_handle(index, stream)}


def test_streams_have_handles_of_their_own():
    handles = {emulated.stream_handle(index, stream) for index in range(2) for stream in range(2)}
    assert len(handles) == 4
    assert 0 not in handles


def test_a_stream_of_another_device_would_be_seen():
    """As of an op that guards no device: here its tensors are somewhere else after its first launch."""
    plain = emulated.stand_in().launch

    def move(module, name, **how):
        emulated.library().emulator_set_place(0, 0)
        return plain(module, name, **how)

    product = {"a": codes(5, 8), "b": codes(8, 5), "a_zero_point": zero_points(5, 1)}
    check("int8_matmul", product, index=1)
    seen = pytest.raises(emulated.EmulationError, match="the device of the tensors was not the current one")
    with seen, emulated.launched_by(move):
        check("int8_matmul", product, index=1)


def test_launches_on_two_streams_share_no_memory_of_the_librarys_own():
    """A kernel's scratch memory is torch's, of the call: two calls that are interleaved launch by launch do not mix."""
    op = "choose_qparams"
    first, second = ({"x": torch.randn(3, 70_000) * size, "scale_shape": [1, 1]} for size in (1, 100))
    expected = [as_tuple(getattr(reference, op)(**arguments)) for arguments in (first, second)]
    inner = []

    def launch_within(module, name, **how):
        """Before each of the first call's launches the whole second call runs."""
        emulated.stand_in().launch = plain
        inner.append(as_tuple(getattr(emulated.ops(), op)(**second)))
        emulated.stand_in().launch = launch_within
        return plain(module, name, **how)

    plain = emulated.stand_in().launch
    with emulated.launched_by(launch_within), emulated.device() as runs:
        outer = as_tuple(getattr(emulated.ops(), op)(**first))
    assert len(inner) >= 1
    assert len(runs) > len(inner)
    for results, wanted in [(outer, expected[0]), *((each, expected[1]) for each in inner)]:
        for actual, right in zip(results, wanted, strict=True):
            assert_bits(actual, right)
