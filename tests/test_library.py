"""What was built, what is loaded, and what CUDA calls say where its kernels cannot serve."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import quaver
from quaver import library

ROOT = Path(__file__).parent.parent

# In a process of its own: what `import quaver` sees of the machine, and then what its ops say.
PREAMBLE = """
import importlib.machinery, importlib.util, json, sys
import torch

def pretend_built_with(nvcc):
    folder = list(importlib.util.find_spec("quaver").submodule_search_locations)
    spec = importlib.machinery.PathFinder.find_spec("quaver._C", folder)
    _C = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(_C)
    _C.built_with_nvcc = nvcc
    sys.modules["quaver._C"] = _C

class BrokenLibrary:
    def find_spec(self, name, path=None, target=None):
        if name == "quaver._C_cuda":
            raise ImportError("boom")
"""
REPORT = """
import quaver
from tests.test_errors import ACCEPTED, call, made

def words(name):
    op = getattr(torch.ops.quaver, name).default
    try:
        op.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), **made(ACCEPTED[name]))
    except RuntimeError as error:
        return str(error)

for name in quaver.library.OPS:
    call(name, ACCEPTED[name])  # the CPU serves
assert quaver.quantize(torch.tensor([0.5, 1.5]), torch.tensor(0.5)).tolist() == [1, 3]
print(json.dumps({"info": quaver.build_info(), "words": {name: words(name) for name in quaver.library.OPS}}))
"""

ABSENT = "quaver was built without its CUDA kernels (no nvcc was found, or QUAVER_CUDA=0)"
MISMATCH = (
    "quaver's CUDA kernels were built with nvcc 13.0.88, this torch uses CUDA 12.8: the major versions must be equal; "
    "rebuild quaver with a CUDA toolkit of torch's major version"
)
ROCM = "quaver's CUDA kernels were built for NVIDIA GPUs, this torch is built for ROCm 6.4"
BROKEN = "quaver's CUDA library did not load: boom"


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_build_info():
    info = quaver.build_info()
    always = ["version", "torch", "torch_built_with", "cpu_capability", "cuda"]
    if info["cuda"]:
        assert list(info) == [*always, "nvcc", "cuda_architectures"]
        assert info["nvcc"].split(".")[0].isdecimal()
        assert all(name.removesuffix("+PTX").replace(".", "").isdecimal() for name in info["cuda_architectures"])
    else:
        assert list(info) == [*always, "cuda_unavailable_reason"]
        assert info["cuda_unavailable_reason"] == library.cuda_unavailable_reason
    assert f'version = "{info["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert info["torch"] == torch.__version__
    assert quaver.__version__ == info["version"]


def test_the_module_prints_what_was_built():
    assert json.loads(run("-m", "quaver", "info", "--json")) == quaver.build_info()


@pytest.mark.parametrize("key", ["CPU", "CUDA", "Meta"])
@pytest.mark.parametrize("name", library.OPS)
def test_every_op_is_there(name, key):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"quaver::{name}", key)


def test_there_are_no_other_ops():
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("quaver::")}
    forms = [f"{name}.out" for name in library.WRITING_OPS]
    assert names == {f"quaver::{name}" for name in (*library.OPS, *library.CPU_OPS, *forms)}


@pytest.mark.parametrize(
    ("torch_cuda", "torch_hip", "nvcc", "words"),
    [
        ("13.0", None, "13.0.88", None),
        ("13.2", None, "13.0.88", None),
        (None, None, "13.0.88", None),  # a torch without CUDA
        ("12.8", None, "13.0.88", MISMATCH),
        ("13.0", None, "12.8.93", MISMATCH.replace("13.0.88", "12.8.93").replace("CUDA 12.8", "CUDA 13.0")),
        (None, "6.4", "13.0.88", ROCM),
    ],
)
def test_cuda_mismatch(torch_cuda, torch_hip, nvcc, words):
    assert library.cuda_mismatch(torch_cuda, torch_hip, nvcc) == words


def test_an_absent_library_says_so(monkeypatch):
    monkeypatch.setattr(library, "_C", SimpleNamespace(built_with_nvcc=""))
    assert library._load_cuda() == ABSENT


def test_a_missing_file_says_so(monkeypatch):
    monkeypatch.setattr(library, "_C", SimpleNamespace(built_with_nvcc="13.0.88"))
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setitem(sys.modules, "quaver._C_cuda", None)
    assert library._load_cuda().startswith("quaver's CUDA library did not load: ")


@pytest.mark.parametrize(
    ("pretence", "reason"),
    [
        ('pretend_built_with("")', ABSENT),
        ('pretend_built_with("13.0.88"); torch.version.cuda = "12.8"', MISMATCH),
        ('pretend_built_with("13.0.88"); torch.version.cuda = None; sys.meta_path.insert(0, BrokenLibrary())', BROKEN),
    ],
    ids=["absent", "for another CUDA", "broken"],
)
def test_without_its_kernels_every_cuda_op_says_why(pretence, reason):
    report = json.loads(run("-c", PREAMBLE + pretence + REPORT))
    assert report["info"]["cuda"] is False
    assert report["info"]["cuda_unavailable_reason"] == reason
    assert report["words"] == {name: f"quaver::{name}: no CUDA implementation: {reason}" for name in library.OPS}
