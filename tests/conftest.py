"""`--deep` runs the tests that take more time or memory than every change can spend: `make test-deep`."""


def pytest_addoption(parser):
    parser.addoption("--deep", action="store_true", help="also run the tests marked deep")


def pytest_configure(config):
    config.addinivalue_line("markers", "deep: takes minutes or gigabytes; runs with --deep")


def pytest_collection_modifyitems(config, items):
    """Leaves deep tests out of the run altogether: they are not skipped, they belong to another command."""
    if config.getoption("--deep"):
        return
    deep = [item for item in items if item.get_closest_marker("deep")]
    config.hook.pytest_deselected(items=deep)
    items[:] = [item for item in items if not item.get_closest_marker("deep")]
