"""The pages: every public name is on one, docstrings become Markdown, links are looked at. `make docs` builds them."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import quaver

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MKDOCS = (ROOT / "mkdocs.yml").read_text()


def hook(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api_page, docstrings, links = map(hook, ("api_page", "docstrings", "links"))


def test_every_public_name_is_documented_once():
    entries = re.findall(r"^::: (\S+)", api_page.public_names(), re.MULTILINE)
    assert sorted(entry.split(".")[-1] for entry in entries) == quaver.__all__
    for entry in entries:
        home, name = entry.rsplit(".", 1)
        thing = getattr(importlib.import_module(home), name)
        assert thing is getattr(quaver, name)
        assert inspect.getdoc(thing), entry


def test_the_page_follows_the_datas_way():
    page = api_page.public_names()
    headings = re.findall(r"^## (.*)", page, re.MULTILINE)
    assert headings[: len(api_page.ORDER)] == api_page.ORDER
    assert len(set(headings)) == len(headings)
    stage = {}
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("::: "):
            stage[line.split(".")[-1]] = heading
    assert stage["choose_qparams"] == stage["PerToken"] == stage["QuantizationParams"] == "Parameters"
    assert stage["quantize"] == stage["dynamic_quantize"] == "Codes"
    assert stage["int8_matmul_requantize"] == "The product"
    assert stage["dequantize"] == "Back to real numbers"
    assert stage["QuantLinear"] == stage["int8_linear"] == stage["int8_conv2d"] == "Layers and models"
    assert stage["save"] == stage["load_compressed_tensors"] == "Models in files"
    assert stage["reference"] == "Modules"


def test_the_page_has_a_place_for_them():
    assert api_page.PLACE in (DOCS / api_page.PAGE).read_text()


def test_every_page_is_in_the_menu():
    pages = {path.name for path in DOCS.glob("*.md")}
    assert set(re.findall(r"^ +- [^:]+: (\S+\.md)$", MKDOCS, re.MULTILINE)) == pages


def test_texts_that_live_elsewhere_are_there():
    held = {path.name: re.findall(r'^--8<-- "(.*)"$', path.read_text(), re.MULTILINE) for path in DOCS.glob("*.md")}
    assert held["numerics.md"] == ["csrc/ARITHMETIC.md"]
    assert held["emulator.md"] == ["tests/emulator/README.md"]
    for names in held.values():
        assert all((ROOT / name).is_file() for name in names)


def test_every_row_of_the_migration_table_has_a_proof():
    """Each row links to a section of its own, and each section has an example that asks whether something is True."""
    text = (DOCS / "migration.md").read_text()
    sections = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"): body
        for title, body in re.findall(r"^### (.*)\n((?:(?!##).*\n)*)", text, re.MULTILINE)
    }
    rows = re.findall(r"^\| .*?\]\(#([\w-]+)\)", text, re.MULTILINE)
    assert rows == list(sections)
    for body in sections.values():
        assert ">>> " in body
        assert "True" in body


# Docstrings

DOCSTRING = """One line: with x * y.

    low:   a + b,   more
    high:  a - b

    Arguments: those of another, and
        x: float32 [M, K], any
            strides.
        q_min, q_max: codes.

    Returns:
        (q, params): codes
        in x's shape.

    Source: equation (2).

    >>> 1 + 1
    2
    """
MARKDOWN = """One line: with x * y.

```text
low:   a + b,   more
high:  a - b
```

**Arguments:** those of another, and

- `x`: float32 [M, K], any strides.
- `q_min, q_max`: codes.

**Returns:** (q, params): codes in x's shape.

**Source:** equation (2).

```pycon
>>> 1 + 1
2
```"""


def test_docstrings_become_markdown():
    assert docstrings.markdown(DOCSTRING) == MARKDOWN


def words(text):
    return re.findall(r"\w+", text.replace("```text", "").replace("```pycon", ""))


@pytest.mark.parametrize("name", quaver.__all__)
def test_no_word_of_a_docstring_is_lost(name):
    docstring = inspect.getdoc(getattr(quaver, name))
    assert words(docstrings.markdown(docstring)) == words(docstring)


# Links


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("b.html", False),
        ("b.html#here", False),
        ("b.html#nowhere", True),
        ("#top", False),
        ("#below", True),
        ("c.html", True),
        ("folder/", False),
        ("style.css", False),
        ("../outside.html", True),
        ("https://example.org/page", False),
    ],
)
def test_links_are_looked_at(tmp_path, link, dead):
    site = tmp_path / "site"
    (site / "folder").mkdir(parents=True)
    (site / "a.html").write_text(f'<h1 id="top">a</h1><a href="{link}">to</a>')
    (site / "b.html").write_text('<p id="here">b</p>')
    (site / "folder" / "index.html").write_text("<p>c</p>")
    (site / "style.css").write_text("")
    found, leading_out = links.check(site)
    assert found == ([f"a.html: {link}"] if dead else [])
    assert leading_out == ([link] if "://" in link else [])
