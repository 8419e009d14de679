"""The project's files as git knows them: what a fresh clone would hold, copied somewhere else."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def names():
    """Every file that is kept or is about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(name for name in listed if (ROOT / name).is_file())


def copy_to(folder):
    for name in names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder
