"""The command `quaver`: what it prints, its status, its words for what it cannot do. As a process, and from inside."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest
import torch

import quaver
from quaver.cli import main
from tests.cases import needed

MODELS = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from neighbour import NUMBER


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


net = Net()


def batches():
    return [torch.randn(5, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


number = 3
none = []


def wrong_shape():
    return [torch.zeros(2, 3)]


@dataclass
class Held:
    value: int = 1
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "neighbour.py").write_text("NUMBER = 1\n")
    (tmp_path / "broken.py").write_text("def\n")
    return tmp_path


def call(*arguments, folder=None, status=0):
    """What `quaver ...` prints: (stdout, stderr)."""
    out, error = io.StringIO(), io.StringIO()
    threads, before = torch.get_num_threads(), os.getcwd()
    os.chdir(folder or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            assert status_of(arguments) == status, error.getvalue()
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
        for name in ("models", "neighbour", "broken"):
            sys.modules.pop(name, None)
        sys.path[:] = [each for each in sys.path if not folder or each != str(folder)]
    return out.getvalue(), error.getvalue()


def status_of(arguments):
    try:
        return main(list(map(str, arguments)))
    except SystemExit as stop:  # of argparse
        return stop.code or 0


def call_process(*arguments, folder=None, status=0):
    """The same in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "quaver", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_help_names_every_command_and_each_has_its_own():
    whole, _ = call("--help")
    for command in ("info", "selftest", "quantize", "compare", "explain", "bench"):
        assert f"  {command} " in whole
    text, _ = call("quantize", "--help")
    assert "quaver quantize models.py:encoder encoder.safetensors" in text
    assert "--calibration DATA" in text


def test_info():
    assert json.loads(call_process("info", "--json")[0]) == quaver.build_info()
    text, _ = call("info")
    for word in (quaver.__version__, torch.__version__, quaver.build_info()["cpu_capability"]):
        assert word in text


def test_selftest():
    rows = json.loads(call("selftest", "--seconds", 0.1, "--device", "cpu", "--json")[0])
    assert {row["op"] for row in rows} >= {"quantize", "int8_linear"}
    assert all(row["failure"] is None and row["cases"] > 0 for row in rows)
    assert "same bits" in call("selftest", "--seconds", 0.1, "--device", "cpu")[0]


def test_explain():
    plans = json.loads(call("explain", 16, 4096, 1024, "--json")[0])
    assert {plan["gpu"] for plan in plans} >= {"A100", "T4"}
    assert all(plan["shape"] == [1, 16, 4096, 1024] and plan["bound"] in ("mem", "mma", "issue") for plan in plans)
    x, weight = (torch.empty(rows, 1024, dtype=torch.int8, device="meta") for rows in (16, 4096))
    expected = quaver.explain_matmul(x, weight.t(), "A100", out_dtype=torch.float16)
    assert call("explain", 16, 4096, 1024, "--gpu", "A100")[0] == f"{expected}\n"


def test_bench():
    rows = json.loads(call("bench", "--shape", 4, 32, 64, "--rounds", 2, "--threads", 1, "--json")[0])
    assert [row["candidate"] for row in rows][:1] == ["float32"]
    assert rows[0]["ratio"] == 1
    assert all(row["shape"] == [4, 32, 64] and row["microseconds"] > 0 for row in rows)
    assert "int8, asymmetric" in call("bench", "--shape", 4, 32, 64, "--rounds", 1)[0]


def loaded(folder, file):
    """(the float model, the int8 one of a file), by Python."""
    scope = {"__name__": "__main__"}
    exec(MODELS.replace("from neighbour import NUMBER", ""), scope)
    return scope["Net"]().eval(), quaver.load(folder / file, scope["Net"]().eval()), scope["batches"]()


def test_quantize_and_compare(folder):
    text, _ = call_process("quantize", "models.py:net", "int8.safetensors", folder=folder)
    assert "2 layers in int8, 0 in float" in text
    model, int8, batches = loaded(folder, "int8.safetensors")
    for batch in batches:
        assert torch.equal(int8(batch), quaver.quantize_model(model)(batch))
    given = ("models:Net", "int8.safetensors", "--data", "models:batches")  # as a module, and a class that makes one
    rows = json.loads(call("compare", *given, "--json", "--csv", "table.csv", folder=folder)[0])
    assert [row["name"] for row in rows] == ["first", "last", "(output)"]
    assert rows == quaver.compare(model, int8, batches).rows
    assert (folder / "table.csv").read_text().startswith("name,sqnr_db,cosine\n")
    assert "(output)" in call("compare", *given, "--least-sqnr", 20, folder=folder)[0]
    call("compare", *given, "--least-sqnr", 90, folder=folder, status=1)


def test_static_with_a_layer_that_stays(folder):
    options = ("--static", "--asymmetric", "--calibration", "models.py:batches", "--observer", "mse")
    facts = json.loads(
        call("quantize", "models.py:net", "int8.safetensors", *options, "--skip", "last", "--json", folder=folder)[0]
    )
    assert (facts["int8_layers"], facts["float_layers"]) == (1, 1)
    model, int8, batches = loaded(folder, "int8.safetensors")
    config = quaver.QuantConfig(
        activations=quaver.PerTensor(), symmetric=False, observer=quaver.observers.MSE, overrides={"last": None}
    )
    expected = quaver.quantize_model(model, config, batches)
    assert torch.equal(int8(batches[0]), expected(batches[0]))


def test_other_formats(folder):
    needed("onnxscript")
    call("quantize", "models.py:net", "out", "--format", "compressed-tensors", folder=folder)
    given = ("models.py:net", "out", "--data", "models.py:batches", "--json")
    rows = json.loads(call("compare", *given, folder=folder)[0])
    assert rows[-1]["sqnr_db"] > 20
    data = ("--calibration", "models.py:batches")
    call("quantize", "models.py:net", "out.onnx", "--format", "onnx", *data, folder=folder)
    assert (folder / "out.onnx").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("models.py", "out"), "MODEL must be MODULE:NAME, FILE.py:NAME or a folder or file that is there"),
        (("missing.py:net", "out"), "there is no file 'missing.py'"),
        (("models.py:other", "out"), "'models.py' has no 'other'"),
        (("nowhere:net", "out"), "No module named 'nowhere'"),
        (("models.py:number", "out"), "'models.py:number' must be a torch.nn.Module or make one, got int"),
        (("models.py:net", "out", "--static"), "--static needs --calibration DATA"),
        (("models.py:net", "out", "--format", "onnx"), "--format onnx needs --calibration DATA"),
        (("models.py:net", "out", "--skip", "no*"), "the pattern 'no*' of overrides matches none of"),
        (("models.py:net", "no/out"), "No such file or directory"),
        ((".", "out"), "the folder '.' has no config.json"),
        (("broken.py:net", "out"), "SyntaxError: invalid syntax"),
        (("models.py:net", "out", "--static", "--calibration", "models.py:none"), "--calibration yields no batch"),
        (("models.py:net", "out", "--static", "--calibration", "models.py:wrong_shape"), "shapes cannot be multiplied"),
        (("models.py:net", "out", "--static", "--calibration", "models.py"), "DATA must be MODULE:NAME"),
    ],
)
def test_what_cannot_be_done_is_said(folder, arguments, words):
    text, error = call("quantize", *arguments, folder=folder, status=2)
    assert text == ""
    assert error.startswith("quaver quantize: ")
    assert words in error
    assert "Traceback" not in error


def test_other_errors_are_said(folder):
    assert "M must be 1 or more, got 0" in call("explain", 0, 1, 1, status=2)[1]
    assert "--rounds must be 1 or more, got 0" in call("bench", "--rounds", 0, status=2)[1]
    assert "--threads must be 1 or more, got 0" in call("bench", "--threads", 0, status=2)[1]
    assert "nonsense" in call("selftest", "--device", "nonsense", status=2)[1]
    assert "seconds must be a positive number" in call("selftest", "--seconds", -1, status=2)[1]
    (folder / "bad.safetensors").write_bytes(b"nothing")
    given = ("models.py:net", "bad.safetensors", "--data", "models.py:batches")
    assert "bad.safetensors" in call("compare", *given, folder=folder, status=2)[1]
    (folder / "lines.txt").write_text("some words\n")
    given = ("models.py:net", "bad.safetensors", "--data", "lines.txt")
    assert (
        "a text file, which only a Hugging Face model can read" in call("compare", *given, folder=folder, status=2)[1]
    )
    assert "invalid choice" in call_process("nothing", status=2)[1]
    if not torch.cuda.is_available():
        assert "torch finds no GPU here" in call("bench", "--device", "cuda", status=2)[1]
