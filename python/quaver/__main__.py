"""`python -m quaver` prints what was built; `python -m quaver selftest` compares every op with the reference."""

import argparse
import json
import sys

from quaver import VerificationError, build_info, selftest


def main():
    parser = argparse.ArgumentParser(prog="python -m quaver", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    command = commands.add_parser("selftest", help="compare every op with the reference; exit with 1 on a difference")
    command.add_argument("--seconds", type=float, default=60)
    command.add_argument("--device", help="such as cpu or cuda:1; by default the CPU and every CUDA device")
    command.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print(json.dumps(build_info(), indent=2))
    if chosen.command is None:
        return None
    try:
        return selftest(chosen.seconds, device=chosen.device, seed=chosen.seed)
    except VerificationError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
