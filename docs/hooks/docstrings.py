"""Turns quaver's docstrings, which are written to be read as plain text, into Markdown for the pages on the API."""

import inspect
import re

SECTION = re.compile(r"(Arguments|Returns|Raises|Source): *(.*)")
ITEM = re.compile(r"(\*{0,2}\w+(?:, \w+)*): (.*)")

try:
    from griffe import Extension
except ImportError:  # the tests look at `markdown` alone
    Extension = object


class PlainDocstrings(Extension):
    """griffe, which reads the sources for mkdocstrings, calls this for every function, class and module."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring):
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    return "\n\n".join(map(_block, blocks))


def _block(block):
    if block.startswith(">>> "):
        return f"```pycon\n{block}\n```"
    section = SECTION.match(block)
    if section:
        return _section(*section.groups(), inspect.cleandoc(block[section.end() :]).splitlines())
    if re.search(r"^ |\S  +\S", block, re.MULTILINE):  # columns: a formula
        return f"```text\n{block}\n```"
    return block


def _section(title, rest, lines):
    """Text first, then an item for each argument; what stands further in goes on with what is above it."""
    parts = [f"**{title}:** {rest}".rstrip()]
    for line in lines:
        item = ITEM.match(line) if title == "Arguments" else None
        if item:
            parts.append(f"- `{item.group(1)}`: {item.group(2)}")
        else:
            parts[-1] += f" {line.strip()}"
    items = "\n".join(parts[1:])
    return f"{parts[0]}\n\n{items}" if items else parts[0]
