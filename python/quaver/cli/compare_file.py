"""Measure how far an int8 model is from the float model it was made of, layer by layer.

    quaver compare models.py:encoder encoder.safetensors --data models.py:batches

SQNR is the power of the float values over that of the differences, in decibels; the cosine is between all of both.
"""

import copy
import json
import math
import os

import quaver
from quaver.cli.given import DATA, MODEL, load_data, load_model


def add_arguments(command):
    """The two models and what to run them on."""
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument(
        "file", metavar="FILE", help="the int8 model: of `quaver quantize`, or a folder of compressed-tensors"
    )
    command.add_argument("--data", metavar="DATA", required=True, help=DATA)
    command.add_argument("--csv", metavar="FILE", help="write the table there, too")
    command.add_argument("--plot", metavar="FILE.png", help="draw it (needs the package matplotlib)")
    command.add_argument("--least-sqnr", metavar="DB", type=float, help="status 1 where the model's result has less")


def run(chosen):
    """Prints a row for each layer, and one for the model's result."""
    model = load_model(chosen.model)
    batches = load_data(chosen.data, chosen.model)
    load = quaver.load_compressed_tensors if os.path.isdir(chosen.file) else quaver.load
    int8 = load(chosen.file, copy.deepcopy(model))
    comparison = quaver.compare(model, int8, batches)
    if chosen.csv is not None:
        comparison.to_csv(chosen.csv)
    if chosen.plot is not None:
        comparison.plot(chosen.plot)
    print(json.dumps(list(map(_in_json, comparison.rows)), indent=2, allow_nan=False) if chosen.json else comparison)
    found = comparison.rows[-1]["sqnr_db"]
    return int(chosen.least_sqnr is not None and not found >= chosen.least_sqnr)


def _in_json(row):
    """With null for what is not finite, such as the SQNR of equal results."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
