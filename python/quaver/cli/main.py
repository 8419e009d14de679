"""Which commands there are, and what becomes of errors: words and a status, 1 for a check that failed, 2 for input."""

import argparse
import sys

from quaver import VerificationError
from quaver.cli import compare_file, explain_plan, quantize_to_file, run_selftest, show_info, time_layers

COMMANDS = {
    "info": show_info,
    "selftest": run_selftest,
    "quantize": quantize_to_file,
    "compare": compare_file,
    "explain": explain_plan,
    "bench": time_layers,
}
FAILED, BAD_INPUT = 1, 2
SPEAKING = (ValueError, TypeError, OSError, ImportError, AttributeError, RuntimeError)  # for themselves


def parser():
    """Of the whole command line. Each command's own module says what it takes."""
    whole = argparse.ArgumentParser(
        prog="quaver",
        description="int8 quantization for PyTorch, the same bits on every backend.",
        epilog="`quaver COMMAND --help` tells more of a command. The status is 0, 1 where a check has failed, or 2 for "
        "what cannot be done with what was given.",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        first, *_ = module.__doc__.splitlines()
        command = commands.add_parser(
            name,
            help=first[0].lower() + first[1:].rstrip("."),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        module.add_arguments(command)
    return whole


def main(arguments=None):
    """Runs one command and gives its status."""
    chosen = parser().parse_args(arguments)
    try:
        return COMMANDS[chosen.command].run(chosen) or 0
    except VerificationError as error:
        return _said(chosen.command, error, FAILED)
    except Exception as error:  # a user's model and data may raise anything
        words = error if isinstance(error, SPEAKING) and str(error) else f"{type(error).__name__}: {error}"
        return _said(chosen.command, words, BAD_INPUT)
    except KeyboardInterrupt:
        return _said(chosen.command, "interrupted", 130)


def _said(command, words, status):
    print(f"quaver {command}: {words}", file=sys.stderr)
    return status
