"""What was built, and what it runs on here."""

import json
import os
import platform

import torch

from quaver import build_info


def add_arguments(command):
    """It takes none of its own."""


def run(chosen):
    """Prints it."""
    facts = build_info()
    if chosen.json:
        print(json.dumps(facts, indent=2))
        return
    cuda = ", ".join(facts["cuda_architectures"]) if facts["cuda"] else f"no: {facts['cuda_unavailable_reason']}"
    lines = {
        "quaver": facts["version"],
        "torch": f"{facts['torch']}, built with {facts['torch_built_with']}",
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "CPU kernels": f"{facts['cpu_capability']}, on {os.cpu_count()} cores with {torch.get_num_threads()} threads",
        "CUDA kernels": cuda,
        "GPUs": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))) or "none",
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:<{width}}  {text}")
