"""Models and data that a command line names: Python objects, folders of Hugging Face models, and text files."""

import importlib
import json
import os
import sys
from pathlib import Path

import torch

MODEL = (
    "the float model: MODULE:NAME or FILE.py:NAME of a torch.nn.Module or of a function that makes one, or a folder "
    "with a Hugging Face model (needs the package transformers)"
)
DATA = (
    "MODULE:NAME or FILE.py:NAME of an iterable of what the model is called with, or of a function that makes one; for "
    "a Hugging Face model also a text file, each line of which is a batch of one"
)


def load_model(spec):
    """The float model, in eval mode."""
    model = _hugging_face(spec) if os.path.isdir(spec) else _called(_object(spec, "MODEL"))
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"{spec!r} must be a torch.nn.Module or make one, got {type(model).__name__}")
    return model.eval()


def load_data(spec, model_spec):
    """A list of batches."""
    if os.path.isfile(spec) and not spec.endswith(".py"):
        if not os.path.isdir(model_spec):
            raise ValueError(f"{spec!r} is a text file, which only a Hugging Face model can read: use MODULE:NAME")
        return _tokens(spec, model_spec)
    return list(_called(_object(spec, "DATA")))


def _called(thing):
    return thing() if callable(thing) and not isinstance(thing, torch.nn.Module) else thing


def _object(spec, what):
    """MODULE:NAME or FILE.py:NAME; modules of the current folder are found, too."""
    home, colon, name = spec.rpartition(":")
    if not colon or not home or not name:
        raise ValueError(f"{what} must be MODULE:NAME, FILE.py:NAME or a folder or file that is there, got {spec!r}")
    if home.endswith(".py") and not os.path.isfile(home):
        raise FileNotFoundError(f"there is no file {home!r}")
    folder, module_name = os.path.split(home.removesuffix(".py")) if home.endswith(".py") else ("", home)
    folder = os.path.abspath(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.import_module(module_name)
    if home.endswith(".py") and not os.path.samefile(module.__file__ or "", home):
        raise ValueError(f"{home!r} has the name of another module, {module.__file__}: call it something else")
    if not hasattr(module, name):
        raise AttributeError(f"{home!r} has no {name!r}")
    return getattr(module, name)


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise ModuleNotFoundError(
            "a Hugging Face folder needs the package transformers: pip install transformers"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _hugging_face(folder):
    transformers, path = _transformers(), Path(folder, "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"the folder {folder!r} has no config.json")
    names = json.loads(path.read_text()).get("architectures") or ["AutoModel"]
    kind = getattr(transformers, names[0], transformers.AutoModel)
    return kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32)


def _tokens(file, folder):
    tokenizer = _transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    lines = [line for line in Path(file).read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{file!r} has no lines")
    return [dict(tokenizer(line, return_tensors="pt", truncation=True)) for line in lines]
