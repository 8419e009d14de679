"""The command `quaver`: what was built, whether it is right here, and models from float to int8."""

from quaver.cli.main import main

__all__ = ["main"]
