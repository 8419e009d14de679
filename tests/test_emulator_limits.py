"""What a pretended device holds: registers, occupancy, limits, as NVIDIA's own cuda_occupancy.h and ptxas have them."""

import ctypes
import random
import shutil

import numpy as np
import pytest

if shutil.which("nvcc") is None:
    pytest.skip("the stand-in runtime serves what nvcc makes, and there is no nvcc", allow_module_level=True)

from tests.emulator import DEVICES, LaunchError, Module, build, toolkit
from tests.emulator.devices import KIB, CudaError, Use, resident_blocks
from tests.emulator.runtime import MAX_DYNAMIC_SHARED
from tests.emulator.runtime_probe import BOUNDED, DYNAMIC, FUNCTIONS, PLAIN, Probe, probe_library

INVALID_DEVICE = 101
WITH_PTX = [name for name in DEVICES if name != "sm_75"]  # the probe has PTX for sm_80 and sm_90


@pytest.fixture(scope="module")
def built():
    return Probe(probe_library())


@pytest.fixture
def probe(built):
    """On an A100, as if no kernel had been touched."""
    built.reset()
    return built


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


def test_ptxas_is_asked_once_for_each_text_and_architecture(monkeypatch, tmp_path):
    asked = []

    def answer(text, architecture):
        asked.append((text, architecture))
        return f"""ptxas info    : Compiling entry function 'first' for '{architecture}'
ptxas info    : Function properties for first
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used {architecture[3:]} registers, used 2 barriers, 512 bytes smem
ptxas info    : Compiling entry function 'second' for '{architecture}'
ptxas info    : Used 8 registers
"""

    monkeypatch.setattr(toolkit, "_ask", answer)
    monkeypatch.setattr(build, "CACHE", tmp_path)
    for _ in range(2):
        for architecture in ("sm_80", "sm_90"):
            found = toolkit.resources("the text", architecture)
            registers = int(architecture[3:])
            assert found == {"first": toolkit.Resources(registers, 2, 8), "second": toolkit.Resources(8, 0, 0)}
    assert asked == [("the text", "sm_80"), ("the text", "sm_90")]
    toolkit.resources("another", "sm_80")
    assert len(asked) == 3
    monkeypatch.setattr(toolkit, "ptxas", lambda: None)
    assert toolkit.resources("the text", "sm_80") is None


def test_ptx_that_ptxas_refuses():
    """PTX of version 3.0 knew no sm_80."""
    good = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { ret; }\n"
    assert Module.from_ptx(good).launch("k", grid=1, block=1024, args=[]).ok
    with pytest.raises(LaunchError, match=r"ptxas refuses the PTX: .*3\.0") as refused:
        Module.from_ptx(good.replace("8.0", "3.0")).launch("k", grid=1, block=1024, args=[])
    assert refused.value.code == CudaError.INVALID_PTX


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


@pytest.mark.parametrize("device", DEVICES)
def test_the_threads_that_fit_are_nvidias(probe, device):
    """A block is as large as its registers allow exactly where cuda_occupancy.h still has one of it resident."""
    probe.runtime.pretend(device)
    for registers in range(1, 256):
        fitting = DEVICES[device].threads_that_fit(registers)
        for threads in {*range(96, 1025, 96), fitting, min(fitting + 1, 1024)}:
            true = probe.library.probe_true_occupancy(registers, 0, 0, 1, -1, threads, ctypes.c_size_t(0))
            assert (true > 0) == (threads <= fitting), (registers, threads)


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
