"""The examples run, and print what a reader should see."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

# {file: what must be among its lines}; sentence_encoder.py is `make demo`.
SEEN = {
    "drop_in_ops.py": ["QuantLinear"],
    "conv_net.py": ["(0): QuantConv2d(1, 16,", "accuracy: float 9", "(output)"],
    "train_digits.py": ["the trained network and its int8 form give the same bits: True"],
    "tensor_parallel.py": ["process 0 holds weights [[512, 256], [256, 512]]; the bits of one process: True"],
    "compressed_checkpoint.py": ["model.safetensors", "the loaded model gives the same bits: True"],
}
SHARED = {"digits.py", "sentence_encoder.py"}


def test_every_example_is_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == SEEN.keys() | SHARED


@pytest.mark.deep
@pytest.mark.parametrize("name", SEEN)
def test_it_prints_what_a_reader_should_see(name):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", EXAMPLES / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in SEEN[name]:
        assert words in done.stdout
