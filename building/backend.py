"""The build backend of pyproject.toml: setuptools', which also sees the torch that is installed around it.

A build runs in an environment of its own, and quaver compiles against torch. Where the environment that quaver goes
into has a torch that will do, that one is used: it is found there and asked for nowhere. Where it has none, the build
asks for one. Where that torch has CUDA and no nvcc is at hand, the build asks for nvcc as well.
"""

import os
import re
import site
import sys
from importlib import metadata, util

from setuptools import build_meta

from building import toolkit

OLDEST_TORCH = (2, 13)
TORCH = f"torch>={'.'.join(map(str, OLDEST_TORCH))}"


def get_requires_for_build_sdist(config_settings=None):
    return []


def get_requires_for_build_wheel(config_settings=None):
    torch = _torch_around()
    return ([] if torch else [TORCH]) + (toolkit.PACKAGES if _needs_packaged_nvcc(torch) else [])


get_requires_for_build_editable = get_requires_for_build_wheel

build_sdist = build_meta.build_sdist


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    _see_torch()
    return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    _see_torch()
    return build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _see_torch()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _see_torch()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def _folders_around():
    """Where the environment that runs this Python keeps its packages; a build kept apart does not look there."""
    folders = site.getsitepackages()
    in_virtual_environment = sys.prefix != sys.base_prefix
    return folders if in_virtual_environment else [*folders, site.getusersitepackages()]


def _torch_around():
    """The metadata of a torch that is installed around the build and new enough, or None."""
    for torch in metadata.distributions(name="torch", path=_folders_around()):
        if tuple(map(int, re.match(r"(\d+)\.(\d+)", torch.version).groups())) >= OLDEST_TORCH:
            return torch
    return None


def _see_torch():
    """Puts the torch around the build behind everything that the build brought itself."""
    if util.find_spec("torch") is None:
        sys.path += [folder for folder in _folders_around() if folder not in sys.path]


def _cuda_of(torch):
    """Such as "13.0", or None: read, since importing it may take what the build does not have."""
    text = torch.locate_file("torch/version.py").read_text()
    found = re.search(r"^cuda\b[^=]*= *'([^']+)'", text, re.MULTILINE)
    return found.group(1) if found else None


def _needs_packaged_nvcc(torch):
    """Whether CUDA kernels are wanted, no nvcc at hand can make them, and the packages' nvcc can."""
    asked = os.environ.get("QUAVER_CUDA")
    cuda = _cuda_of(torch) if torch else None
    if asked == "0" or (asked != "1" and cuda is None) or os.environ.get("CUDA_HOME"):
        return False
    if cuda is not None and int(cuda.split(".")[0]) != toolkit.PACKAGED_MAJOR:
        return False
    return toolkit.find(cuda, [*sys.path, *_folders_around()])[0] is None
