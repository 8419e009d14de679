"""The house's rules: who may know whom, one order in every list, nothing left lying about."""

import ast
import inspect
import re
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

import quaver
from quaver import draw, library, reference
from tests import source_tree
from tests.cases import MODES, normal

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "quaver"

# Which of the package's modules a module may import.
KNOWS = {
    "__main__": {"cli"},
    "qparams": set(),
    "reference": {"qparams"},
    "library": {"_C"},
    "fakes": {"library", "qparams"},
    "out": {"arguments", "fakes", "library", "qparams"},
    "arguments": {"qparams"},
    "direct": {"arguments", "library", "out"},
    "ops": {"arguments", "direct", "out", "qparams"},
    "quant_tool": {"ops", "qparams"},
    "histogram": set(),
    "entropy": {"histogram"},
    "observers": {"arguments", "entropy", "histogram", "ops", "qparams"},
    "module": {"ops", "qparams"},
    "config": {"qparams"},
    "layer": {"nn", "ops", "qparams"},
    "linear": {"nn", "ops", "qparams"},
    "embedding": {"nn", "ops", "qparams"},
    "conv": {"nn", "ops", "qparams"},
    "fake_quant": {"nn", "ops", "qparams"},
    "graph": {"nn"},
    "running": {"graph"},
    "model": {"graph", "nn", "observers", "qparams", "running"},
    "compare": {"graph", "model", "nn", "ops", "running"},
    "tensor_file": set(),
    "restore": {"model", "tensor_file"},
    "compressed_tensors_config": set(),
    "compressed_tensors_layers": {"compressed_tensors_config", "graph", "model", "nn", "qparams", "tensor_file"},
    "compressed_tensors": {"compressed_tensors_config", "compressed_tensors_layers", "nn", "restore", "tensor_file"},
    "onnx_layers": {"nn", "qparams", "reference"},
    "onnx_export": {"library", "nn", "onnx_layers", "tensor_file"},
    "serialization": {"library", "nn", "restore", "tensor_file"},
    "parameters": set(),
    "smoothing": {"graph", "model", "ops", "recipes", "running"},
    "clipping": {"ops", "recipes"},
    "bias": {"graph", "nn", "running"},
    "equalization": {"graph", "model", "recipes"},
    "outliers": {"model", "nn", "running"},
    "fallback": {"compare", "model", "qparams"},
    "sharding": {"library", "qparams"},
    "parallel": {"nn", "sharding"},
    "vmap": {"library"},
    "explain": {"_C"},
    "tuning": {"_C", "explain", "library"},
    "inductor": {"library", "reference"},
    "verify": {"library", "reference"},
    "draw": {"qparams"},
    "selftest": {"draw", "library", "verify"},
    "main": {"VerificationError", "cli"},
    "given": set(),
    "show_info": {"build_info"},
    "run_selftest": {"selftest"},
    "quantize_to_file": {"cli", "nn", "observers"},
    "compare_file": {"cli"},
    "explain_plan": {"explain", "explain_matmul"},
    "time_layers": {"reference"},
}


def files():
    return list(map(ROOT.joinpath, source_tree.names()))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def matching(*patterns):
    """Files whose names fit a pattern; a * also stands for folders."""
    return [path for path in files() if any(fnmatchcase(name_of(path), pattern) for pattern in patterns)]


# C++ and CUDA: what is included, by the files themselves or by what they include.


def includes(path):
    """(names in angle brackets, the project's own files)"""
    text = path.read_text()
    own = re.findall(r'^ *# *include "([^"]+)"', text, re.MULTILINE)
    found = [next(place / name for place in (path.parent, CSRC) if (place / name).is_file()) for name in own]
    return re.findall(r"^ *# *include <([^>]+)>", text, re.MULTILINE), found


def reached(path):
    """Everything that a file includes, directly or not: (names in angle brackets, the project's own files)."""
    outside, own, waiting = set(), set(), [path]
    while waiting:
        names, found = includes(waiting.pop())
        outside.update(names)
        waiting += [header for header in found if header not in own]
        own.update(found)
    return outside, own


def is_torch(name):
    return name.startswith(("torch/", "ATen/", "c10/", "caffe2/", "pybind11/")) or name == "Python.h"


def is_cuda(name):
    return name.startswith(("cuda", "cub/", "cutlass/", "mma.h", "thrust/"))


HEADERS_OF_KERNELS = ("arguments", "arith", "conv2d_problem", "layout", "matmul_problem", "philox", "types")
TORCH_FREE = ("csrc/cuda/*.cu", "csrc/cuda/*.cuh", "csrc/cuda/*.h", "csrc/cpu/kernels/*.h")
TORCH_FREE += tuple(f"csrc/{name}.h" for name in HEADERS_OF_KERNELS)


def is_shared_header(path):
    return path.parent == CSRC and path.suffix == ".h"


def test_kernels_know_no_torch():
    declared = [path for path in matching("csrc/*") if "No torch header" in path.read_text()[:1000]]
    for path in {*matching(*TORCH_FREE), *declared}:
        outside, _ = reached(path)
        assert not any(map(is_torch, outside)), f"{name_of(path)} reaches {sorted(filter(is_torch, outside))}"


def test_one_cuda_file_knows_torch():
    knowing = [path.name for path in matching("csrc/cuda/*") if any(map(is_torch, reached(path)[0]))]
    assert knowing == ["register.cpp"]


def test_cpu_and_cuda_do_not_know_each_other():
    for path in matching("csrc/cpu/*"):
        outside, own = reached(path)
        assert not any(map(is_cuda, outside)), f"{name_of(path)} reaches {sorted(filter(is_cuda, outside))}"
        assert not any("cuda" in header.parts for header in own), name_of(path)
    for path in matching("csrc/cuda/*"):
        assert not any("cpu" in header.parts for header in reached(path)[1]), name_of(path)
    for path in filter(is_shared_header, files()):
        outside, own = reached(path)
        assert not any(map(is_cuda, outside)), f"{name_of(path)} reaches {sorted(filter(is_cuda, outside))}"
        assert not any({"cpu", "cuda"} & set(header.parts) for header in own), name_of(path)


def test_a_source_names_itself_first():
    for path in matching("csrc/*.h", "csrc/*.cpp", "csrc/*.cu", "csrc/*.cuh"):
        assert path.read_text().startswith(f"// {path.name}: "), name_of(path)


def test_headers_are_included_once():
    for path in matching("csrc/*.h", "csrc/*.cuh"):
        assert "\n#pragma once\n" in path.read_text(), name_of(path)


# Python: who imports whom


def imported(path):
    """The modules that a file imports, at its top or anywhere inside."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


MODULES = [path for path in matching("python/quaver/*.py") if path.stem != "__init__"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_know_whom_they_may(path):
    assert path.stem in KNOWS, f"say in KNOWS whom {path.stem} may know"
    known = {name.split(".")[1] for name in imported(path) if name.startswith("quaver.")}
    assert known <= KNOWS[path.stem]


def test_the_reference_knows_nothing_but_torch():
    assert {name.split(".")[0] for name in imported(PACKAGE / "reference.py")} == {"math", "torch", "quaver"}
    assert "torch.ops" not in (PACKAGE / "reference.py").read_text()


def test_the_package_knows_no_tests():
    for path in matching("python/*.py", "building/*.py", "setup.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"tests", "benchmarks", "examples"}, name_of(path)


# What other packages a module may import: quaver needs safetensors; others are asked for inside of functions.
THIRD_PARTY = {
    "tensor_file": {"safetensors"},
    "onnx_export": {"onnx_ir"},
    "model": {"tqdm"},
    "compare": {"matplotlib"},
    "given": {"transformers"},
}


def test_the_package_needs_nothing_but_torch_and_safetensors():
    standard = {"argparse", "collections", "contextlib", "copy", "csv", "ctypes", "dataclasses", "fnmatch", "hashlib"}
    standard |= {
        "importlib",
        "inspect",
        "itertools",
        "json",
        "math",
        "os",
        "pathlib",
        "platform",
        "random",
        "re",
        "statistics",
        "sys",
    }
    standard |= {"functools", "glob", "tempfile", "threading", "time", "warnings"}
    for path in matching("python/quaver/*.py"):
        asked_for = THIRD_PARTY.get(path.stem, set())
        assert {name.split(".")[0] for name in imported(path)} <= {"torch", "quaver", *standard, *asked_for}, name_of(
            path
        )
        for node in ast.parse(path.read_text()).body:
            at_the_top = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            assert not any(name in at_the_top for name in asked_for - {"safetensors"}), name_of(path)


# One order


IMPLEMENTED = r'(?:m\.impl\(|implement<[\w:]+>\(m, )"(\w+)"'  # in C++


def functions_of(path):
    tree = ast.parse(path.read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in library.OPS]


def found_in(path, pattern):
    return re.findall(pattern, path.read_text())


def but_for_the_cpus(names):
    """Those that only the CPU has come last."""
    assert tuple(names[-len(library.CPU_OPS) :]) == library.CPU_OPS
    return names[: -len(library.CPU_OPS)]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("csrc/ops.cpp", but_for_the_cpus(found_in(CSRC / "ops.cpp", r'm\.def\(\s*"(\w+)\('))),
        ("csrc/cuda/register.cpp", found_in(CSRC / "cuda" / "register.cpp", IMPLEMENTED)),
        ("python/quaver/ops.py", functions_of(PACKAGE / "ops.py")),
        ("python/quaver/reference.py", functions_of(PACKAGE / "reference.py")),
        ("python/quaver/fakes.py", functions_of(PACKAGE / "fakes.py")),
        ("fakes' names", but_for_the_cpus(found_in(PACKAGE / "fakes.py", r'register_fake\("quaver::(\w+)"\)'))),
        ("quaver.draw.CALLS", draw.CALLS),
    ],
)
def test_every_list_has_the_ops_in_one_order(where, names):
    assert tuple(names) == library.OPS


@pytest.mark.parametrize(
    ("where", "pattern"),
    [
        ("csrc/cuda/launch.h", r"\blaunch_(\w+)\("),
        ("csrc/cpu/matmul.cpp", IMPLEMENTED),
        ("csrc/cpu/ops.h", r"\b(\w+)_cpu\("),
        ("csrc/cpu/fake_quantize.cpp", IMPLEMENTED),
    ],
)
def test_parts_of_the_list_keep_its_order(where, pattern):
    names = [name for name in found_in(ROOT / where, pattern) if name in library.OPS]
    assert names == [name for name in library.OPS if name in names] != []


# Numbers


def test_the_reference_divides_by_no_number():
    """On CUDA, torch divides by a Python number by multiplying with its reciprocal."""
    for node in ast.walk(ast.parse((PACKAGE / "reference.py").read_text())):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            divisor = node.right if isinstance(node, ast.BinOp) else node.value
            makes_tensor = isinstance(divisor, ast.Call) and divisor.func.id in ("float32", "for_each_element")
            assert isinstance(divisor, ast.Name) or makes_tensor, ast.unparse(node)
        if isinstance(node, ast.Attribute):
            assert not re.fullmatch(r"(true_)?div(ide)?_?|reciprocal_?", node.attr), ast.unparse(node)


class WatchDivisions(TorchFunctionMode):
    """Counts divisions whose divisor is a float32 tensor beside the dividend, and refuses others."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if "div" in function.__name__:
            dividend, divisor = args
            assert isinstance(divisor, torch.Tensor), f"{function.__name__} by {divisor!r}"
            assert (divisor.dtype, divisor.device) == (torch.float32, dividend.device)
            assert dividend.dtype == torch.float32
            self.count += 1
        return function(*args, **(kwargs or {}))


def test_the_reference_divides_by_float32_tensors():
    x = normal(4, 6, dtype=torch.bfloat16)
    with WatchDivisions() as divisions:
        for symmetric in (True, False):
            scale, zero_point = reference.choose_qparams(x, [4, 1], symmetric=symmetric)
            for mode in MODES:
                reference.fake_quantize(x, scale, zero_point, mode=mode)
    assert divisions.count == 13  # 1 + 4 for parameters, 8 for codes


# Texts


def texts():
    for path in files():
        try:
            yield path, path.read_text()
        except UnicodeDecodeError:
            continue


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b(TO[D]O|FIX[M]E|XX[X])\b",
        r"(?<![\w.])/(work|root|tmp|home)\b",
        r"\b(py[p]i|pythonhoste[d]|np[m]js|crate[s]|conda|anaconda|ghc[r]|quay|docker)\.(org|com|io)\b",
        r"(?i)\b(extra-)?index[-_]url\b",
    ],
)
def test_nothing_of_one_machine_or_one_day_stays(pattern):
    for path, text in texts():
        found = re.search(pattern, text)
        assert not found, f"{name_of(path)} has {found.group()!r}"


def test_file_names_say_what_is_inside():
    for path in files():
        words = set(re.split(r"[/_.\-]", name_of(path).lower()))
        assert not words & {"util", "utils", "common", "helper", "helpers", "misc", "fast", "v2"}, name_of(path)


def test_links_lead_somewhere():
    for path in matching("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if not re.match(r"[a-z]+:|#", target):
                assert (path.parent / target.split("#")[0]).exists(), f"{name_of(path)} links to {target}"


def test_files_that_are_named_exist():
    """In prose and comments a path of this project, such as csrc/arith.h or tests/cases.py."""
    for path, text in texts():
        for named in re.findall(r"(?<![\w/])(?:csrc|python|tests|benchmarks|examples)/[\w/]+\.\w+\b", text):
            assert (ROOT / named).exists(), f"{name_of(path)} names {named}"


def test_public_functions_show_an_example():
    public = [getattr(quaver, name) for name in quaver.__all__]
    for thing in chain(filter(inspect.isfunction, public), filter(inspect.isclass, public)):
        assert thing.__doc__, thing.__name__
        if inspect.isfunction(thing):
            assert ">>> " in thing.__doc__, f"{thing.__name__} has no doctest"
    assert quaver.__all__ == sorted(quaver.__all__)


def test_the_changelog_knows_version_and_ops():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", text, re.MULTILINE).group(1) == quaver.__version__
    for name in quaver.__all__:
        if inspect.isfunction(getattr(quaver, name)) and name != "build_info":
            assert f"`{name}`" in text, f"the changelog does not name {name}"
