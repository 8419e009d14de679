"""Fills the page on the API with every public name of quaver, stage by stage, so that none has to be entered by hand.

It reads the package's sources and imports nothing of it: the pages can be made where quaver is not built.
"""

import ast
import re
import shutil
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "python" / "quaver"
DOCUMENTED = Path(__file__).parents[2] / "build" / "documented" / "quaver"
PAGE = "api.md"
PLACE = "<!-- every public name -->"

# Headings and the names below them, as module.name; the first that fits. Names that fit none stand under what their
# module says of itself.
STAGES = {
    "Parameters": r"qparams\.\w+|ops\.\w*qparams\w*",
    "Models in files": r"(serialization|compressed_tensors|onnx_export)\.\w+",
    "Layers and models": r"(nn|model|compare)\.\w+|ops\.\w*(linear|conv2d)\w*",
    "The product": r"ops\.\w*matmul\w*",
    "Back to real numbers": r"ops\.dequantize",
    "Codes": r"ops\.\w*quantize\w*",
}
ORDER = ["Parameters", "Codes", "The product", "Back to real numbers", "Layers and models", "Models in files"]


def on_startup(command, dirty):
    """Lays the package out without its stub, in which a function hides the module of its name."""
    shutil.rmtree(DOCUMENTED, ignore_errors=True)
    shutil.copytree(PACKAGE, DOCUMENTED, ignore=shutil.ignore_patterns("*.pyi", "*.so", "__pycache__"))


def on_page_markdown(markdown, page, config, files):
    """mkdocs calls this for every page."""
    return markdown.replace(PLACE, public_names()) if page.file.src_uri == PAGE else markdown


def public_names():
    """The page's body, in Markdown."""
    homes, public = _read_init()
    sections = {heading: [] for heading in ORDER}
    for name in sorted(public, key=lambda name: _place(name, homes[name])):
        sections.setdefault(_heading(name, homes[name]), []).append(name)
    return "\n\n".join(
        f"## {heading}\n\n" + "\n\n".join(_entry(name, homes[name]) for name in names)
        for heading, names in sections.items()
        if names
    )


def _read_init():
    """({name: the module that defines it, or None for a module}, the names in __all__)"""
    homes, public = {}, []
    for node in _tree("__init__").body:
        if isinstance(node, ast.ImportFrom):
            home = None if node.module == "quaver" else node.module.removeprefix("quaver.")
            homes |= {alias.name: home for alias in node.names}
        elif isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            public = ast.literal_eval(node.value)
    return homes, public


def _tree(module):
    file = PACKAGE / f"{module}.py"
    return ast.parse((file if file.exists() else PACKAGE / module / "__init__.py").read_text())


def _place(name, home):
    """Names come in their modules' order, modules last."""
    if home is None:
        return (1, name, 0)
    lines = [node.lineno for node in _tree(home).body if getattr(node, "name", None) == name]
    return (0, home, *lines)


def _heading(name, home):
    if home is None:
        return "Modules"
    fitting = (heading for heading, pattern in STAGES.items() if re.fullmatch(pattern, f"{home}.{name}"))
    return next(fitting, None) or ast.get_docstring(_tree(home)).splitlines()[0].rstrip(".")


def _entry(name, home):
    return (
        f"::: quaver.{name}"
        if home is None
        else f"::: quaver.{home}.{name}\n    options:\n      heading: quaver.{name}"
    )
