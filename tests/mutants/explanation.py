"""What an explanation of a survivor is, and which survivors it fits."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """Fits by what a compiler's whims leave alone: never by a line's number or a register's."""

    kernel: str  # a regular expression for the whole name of the kernel's family
    operator: str  # "" fits any
    source: str  # part of the source line's text; "" fits any
    ptx: str  # a regular expression found in the PTX line; "" fits any
    change: str  # a regular expression found in what changes; "" fits any
    reason: str
    most: int = 1  # how many survivors of one kernel it may explain, so that it hides no other
    verdict: str = "equivalent"  # or "known hole"
    subject: str = ""  # a regular expression found in the whole name of the instance
    unreached: bool = False  # whether it is of code that no case reaches

    def fits(self, outcome, source_text):
        return (
            re.fullmatch(self.kernel, outcome.family) is not None
            and self.operator in ("", outcome.operator)
            and re.search(self.subject, outcome.subject) is not None
            and not (self.unreached and outcome.reached)
            and self.source in source_text
            and re.search(self.ptx, outcome.ptx) is not None
            and re.search(self.change, outcome.change) is not None
        )
