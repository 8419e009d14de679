"""What ptxas made of the CUDA kernels, read out of the shipped library: which kernels, for which GPUs, with what.

This needs no GPU and runs no kernel.
"""

import importlib.util
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

import quaver

KERNELS = (
    "reduce_along_kernel",
    "reduce_across_kernel",
    "quantize_kernel",
    "quantize_stochastic_kernel",
    "dynamic_quantize_kernel",
    "rms_norm_quantize_kernel",
    "silu_mul_quantize_kernel",
    "matmul_simt_kernel",
    "requantize_rows_kernel",
    "requantize_elements_kernel",
    "dequantize_kernel",
    "fake_quantize_kernel",
    "fake_quantize_mask_kernel",
)

if not quaver.build_info()["cuda"]:
    pytest.skip(f"no CUDA kernels: {quaver.build_info()['cuda_unavailable_reason']}", allow_module_level=True)

LIBRARY = importlib.util.find_spec("quaver._C_cuda").origin
CUOBJDUMP = Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin", "cuobjdump")
# Such as " Function NAME:\n  REG:46 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:872 ..."
FUNCTION = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@pytest.fixture(scope="module")
def resources():
    """ptxas's report: {(architecture, mangled name): (registers, stack, shared, local)}, in bytes but for the first."""
    dump = subprocess.run([CUOBJDUMP, "-res-usage", LIBRARY], capture_output=True, text=True, check=True).stdout
    report = {}
    for part in dump.split("Fatbin elf code:")[1:]:
        architecture = re.search(r"arch = (sm_\w+)", part).group(1)
        for name, *numbers in FUNCTION.findall(part):
            report[architecture, name] = tuple(map(int, numbers))
    return report


def machine_architectures():
    return {"sm_" + name.removesuffix("+PTX").replace(".", "") for name in quaver.build_info()["cuda_architectures"]}


def test_every_kernel_is_compiled_for_every_architecture(resources):
    for architecture in machine_architectures():
        names = [name for built_for, name in resources if built_for == architecture]
        for kernel in KERNELS:
            assert any(kernel in name for name in names), f"{kernel} is missing for {architecture}"
    assert {architecture for architecture, _ in resources} == machine_architectures()


def test_no_kernel_is_missing_from_the_list_above(resources):
    for _, name in resources:
        assert any(kernel in name for kernel in KERNELS), f"{name} is in the library, but not in KERNELS"


def test_nothing_spills(resources):
    """A spill would show as a stack frame or as local memory."""
    spilling = {where: used for where, used in resources.items() if used[1] > 0 or used[3] > 0}
    assert not spilling, f"(registers, stack, shared, local) of what spills: {spilling}"


def test_two_blocks_of_256_threads_fit_a_multiprocessor(resources):
    """A multiprocessor has 65,536 registers: one block waits at a barrier while the other computes."""
    greedy = {where: used[0] for where, used in resources.items() if used[0] > 65536 // (2 * 256)}
    assert not greedy, f"registers: {greedy}"


def test_ptx_is_there_for_later_gpus():
    dump = subprocess.run([CUOBJDUMP, "-lptx", LIBRARY], capture_output=True, text=True, check=True).stdout
    wanted = {name for name in quaver.build_info()["cuda_architectures"] if name.endswith("+PTX")}
    for name in wanted:
        assert "sm_" + name.removesuffix("+PTX").replace(".", "") in dump
