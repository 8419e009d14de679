"""`pip install .` in one command, in environments made for it: beside a torch, without one, editable, without an nvcc.

These take minutes: `make test-deep`.
"""

import json
import os
import re
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from tests import source_tree

pytestmark = pytest.mark.deep
ROOT = Path(__file__).parent.parent
TORCH = next(
    line for line in (ROOT / "requirements" / "build.txt").read_text().splitlines() if line.startswith("torch==")
)
TORCH_WITH_CUDA = ROOT / "build" / "torch-2.14.1" / "bin" / "python"  # made by `make test-wheel`


def run(*command, **environment):
    """(what it printed, what it said beside that: pip says there what it brings for a build)"""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        list(map(str, command)), env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout, done.stderr


def brought(package, said):
    """Whether pip brought a package into the build's environment."""
    return re.search(rf"^ *Successfully installed (.* )?{package}-\d", said, re.MULTILINE) is not None


@pytest.fixture
def source(tmp_path):
    return source_tree.copy_to(tmp_path / "source")


@pytest.fixture
def python(tmp_path):
    """A Python with pip and nothing else."""
    venv.create(tmp_path / "environment", with_pip=True)
    return tmp_path / "environment" / "bin" / "python"


def built(python):
    """What quaver says of itself there, after a word with the reference."""
    run(
        python,
        "-c",
        "import torch, quaver; x = torch.randn(5, 8); p = quaver.choose_qparams(x);"
        "assert torch.equal(quaver.quantize(x, p), quaver.reference.quantize(x, p.scale))",
    )
    return json.loads(run(python, "-m", "quaver", "info", "--json")[0])


def test_beside_a_torch(python, source):
    """That torch is built with, and none is brought; then the same, editable."""
    run(python, "-m", "pip", "install", TORCH)
    _, said = run(python, "-m", "pip", "install", "--verbose", source, QUAVER_CUDA="0")
    assert brought("setuptools", said)
    assert not brought("torch", said)
    info = built(python)
    assert info["torch_built_with"] == info["torch"]
    assert info["cuda"] is False

    _, said = run(python, "-m", "pip", "install", "--verbose", "--editable", source, QUAVER_CUDA="0")
    assert not brought("torch", said)
    where = run(python, "-c", "import quaver; print(quaver.__file__)")[0].strip()
    assert Path(where) == source / "python" / "quaver" / "__init__.py"
    assert built(python) == info


def test_without_a_torch(python, source, tmp_path):
    """The build asks for one. It may be any that is new enough; the pin keeps the download small."""
    pin = tmp_path / "pin.txt"
    pin.write_text(TORCH)
    _, said = run(
        python,
        "-m",
        "pip",
        "install",
        "--verbose",
        source,
        QUAVER_CUDA="0",
        PIP_CONSTRAINT=str(pin),
        PIP_BUILD_CONSTRAINT=str(pin),
    )
    assert brought("torch", said)
    assert built(python)["torch"].startswith(TORCH.removeprefix("torch=="))


def test_without_an_nvcc(source, tmp_path):
    """Where torch has CUDA the build asks for nvcc as packages, and both libraries are compiled with that."""
    assert TORCH_WITH_CUDA.exists(), "`make test-wheel` makes the environment that this test looks at"
    no_nvcc = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "nvcc").exists()]
    _, said = run(
        TORCH_WITH_CUDA,
        "-m",
        "pip",
        "wheel",
        "--verbose",
        "--no-deps",
        "--wheel-dir",
        tmp_path,
        source,
        PATH=":".join(no_nvcc),
        TORCH_CUDA_ARCH_LIST="9.0",
    )
    assert brought("nvidia-cuda-nvcc", said)
    assert not brought("torch", said)
    (wheel,) = tmp_path.glob("quaver-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        assert {"quaver/_C.abi3.so", "quaver/_C_cuda.abi3.so"} <= set(opened.namelist())
