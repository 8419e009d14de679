"""A plugin of pytest: of each test function one case, since a run under sanitizers takes many times as long.

Which one differs from function to function, so that together they have every type, mode and layout.
"""

from itertools import groupby


def pytest_collection_modifyitems(config, items):
    functions = [list(cases) for _, cases in groupby(items, key=lambda item: item.nodeid.split("[")[0])]
    kept = [cases[number % len(cases)] for number, cases in enumerate(functions)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
