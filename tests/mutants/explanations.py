"""Survivors that are explained one by one: equivalent for a reason that no rule finds, or holes that stay open."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """Fits by names that a compiler's whims leave alone: never by a line's number or a register's."""

    family: str
    operator: str
    source: str  # part of the source line's text; "" fits any
    ptx: str  # a regular expression found in the PTX line; "" fits any
    verdict: str  # "equivalent" or "known hole"
    reason: str
    change: str = ""  # a regular expression found in what changes

    def fits(self, outcome, source_text):
        return (
            self.family == outcome.family
            and self.operator == outcome.operator
            and self.source in source_text
            and re.search(self.ptx, outcome.ptx) is not None
            and re.search(self.change, outcome.change) is not None
        )


EXPLANATIONS = ()
