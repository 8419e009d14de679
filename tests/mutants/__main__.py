"""python -m tests.mutants: every mutant, how many were seen, and each survivor with its line of PTX and its source."""

import argparse
import time

from . import operators, report, runner, subjects


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--kernel", default="", help="kernels whose names contain this")
    parser.add_argument("--operator", choices=operators.NAMES, action="append", help="may be given again; default: all")
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth mutant")
    parser.add_argument("--workers", type=int, help="processes; default: 2")
    parser.add_argument("--all", action="store_true", help="print survivors that are explained, too")
    options = parser.parse_args()
    start = time.monotonic()
    everything = [*subjects.triton_subjects(), *([] if options.kernel.startswith("triton") else subjects.op_subjects())]
    chosen = [subject for subject in everything if options.kernel in subject.name]
    if not chosen:
        parser.error(f"no kernel has {options.kernel!r} in its name: {', '.join(each.name for each in everything)}")
    outcomes = runner.run(chosen, options.operator, options.every, options.workers)
    judged = report.judge(outcomes, chosen)
    print(report.table(judged))
    for each in judged:
        if each.verdict == "open" or (options.all and each.outcome.survived):
            print(report.describe(each))
    print(report.summary(judged), f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
