"""The source distribution, what a build asks for, which nvcc it takes and how many compilers it runs."""

import os
import re
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest

from building import backend, jobs, toolkit
from tests import source_tree

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()


# The source distribution


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Made of a fresh copy, by a Python whose torch cannot be imported: {name inside: bytes}."""
    copy = source_tree.copy_to(tmp_path_factory.mktemp("copy"))
    no_torch = tmp_path_factory.mktemp("no_torch")
    (no_torch / "torch.py").write_text("raise RuntimeError('a source distribution needs no torch')")
    command = [sys.executable, "-c", "from building import backend; backend.build_sdist('dist')"]
    environment = {**os.environ, "PYTHONPATH": str(no_torch)}
    subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=True)
    (made,) = (copy / "dist").iterdir()
    with tarfile.open(made) as opened:
        return {
            member.name.split("/", 1)[1]: opened.extractfile(member).read()
            for member in opened.getmembers()
            if member.isfile()
        }


def test_the_sdist_holds_what_git_holds(sdist):
    """But for what begins with a dot, and with what setuptools says of it."""
    kept = {name for name in source_tree.names() if not name.startswith(".")}
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in sdist if "quaver.egg-info" not in name} == kept | made


def test_the_sdist_has_everything_that_is_compiled(sdist):
    for name in source_tree.names():
        if name.startswith(("csrc/", "building/")) or name in ("setup.py", "pyproject.toml", "LICENSE"):
            assert sdist[name] == (ROOT / name).read_bytes(), name


# Metadata


def test_metadata():
    about = metadata.metadata("quaver")
    assert about["Name"] == "quaver"
    assert f'version = "{about["Version"]}"' in PYPROJECT
    assert about["License-Expression"] == "Apache-2.0"
    assert about["License-File"] == "LICENSE"
    assert about["Requires-Python"] == ">=3.10"


def test_the_oldest_torch_is_said_once():
    assert f'dependencies = ["{backend.TORCH}", "safetensors>=0.8"]' in PYPROJECT
    major, minor = backend.OLDEST_TORCH
    assert f'STABLE_ABI = "0x{major:02x}{minor:02x}000000000000"' in (ROOT / "setup.py").read_text()


# What the build asks for


def install_torch(folder, version, cuda=None):
    about = folder / f"torch-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    (folder / "torch").mkdir()
    (folder / "torch" / "version.py").write_text(
        f"__version__ = '{version}'\ndebug = False\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
    )


def make_nvcc(folder, release):
    """A program that says what an nvcc of that release says."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        "#!/bin/sh\n"
        f'case "$1" in --version) echo "Cuda compilation tools, release x, V{release}";; '
        f'--dryrun) echo "#$ TOP={folder}/bin/.." >&2;; esac\n'
    )
    nvcc.chmod(0o755)
    return str(nvcc)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with neither torch nor nvcc: a folder to install packages into, and one that is on PATH."""
    for name in ("CUDA_HOME", "CUDA_PATH", "QUAVER_CUDA"):
        monkeypatch.delenv(name, raising=False)
    packages, tools = tmp_path / "packages", tmp_path / "tools"
    packages.mkdir()
    monkeypatch.setenv("PATH", f"{tools}/bin")
    monkeypatch.setattr(sys, "path", [str(packages)])
    monkeypatch.setattr(backend, "_folders_around", lambda: [str(packages)])
    return packages, tools


ALONE = ["torch>=2.13"]
NVCC = toolkit.PACKAGES


@pytest.mark.parametrize(
    ("torch", "cuda", "nvcc", "asked", "wanted"),
    [
        (None, None, None, None, ALONE),
        ("2.12.1", None, None, None, ALONE),
        ("2.13.0+cpu", None, None, None, []),
        ("2.13.0a0+git1234567", None, None, None, []),
        ("3.0.0", None, None, None, []),
        ("2.14.1", "13.0", None, None, NVCC),
        ("2.14.1", "13.0", None, "0", []),
        ("2.14.1", "13.0", "13.1.80", None, []),
        ("2.14.1", "13.0", "12.8.93", None, NVCC),  # of another major version
        ("2.14.1", "13.0", "11.8.89", None, NVCC),  # too old
        ("2.14.1", "12.8", None, None, []),  # the packages cannot serve it
        ("2.14.1", "12.8", "12.8.93", None, []),
        ("2.13.0+cpu", None, None, "1", NVCC),
        ("2.13.0+cpu", None, "12.8.93", "1", []),
        (None, None, None, "1", ALONE + NVCC),
        (None, None, None, "0", ALONE),
    ],
)
def test_what_a_build_asks_for(machine, monkeypatch, torch, cuda, nvcc, asked, wanted):
    packages, tools = machine
    if torch:
        install_torch(packages, torch, cuda)
    if nvcc:
        make_nvcc(tools, nvcc)
    if asked:
        monkeypatch.setenv("QUAVER_CUDA", asked)
    assert backend.get_requires_for_build_wheel() == wanted
    assert backend.get_requires_for_build_editable() == wanted
    assert backend.get_requires_for_build_sdist() == []


def test_torch_is_looked_for_around_the_build_last(machine, monkeypatch):
    packages, _ = machine
    monkeypatch.setattr(sys, "path", ["the build's own"])
    monkeypatch.setattr(backend.util, "find_spec", lambda name: None)
    backend._see_torch()
    assert sys.path == ["the build's own", str(packages)]
    monkeypatch.setattr(backend.util, "find_spec", lambda name: "found")
    sys.path.remove(str(packages))
    backend._see_torch()
    assert sys.path == ["the build's own"]


# Which nvcc


def test_no_nvcc_leaves_cuda_out_unless_asked_for(machine, monkeypatch):
    assert toolkit.choose(None) is None
    assert toolkit.choose("13.0") is None
    monkeypatch.setenv("QUAVER_CUDA", "1")
    with pytest.raises(RuntimeError, match="QUAVER_CUDA=1 asks for the CUDA library, but no nvcc was found on PATH"):
        toolkit.choose(None)


@pytest.mark.parametrize("release", ["12.8.61", "13.0.88", "14.2.1"])
def test_nvcc_on_path(machine, release):
    _, tools = machine
    nvcc = make_nvcc(tools, release)
    assert toolkit.choose(None) == toolkit.Toolkit(nvcc, str(tools), release)


def test_cuda_home_is_an_order(machine, monkeypatch, tmp_path):
    packages, tools = machine
    make_nvcc(tools, "13.0.88")
    nvcc = make_nvcc(tmp_path / "other", "12.9.41")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "other"))
    assert toolkit.choose(None).nvcc == nvcc
    (tmp_path / "other" / "bin" / "nvcc").unlink()
    make_nvcc(packages / "nvidia" / "cu13", "13.0.88")
    assert toolkit.choose(None) is None


def test_an_old_nvcc_is_refused_with_what_to_do(machine):
    _, tools = machine
    nvcc = make_nvcc(tools, "11.8.89")
    with pytest.raises(RuntimeError) as refused:
        toolkit.choose(None)
    assert str(refused.value) == (
        f"quaver's CUDA kernels need nvcc 12.8 or newer, but {nvcc} is 11.8.89. Point CUDA_HOME to another toolkit, "
        f"or install nvcc as Python packages ({', '.join(toolkit.PACKAGES)}), or leave the CUDA kernels out with "
        "QUAVER_CUDA=0"
    )


def test_an_old_nvcc_stops_setup(tmp_path):
    make_nvcc(tmp_path, "11.8.89")
    environment = {**os.environ, "CUDA_HOME": str(tmp_path)}
    environment.pop("QUAVER_CUDA", None)
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "RuntimeError: quaver's CUDA kernels need nvcc 12.8 or newer" in done.stderr


@pytest.mark.parametrize("release", ["12.7.99", "12.0.1", "11.8.89", "9.2.148"])
def test_old_releases(machine, monkeypatch, release):
    _, tools = machine
    make_nvcc(tools, release)
    with pytest.raises(RuntimeError, match=re.escape(f"is {release}")):
        toolkit.choose(None)
    monkeypatch.setenv("QUAVER_CUDA", "0")
    assert toolkit.choose(None) is None


def test_another_major_version_is_refused(machine):
    _, tools = machine
    nvcc = make_nvcc(tools, "12.8.93")
    assert toolkit.choose("12.9").nvcc == nvcc
    with pytest.raises(RuntimeError, match=r"this torch uses CUDA 13\.0, but .* is 12\.8\.93: the major versions must"):
        toolkit.choose("13.0")


@pytest.mark.parametrize("on_path", [None, "11.8.89", "12.8.93"])
def test_nvcc_among_the_packages(machine, on_path):
    packages, tools = machine
    if on_path:
        make_nvcc(tools, on_path)
    nvcc = make_nvcc(packages / "nvidia" / "cu13", "13.0.88")
    assert toolkit.choose("13.0") == toolkit.Toolkit(nvcc, str(packages / "nvidia" / "cu13"), "13.0.88")


# How many compilers


@pytest.mark.parametrize(
    ("cores", "gibibytes", "wanted"), [(2, 23, 2), (64, 7.5, 7), (4, 0.2, 1), (1, 8, 1), (8, float("inf"), 8)]
)
def test_compile_jobs(monkeypatch, cores, gibibytes, wanted):
    monkeypatch.setattr(jobs, "_cores", lambda: cores)
    monkeypatch.setattr(jobs, "available_bytes", lambda: gibibytes * 2**30)
    assert jobs.compile_jobs() == wanted


def test_compile_jobs_here():
    assert 1 <= jobs.compile_jobs() <= (os.cpu_count() or 1)
    assert jobs.available_bytes() > 0


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, float("inf")),
        ({"memory.max": "max\n", "memory.current": "5\n"}, float("inf")),
        ({"memory.max": "5000\n", "memory.current": "2000\n"}, 3000),
        ({"memory/memory.limit_in_bytes": "900\n", "memory/memory.usage_in_bytes": "200\n"}, 700),
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable:    2 kB\n"}, 2048),
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable: 2 kB\n", "memory.max": "50\n", "memory.current": "20\n"}, 30),
    ],
)
def test_available_memory(tmp_path, files, wanted):
    for name, text in files.items():
        write(tmp_path / name, text)
    assert jobs.available_bytes(tmp_path / "meminfo", tmp_path) == wanted
