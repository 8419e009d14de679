"""The texts: an encyclopaedia's article to measure with, Python's documentation to calibrate with."""

import hashlib
import importlib.util
import re
from pathlib import Path

from examples.sentence_encoder import plain_sentences, plain_text

# Shakespeare's article in the Encyclopaedia Britannica, 11th edition, from the package shakespeare 0.6.
ARTICLE_SHA256 = "d73c37c56dd1c0e3390b4e4e13043e7498b55c42c1577c55a9ec03fa3038f72a"


def need(package):
    """A package's folder; the package itself need not be one that can be imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"the accuracy tables need the package {package}: `make accuracy` installs it")
    return Path(next(iter(spec.submodule_search_locations)))


def sha256(text):
    """Of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def article():
    """The article's paragraphs: its lines without those about scans and pages, and words whole that lines divide."""
    text = (need("shksprdata") / "ancillary" / "britannica-11th.txt").read_text(errors="strict")
    found = sha256(text)
    if found != ARTICLE_SHA256:
        raise ValueError(f"the article must have the SHA-256 {ARTICLE_SHA256}, got {found}")
    lines = [line for line in text.splitlines() if not re.match(r"#|p\.\d+:\d+\s*$", line)]
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    joined = (" ".join(re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", each).split()) for each in paragraphs)
    return [each for each in joined if len(each.split()) > 5]


def sentences(count):
    """(`count` plain sentences: the article's, then some of Python's documentation; the documentation's others)"""
    found = [*plain_sentences(article()), *plain_text()]
    if len(found) <= count:
        raise ValueError(f"there are {len(found)} plain sentences, and more than {count} are wanted")
    return found[:count], found[count:]
