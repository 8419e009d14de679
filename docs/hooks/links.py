"""Looks at every link of the finished pages: one that leads nowhere stops the build; those that lead out are listed.

mkdocs checks the links between pages by itself, but not those inside of what its plugins write. Links to other
sites are not followed: whether they answer is no matter of this project's tests.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LISTED_IN = "external_links.txt"


class Page(HTMLParser):
    """What a page links to, and the names that links can lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {"", "__top"}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.add(attrs.get("id"))
        if tag == "a":
            self.anchors.add(attrs.get("name"))
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]


def on_post_build(config):
    """mkdocs calls this when the pages are written."""
    site = Path(config["site_dir"])
    dead, leading_out = check(site)
    if dead:
        raise SystemExit("these links lead nowhere:\n" + "\n".join(dead))
    (site.parent / LISTED_IN).write_text("".join(f"{link}\n" for link in leading_out))
    print(f"{len(leading_out)} links lead out of the pages and were not followed: {site.parent / LISTED_IN}")


def check(site):
    """(what leads nowhere, with its page; what leads to other sites)"""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    dead, leading_out = [], set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                leading_out.add(link)
            elif not _leads_somewhere(path, parts, pages):
                dead.append(f"{path.relative_to(site.resolve())}: {link}")
    return dead, sorted(leading_out)


def _leads_somewhere(path, parts, pages):
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if target not in pages:
        return target.is_file()
    return unquote(parts.fragment) in pages[target].anchors
