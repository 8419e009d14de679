"""Python with the sanitizers in it, and quaver compiled for them."""

import os
import re
import subprocess
import sys

from tests import rebuilt

from . import build

OPTIONS = (
    "detect_leaks=0",  # Python and torch keep what they have until the end
    "allocator_may_return_null=1",  # what asks for too much memory is refused, as without the sanitizers
    "protect_shadow_gap=0",  # where there is CUDA, its driver puts memory there
)


def run(*arguments, folder, **environment):
    """`python *arguments`, which imports quaver from `folder`, as build.package gives it."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=rebuilt.ROOT,
        env={**os.environ, **_sanitized(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def report(done):
    """What a process said in the end: a sanitizer's report from where it begins, and as much as tells the place."""
    said = done.stdout + done.stderr
    found = re.search(r"^.*(ERROR: AddressSanitizer|AddressSanitizer: CHECK failed|: runtime error: )", said, re.M)
    return said[found.start() :][:4000] if found else said[-4000:]


def _sanitized(folder):
    """The sanitizer takes malloc's place if it comes first, and that of throwing if what throws is there already."""
    libraries = build.linked(rebuilt.library(folder))
    return {
        "LD_PRELOAD": f"{libraries['libasan']} {libraries['libstdc++']}",
        "ASAN_OPTIONS": ":".join(OPTIONS),
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": rebuilt.import_path(folder),
    }
