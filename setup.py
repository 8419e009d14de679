"""Builds quaver's two libraries on the LibTorch stable ABI.

`quaver._C` holds the op schemas and the CPU kernels; `quaver._C_cuda` holds the CUDA kernels, their launchers and their
registration. The second is built when an nvcc is found and QUAVER_CUDA is not 0; neither needs a GPU, nor a torch that
was built for CUDA. MAX_JOBS says how many compilers run at once; QUAVER_CXX_FLAGS has more for the C++ compiler, which
overrule what is here.
"""

import os
import re
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))
from building import jobs, toolkit  # noqa: E402

STABLE_ABI = "0x020d000000000000"  # torch 2.13
STABLE_ABI_LIBRARIES = ["torch_cpu"]  # every torch has it; none of torch's CUDA libraries is needed
PYTHON_ABI = "0x030A0000"  # Python 3.10
# Machine code for these, and PTX where a later GPU could need it.
ARCHITECTURES = "7.5+PTX;8.0+PTX;8.6;8.9;9.0+PTX;10.0+PTX;12.0+PTX"

# Objects stay here: another build compiles what has changed, and the emulator links those that are shipped.
OBJECTS = "build/objects"

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


def architecture_flags(architectures):
    """Machine code with no PTX of its own is made from that of an older GPU of its family, if there is any: sooner."""
    made_of = {}
    for name in sorted(architectures.replace(" ", ";").split(";"), key=lambda name: int(re.sub(r"\D", "", name))):
        code = name.removesuffix("+PTX").replace(".", "")
        family = [ptx for ptx, codes in made_of.items() if ptx[:-1] == code[:-1] and f"compute_{ptx}" in codes]
        ptx = code if name.endswith("+PTX") or not family else family[-1]
        made_of.setdefault(ptx, []).extend([f"sm_{code}"] + ([f"compute_{code}"] if name.endswith("+PTX") else []))
    return [f"-gencode=arch=compute_{ptx},code=[{','.join(codes)}]" for ptx, codes in made_of.items()]


def packaging_flags(release):
    """The same kernels in a tenth of the space, where nvcc can."""
    return ["--compress-mode=size"] if int(release.split(".")[0]) >= 13 else []


def cxx_flags():
    """Those above, and those of the environment, which overrule them."""
    return [*CXX_FLAGS, *os.environ.get("QUAVER_CXX_FLAGS", "").split(), *DEFINES]


def cpu_extension(cpp_extension, built_with):
    extension = cpp_extension.CppExtension(
        "quaver._C",
        sources("csrc/ops.cpp", "csrc/cpu/*.cpp"),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={"cxx": [*cxx_flags(), *built_with]},
        py_limited_api=True,
    )
    extension.libraries = STABLE_ABI_LIBRARIES
    return extension


def cuda_extension(cpp_extension, cuda, architectures):
    cpp_extension.CUDA_HOME = cuda.home
    extension = cpp_extension.CUDAExtension(
        "quaver._C_cuda",
        sources("csrc/cuda/*.cpp", "csrc/cuda/*.cu"),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={
            "cxx": cxx_flags(),
            "nvcc": [*NVCC_FLAGS, *packaging_flags(cuda.release), *architecture_flags(architectures)],
        },
        # The runtime is linked in, so that the library loads beside a torch without CUDA as well.
        extra_link_args=["-l:libcudart_static.a", "-lrt", "-lpthread", "-ldl"],
        py_limited_api=True,
    )
    extension.libraries = STABLE_ABI_LIBRARIES
    return extension


def extensions(torch, cpp_extension):
    built_with = [f'-DQUAVER_TORCH_VERSION="{torch.__version__}"']
    cuda = toolkit.choose(torch.version.cuda)
    if cuda is None:
        print(f"quaver: no CUDA kernels will be built (torch's CUDA: {torch.version.cuda})", file=sys.stderr)
        return [cpu_extension(cpp_extension, built_with)]
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHITECTURES
    built_with += [f'-DQUAVER_NVCC_VERSION="{cuda.release}"', f'-DQUAVER_CUDA_ARCHITECTURES="{architectures}"']
    return [cpu_extension(cpp_extension, built_with), cuda_extension(cpp_extension, cuda, architectures)]


def forget_old_kernels():
    """Beside a torch without CUDA, its build does not see that a header of the kernels has changed."""
    headers = [path for pattern in ("csrc/*.h", "csrc/cuda/*.h", "csrc/cuda/*.cuh") for path in ROOT.glob(pattern)]
    newest = max(path.stat().st_mtime for path in headers)
    for made in (ROOT / OBJECTS).glob("csrc/cuda/*.o"):
        if made.stat().st_mtime < newest:
            made.unlink()


def build_command(cpp_extension):
    """torch's, which leaves an editable install's objects where those of other builds are."""

    class BuildExtension(cpp_extension.BuildExtension):
        def run(self):
            if self.editable_mode:
                self.build_temp = OBJECTS
            super().run()

    return BuildExtension


def prefer_own_ninja():
    """The one beside Python, on PATH or not, and always the same one: it compiles anew what another has compiled."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def what_is_compiled():
    """setup()'s arguments that need torch; a source distribution is made without it."""
    import torch
    from torch.utils import cpp_extension

    prefer_own_ninja()
    os.environ.setdefault("MAX_JOBS", str(jobs.compile_jobs()))
    forget_old_kernels()
    return {
        "ext_modules": extensions(torch, cpp_extension),
        "cmdclass": {"build_ext": build_command(cpp_extension)},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}, "build_ext": {"build_temp": OBJECTS}},
    }


setup(
    extras_require={"nvcc": toolkit.PACKAGES},
    **({} if sys.argv[1:2] == ["sdist"] else what_is_compiled()),
)
