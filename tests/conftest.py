"""Tests that belong to other commands than `make test`.

`--deep` runs those that take more time or memory than every change can spend: `make test-deep`. `--wheel PATH` runs
those of a wheel that is installed: `make test-wheel`. `--gpu cuda` runs those that need a GPU: `make gpu-test`.
"""

# Programs that need triton, in a folder that must not be searched for modules: one of them has the name of a package.
collect_ignore = ["emulator/triton"]


def pytest_addoption(parser):
    parser.addoption("--deep", action="store_true", help="also run the tests marked deep")
    parser.addoption("--gpu", metavar="DEVICE", help="also run the tests marked gpu, on this device")
    parser.addoption("--wheel", help="also run the tests marked wheel, on this file, which must be what is installed")


def pytest_configure(config):
    config.addinivalue_line("markers", "deep: takes minutes or gigabytes; runs with --deep")
    config.addinivalue_line("markers", "gpu: needs a GPU; runs with --gpu")
    config.addinivalue_line("markers", "wheel: of a wheel that is installed; runs with --wheel")


def pytest_collection_modifyitems(config, items):
    """Leaves those tests out of the run altogether: they are not skipped, they belong to another command."""
    others = [option for option in ("deep", "gpu", "wheel") if not config.getoption(f"--{option}")]

    def belongs_here(item):
        return not any(item.get_closest_marker(option) for option in others)

    config.hook.pytest_deselected(items=[item for item in items if not belongs_here(item)])
    items[:] = filter(belongs_here, items)
