"""Builds quaver's two libraries on the LibTorch stable ABI.

`quaver._C` holds the op schemas and the CPU kernels; `quaver._C_cuda` holds the CUDA kernels, their launchers and their
registration. The second is built when an nvcc is found and QUAVER_CUDA is not 0; neither needs a GPU, nor a torch that
was built for CUDA.
"""

import os
import shutil
import subprocess
from pathlib import Path

import torch
from setuptools import setup
from torch.utils import cpp_extension

ROOT = Path(__file__).parent
STABLE_ABI = "0x020d000000000000"  # torch 2.13
STABLE_ABI_LIBRARIES = ["torch_cpu"]  # every torch has it; none of torch's CUDA libraries is needed
PYTHON_ABI = "0x030A0000"  # Python 3.10
# Machine code for these, and PTX where a later GPU could need it.
ARCHITECTURES = "7.5+PTX;8.0+PTX;8.6;8.9;9.0+PTX;10.0+PTX;12.0+PTX"

DEFINES = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}", f"-DPy_LIMITED_API={PYTHON_ABI}"]
# The arithmetic is written out operation by operation: no contraction. The two -fno flags change no value; they let
# selects on floats become vector instructions.
CXX_FLAGS = [
    "-O3",
    "-std=c++20",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-g0",
]
NVCC_FLAGS = ["-O3", "-std=c++20", "-lineinfo", "-Xcompiler=-fvisibility=hidden"]


def sources(*patterns):
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def find_nvcc():
    """The nvcc to build with and its toolkit's folder, or None.

    An nvcc on PATH may be a wrapper script, which says nothing about where the toolkit is: nvcc itself does.
    """
    if os.environ.get("QUAVER_CUDA") == "0":
        return None
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if nvcc is None:
        if os.environ.get("QUAVER_CUDA") == "1":
            raise RuntimeError("QUAVER_CUDA=1 asks for the CUDA library, but no nvcc was found on PATH or in CUDA_HOME")
        return None
    plan = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True, check=False).stderr
    top = next(line.split("TOP=", 1)[1].strip() for line in plan.splitlines() if "TOP=" in line)
    return nvcc, str(Path(top).resolve())


def nvcc_release(nvcc):
    """Such as '13.0.88'."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return text.rsplit(", V", 1)[1].split()[0]


def architecture_flags(architectures):
    flags = []
    for name in architectures.replace(" ", ";").split(";"):
        number = name.removesuffix("+PTX").replace(".", "")
        codes = [f"sm_{number}"] + ([f"compute_{number}"] if name.endswith("+PTX") else [])
        flags += [f"-gencode=arch=compute_{number},code=[{','.join(codes)}]"]
    return flags


def packaging_flags(release):
    """The same kernels in a tenth of the space, where nvcc can."""
    return ["--compress-mode=size"] if int(release.split(".")[0]) >= 13 else []


def cpu_extension(built_with):
    extension = cpp_extension.CppExtension(
        "quaver._C",
        sources("csrc/ops.cpp", "csrc/cpu/*.cpp"),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={"cxx": [*CXX_FLAGS, *DEFINES, *built_with]},
        py_limited_api=True,
    )
    extension.libraries = STABLE_ABI_LIBRARIES
    return extension


def cuda_extension(home, release, architectures):
    cpp_extension.CUDA_HOME = home
    extension = cpp_extension.CUDAExtension(
        "quaver._C_cuda",
        sources("csrc/cuda/*.cpp", "csrc/cuda/*.cu"),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={
            "cxx": [*CXX_FLAGS, *DEFINES],
            "nvcc": [*NVCC_FLAGS, *packaging_flags(release), *architecture_flags(architectures)],
        },
        # The runtime is linked in, so that the library loads beside a torch without CUDA as well.
        extra_link_args=["-l:libcudart_static.a", "-lrt", "-lpthread", "-ldl"],
        py_limited_api=True,
    )
    extension.libraries = STABLE_ABI_LIBRARIES
    return extension


def extensions():
    built_with = [f'-DQUAVER_TORCH_VERSION="{torch.__version__}"']
    found = find_nvcc()
    if found is None:
        return [cpu_extension(built_with)]
    nvcc, home = found
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHITECTURES
    release = nvcc_release(nvcc)
    built_with += [f'-DQUAVER_NVCC_VERSION="{release}"', f'-DQUAVER_CUDA_ARCHITECTURES="{architectures}"']
    return [cpu_extension(built_with), cuda_extension(home, release, architectures)]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": cpp_extension.BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
