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
from quaver import _C
from quaver.explain import ANY, CHUNKS
from quaver.explain import KERNELS as MATMULS
from tests.emulator.devices import DEVICES, Use, resident_blocks

KERNELS = (
    "reduce_along_kernel",
    "reduce_across_kernel",
    "quantize_kernel",
    "quantize_stochastic_kernel",
    "dynamic_quantize_kernel",
    "rms_norm_quantize_kernel",
    "silu_mul_quantize_kernel",
    "matmul_sm80_kernel",
    "matmul_gemv_kernel",
    "matmul_join_kernel",
    "linear_gemv_kernel",
    "conv2d_sm80_kernel",
    "conv2d_depthwise_kernel",
    "rescale_rows_kernel",
    "rescale_elements_kernel",
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
            registers, stack, shared, local = map(int, numbers)
            # From sm_90 on, a kernel with shared memory is said to have the kilobyte, too, that the system takes.
            if shared and int(architecture.removeprefix("sm_")) >= 90:
                shared -= 1024
            report[architecture, name] = (registers, stack, shared, local)
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
    """A multiprocessor has 65,536 registers: one block waits at a barrier while the other computes.

    The tiles of matmuls and convolutions are larger and hold what the plan says.
    """
    others = {where: used for where, used in resources.items() if "_sm80_kernel" not in where[1]}
    greedy = {where: used[0] for where, used in others.items() if used[0] > 65536 // (2 * 256)}
    assert not greedy, f"registers: {greedy}"


def test_ptx_is_there_for_later_gpus():
    dump = subprocess.run([CUOBJDUMP, "-lptx", LIBRARY], capture_output=True, text=True, check=True).stdout
    wanted = {name for name in quaver.build_info()["cuda_architectures"] if name.endswith("+PTX")}
    for name in wanted:
        assert "sm_" + name.removesuffix("+PTX").replace(".", "") in dump


@pytest.mark.parametrize("architecture", sorted(machine_architectures()))
def test_as_many_blocks_fit_as_the_plan_counts_on(resources, architecture):
    """By ptxas's registers and shared memory, for every kernel of a matmul."""
    device = DEVICES[architecture]
    problems = [(int(architecture[3:]), device.multiprocessors, 16, 64, 64, 1, b, b) for b in (CHUNKS, ANY)]
    counted_on = {kernel: at_once for problem in problems for kernel, _, _, at_once in _C.matmul_plans(problem)}
    seen = set()
    for (built_for, name), (registers, _, shared, _) in resources.items():
        tile = re.search(r"MatmulKernelE(\d)E", name)
        kernel = int(tile.group(1)) if tile else MATMULS.index("gemv") if "matmul_gemv" in name else None
        if built_for != architecture or kernel not in counted_on:
            continue
        rows, columns, stages, warps = _C.matmul_tiles()[kernel]
        use = Use(32 * warps, registers, shared + 64 * stages * (rows + columns))
        assert resident_blocks(device, use, use.shared) >= counted_on[kernel], name
        seen.add(kernel)
    assert seen == set(counted_on)


def test_machine_code_without_ptx_is_made_from_its_familys():
    scope = {"re": re}
    text = (Path(__file__).parents[1] / "setup.py").read_text()
    exec(re.search(r"^def architecture_flags\(.*?(?=^def )", text, re.MULTILINE | re.DOTALL).group(), scope)
    flags = scope["architecture_flags"]
    assert flags("8.9;8.0+PTX;9.0") == [
        "-gencode=arch=compute_80,code=[sm_80,compute_80,sm_89]",
        "-gencode=arch=compute_90,code=[sm_90]",
    ]
    assert flags("8.6 9.0a+PTX 9.0") == [
        "-gencode=arch=compute_86,code=[sm_86]",
        "-gencode=arch=compute_90a,code=[sm_90a,compute_90a]",
        "-gencode=arch=compute_90,code=[sm_90]",
    ]
