"""The stand-in for the CUDA runtime: launches, attributes, errors and what it refuses, as CUDA has them.

tests/emulator/runtime_probe.cu asks it everything that a launcher may ask.
"""

import ctypes
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if shutil.which("nvcc") is None:
    pytest.skip("the stand-in runtime serves what nvcc makes, and there is no nvcc", allow_module_level=True)

from tests.emulator import DEVICES, LaunchError, Module, PtxError, build, toolkit
from tests.emulator.devices import KIB, CudaError
from tests.emulator.runtime import CARVEOUT, MAX_DYNAMIC_SHARED
from tests.emulator.runtime_probe import BOUNDED, DYNAMIC, MANY_REGISTERS, PLAIN, STATIC, Probe, probe_library

CLUSTER_WIDTH = 11  # of cudaFuncAttribute, which the stand-in does not know
INVALID_DEVICE_FUNCTION, INVALID_DEVICE, CAPTURING = 98, 101, 900
WITH_PTX = [name for name in DEVICES if name != "sm_75"]  # the probe has PTX for sm_80 and sm_90


@pytest.fixture(scope="module")
def built():
    return Probe(probe_library())


@pytest.fixture
def probe(built):
    """On an A100, as if no kernel had been touched."""
    built.reset()
    return built


# Launches


@pytest.mark.parametrize("device", WITH_PTX)
def test_launches_run(probe, device):
    probe.runtime.pretend(device)
    assert np.array_equal(probe.launch(PLAIN, (3, 1, 1), count=70)[1], np.arange(70))
    backwards = np.arange(63, -1, -1)
    assert np.array_equal(probe.launch(DYNAMIC, block=(64, 1, 1), shared=256, count=64)[1], backwards)
    assert np.array_equal(probe.launch(STATIC, block=(64, 1, 1), count=64)[1], backwards)
    runs = probe.runtime.runs
    assert [(run.block, run.shared) for run in runs] == [((32, 1, 1), 0), ((64, 1, 1), 256), ((64, 1, 1), 0)]
    assert not any(run.reports for run in runs)


@pytest.mark.parametrize(
    ("launch", "code"),
    [
        ({"grid": (0, 1, 1)}, CudaError.INVALID_CONFIGURATION),
        ({"block": (32, 0, 1)}, CudaError.INVALID_CONFIGURATION),
        ({"grid": (1, 65536, 1)}, CudaError.INVALID_CONFIGURATION),
        ({"grid": (2**31, 1, 1)}, CudaError.INVALID_CONFIGURATION),
        ({"block": (1025, 1, 1)}, CudaError.INVALID_CONFIGURATION),
        ({"block": (32, 33, 1)}, CudaError.INVALID_CONFIGURATION),
        ({"block": (1, 1, 65)}, CudaError.INVALID_CONFIGURATION),
        ({"shared": 48 * KIB + 1}, CudaError.INVALID_VALUE),
        ({"shared": 2**32 + 16}, CudaError.INVALID_VALUE),
        ({"function": STATIC, "shared": 44 * KIB + 1}, CudaError.INVALID_VALUE),
        ({"function": BOUNDED, "block": (129, 1, 1)}, CudaError.INVALID_VALUE),
        ({"function": MANY_REGISTERS, "block": (1024, 1, 1)}, CudaError.LAUNCH_OUT_OF_RESOURCES),
    ],
)
def test_a_launch_that_hardware_refuses(probe, launch, code):
    actual, out = probe.launch(**{"function": PLAIN, **launch})
    assert actual == code
    assert isinstance(probe.runtime.failure, LaunchError)
    assert (out == -1).all()
    assert not probe.runtime.runs


def test_the_largest_launches_that_hardware_takes(probe):
    assert probe.launch(PLAIN, (1, 2, 1), (1, 1, 64))[0] == 0
    assert probe.launch(PLAIN, block=(1024, 1, 1))[0] == 0
    assert probe.launch(PLAIN, shared=48 * KIB)[0] == 0
    assert probe.launch(STATIC, shared=44 * KIB)[0] == 0
    assert probe.launch(BOUNDED, block=(128, 1, 1))[0] == 0
    fitting = probe.attributes(MANY_REGISTERS)["threads"]
    assert probe.launch(MANY_REGISTERS, block=(fitting, 1, 1), count=32)[0] == 0
    assert probe.launch(MANY_REGISTERS, block=(fitting + 32, 1, 1))[0] == CudaError.LAUNCH_OUT_OF_RESOURCES


@pytest.mark.parametrize("device", WITH_PTX)
def test_shared_memory_beyond_48_kib_is_asked_for_first(probe, device):
    probe.runtime.pretend(device)
    most = DEVICES[device].shared_per_block
    threads = {"block": (32, 1, 1)}
    assert probe.launch(DYNAMIC, shared=most, **threads)[0] == CudaError.INVALID_VALUE
    assert probe.library.probe_set_attribute(DYNAMIC, MAX_DYNAMIC_SHARED, most + 1) == CudaError.INVALID_VALUE
    assert probe.library.probe_last_error() == CudaError.INVALID_VALUE
    assert probe.library.probe_set_attribute(DYNAMIC, MAX_DYNAMIC_SHARED, most) == 0
    assert probe.launch(DYNAMIC, shared=most, **threads)[0] == 0
    assert probe.launch(DYNAMIC, shared=most + 1, **threads)[0] == CudaError.INVALID_VALUE
    assert probe.launch(PLAIN, shared=most, **threads)[0] == CudaError.INVALID_VALUE, "each kernel has its own"
    assert probe.library.probe_set_attribute(DYNAMIC, MAX_DYNAMIC_SHARED, 64) == 0
    assert probe.launch(DYNAMIC, shared=128, **threads)[0] == CudaError.INVALID_VALUE, "less may be asked for as well"
    # Static shared memory counts.
    assert probe.library.probe_set_attribute(STATIC, MAX_DYNAMIC_SHARED, most - 4 * KIB) == 0
    assert probe.library.probe_set_attribute(STATIC, MAX_DYNAMIC_SHARED, most - 4 * KIB + 1) == CudaError.INVALID_VALUE


def test_an_attribute_is_of_one_device(probe):
    assert probe.library.probe_set_attribute(DYNAMIC, MAX_DYNAMIC_SHARED, 64 * KIB) == 0
    probe.runtime.pretend("sm_90")
    assert probe.launch(DYNAMIC, shared=64 * KIB)[0] == CudaError.INVALID_VALUE
    probe.runtime.pretend("sm_80")
    assert probe.launch(DYNAMIC, shared=64 * KIB)[0] == 0


def test_a_device_that_no_ptx_is_for(probe):
    probe.runtime.pretend("sm_75")
    assert probe.launch(PLAIN)[0] == CudaError.NO_KERNEL_IMAGE_FOR_DEVICE
    assert probe.library.probe_attributes(PLAIN, (ctypes.c_int * 8)()) == CudaError.NO_KERNEL_IMAGE_FOR_DEVICE


def test_other_ways_to_launch(probe):
    out = np.full(32, -1, np.int32)
    build.machine().add_allocation(out.ctypes.data, out.nbytes, True)
    with_config = probe.library.probe_launch_with
    assert with_config(PLAIN, 32, ctypes.c_void_p(out.ctypes.data), 32, 0) == 0
    assert np.array_equal(out, np.arange(32))
    assert with_config(PLAIN, 32, ctypes.c_void_p(out.ctypes.data), 32, 1) == CudaError.NOT_SUPPORTED
    assert probe.runtime.take_refusals() == ["cudaLaunchKernelExC: launch attribute 6 is not emulated"]
    assert probe.library.probe_launch_nothing() == INVALID_DEVICE_FUNCTION
    build.machine().remove_allocation(out.ctypes.data)


def test_a_defect_of_the_emulator_is_no_refusal(probe, monkeypatch):
    """A launch of what the emulator does not know gives a code that no refusal has, and the exception is kept."""

    def fail(*args, **kwargs):
        raise PtxError("unknown instruction")

    monkeypatch.setattr(Module, "launch_packed", fail)
    assert probe.launch(PLAIN)[0] == CudaError.UNKNOWN
    assert isinstance(probe.runtime.failure, PtxError)


# Attributes


def test_attributes(probe):
    for device in ("sm_80", "sm_86", "sm_90"):
        probe.runtime.pretend(device)
        plain, static, bounded, many = map(probe.attributes, (PLAIN, STATIC, BOUNDED, MANY_REGISTERS))
        ptx, binary = (90 if device == "sm_90" else 80), int(device[3:])
        assert {each["ptx"] for each in (plain, static)} == {ptx}
        assert {each["binary"] for each in (plain, static)} == {binary}
        assert (plain["shared"], plain["most_dynamic"], plain["threads"]) == (0, 48 * KIB, 1024)
        assert (static["shared"], static["most_dynamic"]) == (4 * KIB, 44 * KIB)
        assert (bounded["threads"], bounded["carveout"]) == (128, -1)
        assert plain["registers"] < 32 < 96 <= many["registers"] < 256
        assert many["threads"] == 65536 // (math.ceil(many["registers"] / 8) * 8 * 128) * 128  # four warps at once
    assert probe.library.probe_set_attribute(PLAIN, CARVEOUT, 40) == 0
    assert probe.attributes(PLAIN)["carveout"] == 40
    assert probe.library.probe_set_attribute(PLAIN, CARVEOUT, 101) == CudaError.INVALID_VALUE
    assert probe.library.probe_set_attribute(PLAIN, CLUSTER_WIDTH, 2) == CudaError.NOT_SUPPORTED
    assert probe.runtime.take_refusals() == [f"cudaFuncSetAttribute: attribute {CLUSTER_WIDTH} is not emulated"]


# Errors


def true_runtime():
    """CUDA's own libcudart, whose words and whose symbols need no GPU."""
    places = [toolkit.home() / folder / "libcudart.so.13" for folder in ("lib64", "lib")]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        pytest.skip("no libcudart.so.13 beside nvcc to compare with")
    return found


def test_errors_have_cudas_names_and_words(probe):
    true = ctypes.CDLL(str(true_runtime()))
    true.cudaGetErrorName.restype = true.cudaGetErrorString.restype = ctypes.c_char_p
    for code in (0, *CudaError, INVALID_DEVICE_FUNCTION, INVALID_DEVICE, CAPTURING, 12345):
        assert probe.library.probe_error_name(code) == true.cudaGetErrorName(code)
        assert probe.library.probe_error_words(code) == true.cudaGetErrorString(code)
    for code in CudaError:
        assert true.cudaGetErrorName(code).decode() == "cudaError" + code.name.title().replace("_", "")


def test_the_last_error_stays_until_it_is_read(probe):
    assert probe.library.probe_set_device(7) == INVALID_DEVICE
    assert probe.library.probe_set_attribute(PLAIN, CARVEOUT, -1) == 0, "a success does not wipe it away"
    assert [probe.library.probe_peek() for _ in range(2)] == [INVALID_DEVICE, INVALID_DEVICE]
    assert [probe.library.probe_last_error() for _ in range(2)] == [INVALID_DEVICE, 0]
    assert probe.launch(PLAIN, block=(2000, 1, 1))[0] == CudaError.INVALID_CONFIGURATION
    assert probe.launch(PLAIN)[0] == 0, "a refused launch leaves nothing behind"


# What is called


def test_calls_are_noted(probe):
    probe.launch(PLAIN)
    probe.library.probe_set_attribute(PLAIN, CARVEOUT, 50)
    probe.occupancy(PLAIN, 32)
    assert probe.runtime.take_calls() == [
        "cudaLaunchKernel",
        "cudaPeekAtLastError",
        "cudaGetLastError",
        "cudaFuncSetAttribute",
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor",
    ]
    assert probe.runtime.take_calls() == []


def test_what_a_capture_forbids_is_refused_in_words(probe):
    probe.library.probe_forbidden()
    names = [
        *("cudaMalloc", "cudaMemset", "cudaMemcpy", "cudaFree", "cudaStreamSynchronize", "cudaStreamQuery"),
        *("cudaEventSynchronize", "cudaEventQuery", "cudaDeviceSynchronize"),
    ]
    assert probe.runtime.take_calls() == names
    why = "a stream that is being captured does not allow it"
    assert probe.runtime.take_refusals() == [f"{name}: {why}" for name in names]
    assert probe.library.probe_last_error() == CAPTURING
    assert probe.library.probe_copy_later(None, None) == CudaError.NOT_SUPPORTED
    assert probe.runtime.take_refusals() == ["cudaMemcpyAsync: it is not emulated"]


def test_every_stream_is_being_captured(probe):
    capturing, number = ctypes.c_int(), ctypes.c_ulonglong()
    assert probe.library.probe_is_capturing(ctypes.byref(capturing), ctypes.byref(number)) == 0
    assert (capturing.value, number.value) == (1, 1)


def in_a_process_of_its_own(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=build.HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_true_runtime_does_not_come_between(probe):
    """Where the true one is loaded for all, as beside a torch for CUDA, a library keeps to its stand-in."""
    program = """
import ctypes, sys
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
count, current = ctypes.c_int(-1), ctypes.c_int(-1)
print(ctypes.CDLL(sys.argv[2]).probe_devices(ctypes.byref(count), ctypes.byref(current)), count.value)
"""
    assert in_a_process_of_its_own(program, true_runtime(), probe_library()) == ["0", "1"]


def test_a_library_that_knows_nothing_of_the_emulator():
    """One that was linked with CUDA's own runtime, as anybody's is, runs on the stand-in."""
    path = probe_library("foreign", linked_with=true_runtime())
    program = """
import ctypes, sys
import numpy as np
from tests.emulator import build
from tests.emulator.runtime import Runtime, libcudart
runtime = Runtime(ctypes.CDLL(libcudart(), mode=ctypes.RTLD_GLOBAL))
library = ctypes.CDLL(sys.argv[1])
out = np.zeros(4, np.int32)
build.machine().add_allocation(out.ctypes.data, out.nbytes, True)
print(library.probe_launch_with(0, 32, ctypes.c_void_p(out.ctypes.data), 4, 0), *out, *runtime.take_calls())
"""
    assert in_a_process_of_its_own(program, path) == ["0", "0", "1", "2", "3", "cudaLaunchKernelExC"]


@pytest.mark.parametrize("mode", ["size", "balance", "speed"])
def test_ptx_that_is_compressed(mode):
    """As quaver's own library has it, as nvcc leaves it unless it is told not to, and as older releases did, by LZ4."""
    probe = Probe(probe_library(f"compressed_{mode}", packaging=[f"--compress-mode={mode}"]))
    code, written = probe.launch(PLAIN, count=4)
    assert (code, *written) == (0, 0, 1, 2, 3)


def test_ptx_that_is_damaged_is_named(tmp_path):
    """Not one frame begins as zstd's do."""
    sound = Path(probe_library("compressed_size", packaging=["--compress-mode=size"]))
    damaged = tmp_path / "libdamaged.so"
    damaged.write_bytes(sound.read_bytes().replace(b"\x28\xb5\x2f\xfd", b"\0\0\0\0"))
    probe = Probe(damaged)
    assert probe.launch(PLAIN)[0] == CudaError.NO_KERNEL_IMAGE_FOR_DEVICE
    (words,) = probe.runtime.take_refusals()
    assert words.endswith("plainEPii: its PTX is damaged")
