"""Libraries that do the same work, each of which may be missing: then the reports name it with the reason."""

import importlib
from functools import cache

absent = {}  # {name: why}
failed = {}  # {(name, what it was asked): why}: it is there and does not do this


@cache
def find(module):
    """The module, or None."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library that is broken here says so in its own way
        absent[module] = reason(error)
        return None


def reason(error):
    """One line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def attempt(name, what, make):
    """What `make` gives, or None where the library cannot do it, and the report says why."""
    try:
        return make()
    except Exception as error:  # as above
        failed[name, what] = reason(error)
        return None
