"""The tables and the pages of the results that are kept, anew: python -m benchmarks.report"""

from benchmarks import machine

from . import kept, write_page, write_tables

write_tables()
for result in kept():
    print(write_page(result, machine.ROOT / "build" / "benchmarks" / result.about["kind"]))
