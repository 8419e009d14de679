"""The benchmarks of the CPU, and one report of them: `make bench`.

python -m benchmarks [--quick] [--only GROUP ...] [--keep]

Each benchmark runs in a process of its own, for each number of threads, and is kept to as many cores. Rows, notes,
charts and an HTML page go to build/benchmarks; `--keep` also writes this kind of machine's file in benchmarks/results
and the tables that are made of it. With `--only`, what was kept of the other benchmarks stays, and the tables say of
which commits both are. A GPU's are `make gpu-bench`.
"""

import argparse
import json
import subprocess
import sys
import time

from benchmarks import machine, report, rows

GROUPS = ("elementwise", "matmul", "linear", "conv2d", "models", "overhead")
OUT = machine.ROOT / "build" / "benchmarks"


def one(group, threads, quick):
    """(rows, notes) of a benchmark; notes name what went wrong where it did not end well."""
    file = OUT / f"{group}-{threads}.csv"
    command = [sys.executable, "-m", f"benchmarks.bench_{group}", "--threads", str(threads), "--rows", str(file)]
    notes_file = file.with_name(f"{file.name}.json")
    for old in (file, notes_file):
        old.unlink(missing_ok=True)
    began = time.monotonic()
    done = subprocess.run(command + ["--quick"] * quick, cwd=machine.ROOT, check=False)
    seconds = round(time.monotonic() - began)
    if not file.exists():
        return [], {"broken": [f"bench_{group} with {threads} threads ended with status {done.returncode}"]}
    notes = json.loads(notes_file.read_text())
    return rows.read(file), {**notes, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few cases, and small ones: minutes")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--keep", action="store_true", help="write this machine's results, and the tables")
    chosen = parser.parse_args()
    if chosen.keep and chosen.quick:
        parser.error("a quick run is not kept")
    if not machine.is_idle():
        print(f"the load is {machine.load():.1f}: other work takes a share of every time")
    OUT.mkdir(parents=True, exist_ok=True)
    about = machine.described()
    found, notes = [], {}
    for group in chosen.only:
        for threads in sorted({1, about["cores"]}):
            if group == "overhead" and threads > 1:
                continue  # it has no work to share out
            made, said = one(group, threads, chosen.quick)
            notes[f"{group}, {threads} threads"] = said | {name: about[name] for name in ("commit", "date")}
            found += made
    about |= {"load after, this program's included": round(machine.load(), 2), "notes": notes}
    result = report.Result(about, tuple(found))
    result.write(OUT)
    print(f"\n{report.in_words(result)}")
    if chosen.keep:
        before = [each for each in report.kept() if each.about["kind"] == about["kind"]]
        whole = result if set(chosen.only) == set(GROUPS) or not before else before[0].with_later(result)
        whole.write(report.KEPT, about["kind"])
        report.write_tables()
    print(report.write_page(result, OUT))
    return 1 if any(note.get("broken") for note in notes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
