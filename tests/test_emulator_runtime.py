"""The stand-in for the CUDA runtime: launches, attributes, occupancy, device, errors, as CUDA gives them.

tests/emulator/runtime_probe.cu asks it everything that a launcher may ask. What it answers is compared with NVIDIA's
own words where the toolkit has them: cuda_occupancy.h for occupancy, libcudart for the names of errors.
"""

import ctypes
import math
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

if shutil.which("nvcc") is None:
    pytest.skip("the stand-in runtime serves what nvcc makes, and there is no nvcc", allow_module_level=True)

from tests.emulator import DEVICES, LaunchError, Module, PtxError, build, toolkit
from tests.emulator.devices import CudaError, Use, resident_blocks
from tests.emulator.runtime import HEADER, SOURCES, Runtime, sources

FUNCTIONS = PLAIN, DYNAMIC, STATIC, BOUNDED, MANY_REGISTERS = range(5)
MAX_DYNAMIC_SHARED, CARVEOUT, CLUSTER_WIDTH = 8, 9, 11  # of cudaFuncAttribute
INVALID_DEVICE_FUNCTION, INVALID_DEVICE, CAPTURING = 98, 101, 900
KIB = 1024
WITH_PTX = [name for name in DEVICES if name != "sm_75"]  # the probe has PTX for sm_80 and sm_90


class Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


def compile_probe():
    """{the probe: the command that compiles it, to PTX for sm_80 and sm_90}"""
    codes = [f"-gencode=arch=compute_{n},code=compute_{n}" for n in (80, 90)]
    flags = ["-O3", "-std=c++20", "-lineinfo", *codes, "--no-compress", "-Xcompiler=-fPIC"]
    return {build.HERE / "runtime_probe.cu": [toolkit.nvcc(), *flags]}


def probe_path(name):
    text = build._texts("runtime_probe.cu", HEADER, *SOURCES, "toolkit.py")
    return build.CACHE / f"lib{name}_{build._digest(*text, toolkit._version())}.so"


def probe_library():
    path = probe_path("probe")
    if not path.exists():
        toolkit.build_library(path, {**compile_probe(), **sources()}, [])
    return path


class Probe:
    """The probe's functions. Those that give a code of cudaError_t give it as CudaError's number."""

    def __init__(self):
        self.library = ctypes.CDLL(str(probe_library()))
        self.runtime = Runtime(self.library)
        for name in ("probe_error_name", "probe_error_words", "probe_name"):
            getattr(self.library, name).restype = ctypes.c_char_p

    def launch(self, function, grid=(1, 1, 1), block=(32, 1, 1), shared=0, count=32):
        """(code, what the kernel wrote)"""
        out = np.full(max(count, 1), -1, np.int32)
        build.machine().add_allocation(out.ctypes.data, out.nbytes, True)
        try:
            code = self.library.probe_launch(
                function, Dim3(*grid), Dim3(*block), ctypes.c_size_t(shared), ctypes.c_void_p(out.ctypes.data), count
            )
        finally:
            build.machine().remove_allocation(out.ctypes.data)
        assert self.library.probe_last_error() == code
        return code, out

    def numbers(self, name, *arguments, count=1):
        """(code, the ints that a function gives through pointers)"""
        found = [ctypes.c_int(-1) for _ in range(count)]
        code = getattr(self.library, name)(*arguments, *map(ctypes.byref, found))
        return code, *(number.value for number in found)

    def attributes(self, function):
        values = (ctypes.c_int * 8)()
        assert self.library.probe_attributes(function, values) == 0
        names = ("shared", "local", "threads", "registers", "ptx", "binary", "most_dynamic", "carveout")
        return dict(zip(names, values, strict=True))

    def occupancy(self, function, threads, shared=0, flags=False):
        code, blocks = self.numbers("probe_occupancy", function, threads, ctypes.c_size_t(shared), int(flags))
        assert code == 0
        return blocks


@pytest.fixture(scope="module")
def built():
    return Probe()


@pytest.fixture
def probe(built):
    """On an A100, as if no kernel had been touched."""
    built.runtime.pretend("sm_80")
    built.runtime._functions.clear()
    built.library.probe_last_error()
    for take in (built.runtime.take_calls, built.runtime.take_refusals, built.runtime.runs.clear):
        take()
    built.runtime.failure = None
    return built


# Launches


@pytest.mark.parametrize("device", WITH_PTX)
def test_launches_run(probe, device):
    probe.runtime.pretend(device)
    assert np.array_equal(probe.launch(PLAIN, (3, 1, 1), count=70)[1], np.arange(70))
    backwards = np.arange(63, -1, -1)
    assert np.array_equal(probe.launch(DYNAMIC, block=(64, 1, 1), shared=256, count=64)[1], backwards)
    assert np.array_equal(probe.launch(STATIC, block=(64, 1, 1), count=64)[1], backwards)
    assert [run.block for run in probe.runtime.runs] == [(32, 1, 1), (64, 1, 1), (64, 1, 1)]
    assert not any(run.reports for run in probe.runtime.runs)


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
    assert probe.launch(PLAIN)[0] == CudaError.NO_KERNEL_IMAGE
    assert probe.library.probe_attributes(PLAIN, (ctypes.c_int * 8)()) == CudaError.NO_KERNEL_IMAGE


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


# Registers


def test_registers_are_asked_for_only_where_they_matter(monkeypatch):
    """A block of 256 threads always fits, and .maxntid makes ptxas see to it."""
    text = """.version 8.0
.target sm_80
.address_size 64
.visible .entry free() { ret; }
.visible .entry bounded() .maxntid 1024 { ret; }
.visible .entry thrifty() .maxnreg 64 { ret; }
"""
    asked = []
    monkeypatch.setattr(toolkit, "resources", lambda *about: asked.append(about))
    module = Module.from_ptx(text)
    for kernel, block in (("free", 256), ("bounded", 1024), ("thrifty", 1024)):
        assert module.launch(kernel, grid=1, block=block, args=[]).ok
    assert not asked
    module.launch("free", grid=1, block=257, args=[])  # and where nobody answers, nothing is refused
    assert asked == [(text, "sm_80")]


def test_a_bound_on_registers_goes_before_the_bound_on_threads():
    """Of the two ptxas keeps to .maxnreg, and the block that .maxntid promises does not fit."""
    values = range(120)
    text = "\n".join([
        ".version 8.0\n.target sm_80\n.address_size 64",
        ".visible .entry k(.param .u64 x)\n.maxntid 1024, 1, 1\n.maxnreg 128 {",
        ".reg .b32 %r<120>; .reg .b64 %rd<2>; ld.param.u64 %rd1, [x];",
        *(f"ld.global.u32 %r{i}, [%rd1 + {4 * i}];" for i in values),
        "bar.sync 0;",
        *(f"st.global.u32 [%rd1 + {4 * (i * 7 % 120)}], %r{i};" for i in values),
        "ret; }",
    ])  # fmt: skip
    module, args = Module.from_ptx(text), [np.zeros(120, np.int32)]
    with pytest.raises(LaunchError, match=r"registers for each thread of k leave room for 512 threads") as refused:
        module.launch("k", grid=1, block=1024, args=args)
    assert refused.value.code == CudaError.LAUNCH_OUT_OF_RESOURCES
    module.launch("k", grid=1, block=512, args=args)
    without = Module.from_ptx(text.replace(".maxnreg 128", ""))
    without.launch("k", grid=1, block=1024, args=args)


def test_the_block_that_a_kernel_requires_is_of_its_shape():
    text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() .reqntid 64, 2 { ret; }\n"
    module = Module.from_ptx(text)
    assert module.launch("k", grid=1, block=(64, 2), args=[]).ok
    with pytest.raises(LaunchError, match=r"block \(128, 1, 1\): k asks for \(64, 2\)"):
        module.launch("k", grid=1, block=128, args=[])


def test_ptx_that_ptxas_refuses():
    """PTX of version 3.0 knew no sm_80."""
    good = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { ret; }\n"
    assert Module.from_ptx(good).launch("k", grid=1, block=1024, args=[]).ok
    with pytest.raises(LaunchError, match=r"ptxas refuses the PTX: .*3\.0") as refused:
        Module.from_ptx(good.replace("8.0", "3.0")).launch("k", grid=1, block=1024, args=[])
    assert refused.value.code == CudaError.INVALID_PTX


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


# Occupancy


@pytest.mark.parametrize("device", DEVICES)
def test_occupancy_is_nvidias(probe, device):
    """Of kernels of every kind, by cuda_occupancy.h; what it refuses, no block of can be resident."""
    probe.runtime.pretend(device)
    limits = DEVICES[device]
    choose = random.Random(device)
    seen = set()
    for _ in range(4000):
        threads = choose.choice([1, 31, 32, 33, 96, 128, 256, 384, 512, 1000, 1024, 1025, choose.randint(1, 1024)])
        registers = choose.choice([0, 1, 16, 24, 32, 33, 40, 64, 65, 80, 96, 128, 255, choose.randint(1, 255)])
        static = choose.choice([0, 1, 1024, 8192, 40000, 48 * KIB])
        most = choose.choice([48 * KIB - static, 100, limits.shared_per_block - static])
        dynamic = choose.choice([0, 16, 1000, 8192, 48 * KIB - static, most, most + 1, choose.randint(1, 30000)])
        barriers = choose.choice([0, 1, 2, 5, 16])
        carveout = choose.choice([-1, -1, 0, 1, 50, 99, 100])
        expected = probe.library.probe_true_occupancy(
            registers, static, most, barriers, carveout, threads, ctypes.c_size_t(dynamic)
        )
        assert expected >= 0
        use = Use(threads, registers, static + dynamic, barriers)
        assert resident_blocks(limits, use, static + most, carveout) == expected, (use, most, carveout)
        seen.add(expected)
    assert {0, 1, 2, 3, 4, limits.blocks_per_multiprocessor} <= seen


def test_occupancy_of_kernels(probe):
    for device in WITH_PTX:
        probe.runtime.pretend(device)
        assert probe.library.probe_set_attribute(DYNAMIC, MAX_DYNAMIC_SHARED, 64 * KIB) == 0
        for function in FUNCTIONS:
            of = probe.attributes(function)
            for threads, shared in ((32, 0), (128, 4000), (1024, 0), (256, 30 * KIB), (96, 64 * KIB)):
                expected = probe.library.probe_true_occupancy(
                    of["registers"], of["shared"], of["most_dynamic"], 1, -1, threads, ctypes.c_size_t(shared)
                )
                assert probe.occupancy(function, threads, shared) == expected
                assert probe.occupancy(function, threads, shared, flags=True) == expected
    assert probe.numbers("probe_occupancy", PLAIN, 0, ctypes.c_size_t(0), 0)[0] == CudaError.INVALID_VALUE


def test_the_best_block_by_the_headers_own_search(probe):
    code, grid, block = probe.numbers("probe_best_block", PLAIN, ctypes.c_size_t(0), count=2)
    assert (code, grid, block) == (0, 2 * 108, 1024)  # 2048 threads on each of an A100's 108 SMs
    code, grid, block = probe.numbers("probe_best_block", BOUNDED, ctypes.c_size_t(0), count=2)
    assert (code, grid, block) == (0, 16 * 108, 128)


# The device


@pytest.mark.parametrize("device", DEVICES)
def test_device_queries(probe, device):
    probe.runtime.pretend(device)
    library, limits = probe.library, DEVICES[device]
    properties = (ctypes.c_char * library.probe_size_of_properties())()
    assert library.probe_properties(0, properties) == 0
    assert device.encode() in library.probe_name(properties)
    assert library.probe_attribute_unlike(properties) == 0
    for attribute, expected in {
        1: limits.threads_per_block,
        8: 48 * KIB,
        10: 32,
        16: limits.multiprocessors,
        39: limits.threads_per_multiprocessor,
        75: limits.compute_capability[0],
        76: limits.compute_capability[1],
        81: limits.shared_per_multiprocessor,
        82: 65536,
        97: limits.shared_per_block,
        106: limits.blocks_per_multiprocessor,
    }.items():
        assert probe.numbers("probe_device_attribute", attribute, 0) == (0, expected), attribute
    assert probe.numbers("probe_device_attribute", 1, 1)[0] == INVALID_DEVICE
    assert library.probe_properties(1, properties) == INVALID_DEVICE
    assert not probe.runtime.take_refusals()
    assert probe.numbers("probe_device_attribute", 13, 0)[0] == CudaError.NOT_SUPPORTED  # a clock
    assert probe.runtime.take_refusals() == [
        "cudaDeviceGetAttribute: attribute 13 is not known of the pretended device"
    ]


def test_devices_and_versions(probe):
    assert probe.numbers("probe_devices", count=2) == (0, 1, 0)
    assert (probe.library.probe_set_device(0), probe.library.probe_set_device(1)) == (0, INVALID_DEVICE)
    code, driver, runtime, header = probe.numbers("probe_versions", count=3)
    assert (code, driver, runtime) == (0, header, header)


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
    path = probe_path("foreign")
    if not path.exists():
        toolkit.build_library(path, compile_probe(), [f"-L{true_runtime().parent}", f"-l:{true_runtime().name}"])
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
