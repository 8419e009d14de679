"""Counts, and tells what has changed."""

import argparse

from tests import callgrind

parser = argparse.ArgumentParser(prog="python -m tests.callgrind", description=callgrind.__doc__.splitlines()[0])
parser.add_argument("--keep", action="store_true", help="write counts.csv anew")
chosen = parser.parse_args()
if callgrind.objection():
    parser.exit(2, f"{callgrind.objection()}\n")
before, compiler = callgrind.kept() if callgrind.COUNTS.exists() else ({}, None)
if compiler != callgrind.compiler():
    before = {}
now = callgrind.count_all()
for (job, capability), number in now.items():
    change = f"{number / before[job, capability] - 1:+.2%}" if (job, capability) in before else "new"
    print(f"{job:<44} {capability:<10} {number:>12,}  {change}")
if chosen.keep:
    callgrind.keep(now)
