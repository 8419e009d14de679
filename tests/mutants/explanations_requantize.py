"""Survivors of requantize's and rescale's kernels; those of walks over loops are with explanations_elementwise.py's."""

from .explanation import Explanation
from .explanations_elementwise import BOUNDARY, LOAD, ONE_BY_ONE

ROWS = "requantize_rows_kernel"
RESCALE_ROWS = "rescale_rows_kernel"
BOTH = "requantize_(rows|elements)_kernel"

SATURATES = "a shift of 30 brings 1 to 2^29 or more, beyond every code, with any significand"

REQUANTIZE = (
    Explanation(
        BOTH, "widen compare", "if (shift > 30)", r", 30;", "gt -> ge",
        SATURATES, most=8,
    ),
    Explanation(
        BOTH, "widen compare", "return relu && v <= 0.0f", "", "le -> lt",
        "of a zero only the sign stays, which no code depends on", most=8,
    ),
    Explanation(ROWS, "drop guard", LOAD, "", "for no thread", ONE_BY_ONE, most=8),
    Explanation(
        ROWS, "drop guard", "if (rows.plan.row_stride[kProductAScale] == 0)", "", "for no thread",
        "saves work: multipliers found anew for each row are the same ones",
    ),
    Explanation(ROWS, "widen compare", "factor = given < kSmall ? kRaise", "", "", BOUNDARY, most=8),
)  # fmt: skip

RESCALE = (Explanation(RESCALE_ROWS, "drop guard", LOAD, "", "for no thread", ONE_BY_ONE, most=8),)
