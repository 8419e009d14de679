"""The wheel: what it holds, what it needs, and that it is what runs here. `make test-wheel` gives it by --wheel."""

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

import quaver
from tests import source_tree

pytestmark = pytest.mark.wheel
ROOT = Path(__file__).parent.parent
LARGEST = 15_000_000


@pytest.fixture
def path(request):
    return Path(request.config.getoption("--wheel"))


@pytest.fixture
def wheel(path):
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_it_serves_every_python_from_3_10(path):
    assert re.fullmatch(rf"quaver-{re.escape(quaver.__version__)}-cp310-abi3-linux_\w+\.whl", path.name)


def test_its_files(wheel):
    """The package's files as git lists them, the two libraries, and what describes them."""
    package = {name.removeprefix("python/") for name in source_tree.names() if name.startswith("python/quaver/")}
    about = f"quaver-{quaver.__version__}.dist-info"
    described = {
        f"{about}/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
    }
    libraries = {"quaver/_C.abi3.so", "quaver/_C_cuda.abi3.so"}
    assert set(wheel.namelist()) == package | libraries | described


def test_its_size(path):
    assert path.stat().st_size < LARGEST


def test_it_is_what_runs_here(wheel):
    here = Path(quaver.__file__).parent
    assert ROOT / "python" not in here.parents
    for name in wheel.namelist():
        if name.startswith("quaver/"):
            assert (here.parent / name).read_bytes() == wheel.read(name), name


def test_both_libraries_are_loaded():
    info = quaver.build_info()
    assert info["cuda"], info
    assert info["torch_built_with"].startswith("2.13."), "the wheel is to be built with the oldest torch that it serves"


@pytest.mark.parametrize("library", ["_C", "_C_cuda"])
def test_the_libraries_need_only_what_is_stable(library):
    """Of torch its C functions, none of its C++ ones, and no CUDA library at all."""
    path = Path(quaver.__file__).parent / f"{library}.abi3.so"
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[([\w+-]+)\.so", dynamic))
    assert "libtorch_cpu" in needed
    assert needed <= {
        "libtorch_cpu",
        "libstdc++",
        "libm",
        "libgcc_s",
        "libc",
        "librt",
        "libpthread",
        "libdl",
        "ld-linux-x86-64",
    }
    undefined = subprocess.run(
        ["nm", "-D", "--undefined-only", path], capture_output=True, text=True, check=True
    ).stdout
    of_torch = [line.split()[-1] for line in undefined.splitlines() if re.search(r"_ZNK?(2at|3c10|5torch)", line)]
    assert of_torch == []


def test_what_it_asks_for(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    asked = re.findall(r"^Requires-Dist: (.*)$", wheel.read(name).decode(), re.MULTILINE)
    needed = [line for line in asked if "extra ==" not in line]
    assert needed == ["torch>=2.13", "safetensors>=0.8"]
    assert all('extra == "nvcc"' in line for line in asked[len(needed) :])
