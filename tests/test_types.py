"""The stub tells type checkers what the package's functions are: all of them, as they are."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quaver

PACKAGE = Path(quaver.__file__).parent
STUB = ast.parse((PACKAGE / "__init__.pyi").read_text())
NN_STUB = ast.parse((PACKAGE / "nn" / "__init__.pyi").read_text())

# With what a type checker must say of a line.
SAMPLE = """
import torch

import quaver

x = torch.zeros(2, 3)
params = quaver.choose_qparams(x, quaver.PerChannel(0))
reveal_type(params)  # reveal: "quaver.qparams.QuantizationParams"
reveal_type(quaver.dynamic_quantize(x))  # reveal: "tuple[torch._tensor.Tensor, quaver.qparams.QuantizationParams]"
q, _, row_sum = quaver.dynamic_quantize(x, quaver.PerGroup(3), return_row_sum=True)
reveal_type(row_sum)  # reveal: "torch._tensor.Tensor"
reveal_type(quaver.int8_matmul_dequantize(q, q.t(), params, 0.5))  # error: incompatible type "float"
quaver.quantize([1.0], params)  # error: incompatible type "list[float]"
quaver.quantize(x, params, q_mni=3)  # error: Unexpected keyword argument "q_mni"
quaver.choose_qparams(x, "per_tensor")  # error: incompatible type "str"
quaver.choose_qparams(x, quaver.PerChannel("a"))  # error: incompatible type "str"
quaver.nothing(x)  # error: has no attribute "nothing"
layer = quaver.QuantLinear.from_float(torch.nn.Linear(3, 4))
reveal_type(layer(x))  # reveal: "torch._tensor.Tensor"
reveal_type(quaver.quantize_model(torch.nn.Sequential()))  # reveal: "torch.nn.modules.module.Module"
quaver.quantize_model(layer, symmetric=False)  # error: Unexpected keyword argument "symmetric"
reveal_type(quaver.nn.FakeQuantLinear(3, 4).to_int8().input)  # reveal: "quaver.qparams.QuantizationParams | None"
with quaver.verify(), quaver.backend("reference"):
    quaver.selftest(1.5, device="cpu")
quaver.backend("cuda")  # error: incompatible type "Literal['cuda']"
"""


def stub_functions(body, prefix=""):
    """(name, its definition) of every function of the stub, methods too; one with overloads comes several times."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from stub_functions(node.body, f"{prefix}{node.name}.")


def declared(node):
    """A stub's parameters as inspect would give them: (name, kind, default as text or None)."""
    arguments = node.args
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = [
        (argument, inspect.Parameter.POSITIONAL_OR_KEYWORD, d) for argument, d in zip(positional, defaults, strict=True)
    ]
    pairs += [
        (argument, inspect.Parameter.KEYWORD_ONLY, default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return [(argument.arg, kind, default and ast.unparse(default)) for argument, kind, default in pairs]


def actual(function):
    for parameter in inspect.signature(function).parameters.values():
        has_default = parameter.default is not inspect.Parameter.empty
        yield parameter.name, parameter.kind, repr(parameter.default) if has_default else None


@pytest.mark.parametrize(
    ("name", "node"),
    [
        pytest.param(name, node, id=name)
        for stub, prefix in ((STUB, ""), (NN_STUB, "nn."))
        for name, node in stub_functions(stub.body, prefix)
    ],
)
def test_parameters_are_the_functions_own(name, node):
    function = quaver
    for part in name.split("."):
        function = (
            vars(function)[part] if inspect.isclass(function) and part in vars(function) else getattr(function, part)
        )
    if name.endswith("__call__"):
        assert [argument for argument, *_ in declared(node)] == ["self", "input"]  # torch's: what forward takes
        return
    if isinstance(function, property):
        assert declared(node) == [("self", inspect.Parameter.POSITIONAL_OR_KEYWORD, None)]
        return
    function = function.__func__ if isinstance(function, classmethod) else function
    found = declared(node)
    expected = list(actual(function))
    assert [(argument, kind) for argument, kind, _ in found] == [(argument, kind) for argument, kind, _ in expected]
    for (argument, _, default), (_, _, true) in zip(found, expected, strict=True):
        if default is None and argument in ("return_row_sum", "residual"):
            continue  # an overload for those who give it
        assert (default is None) == (true is None), f"{argument} of {name}"
        assert default in (true, "...", None), f"the default of {argument} of {name}"


def test_every_public_name_is_declared():
    names = {alias.asname for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {node.name for node in STUB.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert names - {None} == set(quaver.__all__), "the stub python/quaver/__init__.pyi and __all__ differ"
    assert {node.name for node in NN_STUB.body if isinstance(node, ast.ClassDef)} == set(quaver.nn.__all__)


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.deep
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed: requirements/test.txt")
def test_a_type_checker_sees_what_it_should(tmp_path):
    """In half a minute: mypy reads torch."""
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", tmp_path / "cache", path]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {}
    for number, kind, words in re.findall(r"sample\.py:(\d+): (error|note): (.*)", said):
        found.setdefault(int(number), []).append((kind, words))
    for number, line in enumerate(SAMPLE.splitlines(), start=1):
        wanted = re.search(r"# (reveal|error): (.*)", line)
        kinds = [kind for kind, _ in found.get(number, [])]
        if wanted is None:
            assert "error" not in kinds, f"{line}: {found[number]}"
            continue
        kind = {"reveal": "note", "error": "error"}[wanted.group(1)]
        assert any(k == kind and wanted.group(2) in words for k, words in found.get(number, [])), f"{line}: {said}"
