"""Instructions that exist and are refused, with the reason: what their results are is not known, or is not wanted."""

import re

REFUSED = [
    (
        r"[\w.:]+\.approx(?:\.[\w.]+)?|div\.full\.[\w.]+",
        "an approximate instruction: its result is not specified to the last bit",
    ),
    (r"[\w.:]+\.ftz(?:\.[\w.]+)?", ".ftz flushes denormals to zero, and the emulator computes with them"),
    (
        r"(?:add|sub|mul|fma|mad|div|rcp|sqrt)\.r[zmp](?:\.[\w.]+)?",
        "float arithmetic is emulated in the rounding .rn alone",
    ),
    (r"(?:add|sub|mad\.lo|mad\.hi)\.cc\.[\w.]+|(?:addc|subc|madc)\.[\w.]+", "the carry flag is not emulated"),
]


def _refuse(reason):
    def lower(b, match):
        raise b.error(reason)

    return lower


TABLE = [(re.compile(pattern), _refuse(reason)) for pattern, reason in REFUSED]
