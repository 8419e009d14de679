"""A W8A8 checkpoint in the layout of compressed-tensors, which vLLM and transformers read: written and loaded again.

python examples/compressed_checkpoint.py
"""

import json
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open

import quaver


def main():
    """Prints what is in the checkpoint, and whether the loaded model is the one that was saved."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 16)).eval()
    int8 = quaver.quantize_model(model)
    with tempfile.TemporaryDirectory() as folder:
        quaver.save_compressed_tensors(int8, folder)
        for path in sorted(Path(folder).iterdir()):
            print(path.name)
        config = json.loads(Path(folder, "config.json").read_text())["quantization_config"]
        print(f"format {config['format']}, {config['quant_method']}")
        with safe_open(Path(folder, "model.safetensors"), "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                tensor = file.get_tensor(name)
                print(f"  {name:<16} {str(tensor.dtype).removeprefix('torch.'):<8} {list(tensor.shape)}")
        loaded = quaver.load_compressed_tensors(folder, model)
    x = torch.randn(5, 64)
    same = torch.equal(loaded(x), int8(x))
    print(f"the loaded model gives the same bits: {same}")
    assert same


if __name__ == "__main__":
    main()
