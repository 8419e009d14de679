"""Survivors that are explained one by one: equivalent for a reason that no rule finds, or holes that stay open."""

from .explanation import Explanation
from .explanations_elementwise import ELEMENTWISE
from .explanations_linear import LINEARS
from .explanations_matmul import MATMULS
from .explanations_reductions import REDUCTIONS
from .explanations_requantize import REQUANTIZE, RESCALE
from .explanations_rows import HELD_ROWS

STEPS = "for first in range(0, k, tile_k)"
MASKED_STEP = (
    "a step, or a copy ahead, of a tile that is all beyond K: the masks of its own rows leave nothing to read and "
    "fill it with zeros, which add nothing"
)
PIPELINED = "triton matmul_(64x64x64_3|128x64x64_4)"

TRITON = (
    Explanation("triton matmul_.*", "widen compare", STEPS, r"^setp\.(gt|lt)\.s32", "", MASKED_STEP, most=5),
    Explanation("triton matmul_.*", "drop guard", STEPS, r"^@%p\d+ bra", "for every thread", MASKED_STEP),
    Explanation(
        "triton matmul_64x64x64_3", "drop condition", "tl.load", r"^selp\.b32.*, 0, %p(6|9);", "always",
        MASKED_STEP, most=8,
    ),
    Explanation(
        "triton matmul_128x64x64_4", "drop condition", "tl.load", r"^selp\.b32.*, 0, %p(5|7|10);", "always",
        MASKED_STEP, most=9,
    ),
    Explanation(
        "triton matmul_rows_64x64x32_2", "drop condition", "tl.load", r"^selp\.b32.*, 0, %p(3|7);", "always",
        MASKED_STEP, most=5,
    ),
    Explanation(
        "triton matmul_rows_64x64x32_2", "drop condition", "b_tile = tl.load", r"^selp\.b32.*, 0, %p(2|9);", "always",
        "the first 16 rows of b's tile are never beyond K: the kernel was compiled for K a multiple of 16", most=2,
    ),
    Explanation(
        "triton matmul_rows_64x64x32_2", "widen compare", "b_tile = tl.load", r"^setp\.lt\.s32", "",
        "the first 16 rows of b's tile are never at K: the kernel was compiled for K a multiple of 16", most=2,
    ),
    Explanation(
        PIPELINED, "delete commit", "a_tile = tl.load", "", "",
        "the first group becomes part of the second, and both are waited for together",
    ),
    Explanation(
        "triton matmul_rows_64x64x32_2", "delete commit", "a_tile = tl.load", "", "",
        "a's group becomes part of b's, which follows it, and both are waited for together", most=2,
    ),
    Explanation(
        PIPELINED, "delete barrier", "a_tile = tl.load", "", "",
        "before the first wait nothing has been read, and copies of different stages write different places", most=2,
    ),
    Explanation(
        "triton matmul_64x64x64_3", "weaken wait", STEPS, r"wait_group\s+0", "",
        "the last group fills a stage of b with zeros, behind the 8,192 bytes that the stores of c go through",
    ),
    Explanation(
        "triton absmax.*", "drop guard", "for first in range(0, n, tile)", r"bra", "for no thread",
        "with n = 0 the loop runs once, and its masks leave nothing to read",
    ),
    Explanation(
        "triton absmax.*", "widen compare", "for first in range(0, n, tile)", r"^setp\.lt", "",
        "a step more, whose masks leave nothing to read; before the loop, n = 1, which float16's kernel does not take: "
        "it was compiled for multiples of 16", most=2,
    ),
    Explanation(
        "triton absmax.*", "drop condition", "", r"^and\.pred\s+%p\d+, %p(8|5),", r"^%p(8|5) alone",
        "threads 1 to 3 store their own words again, which nobody reads",
    ),
    Explanation(
        "triton quantize", "widen compare", "exact < 0", r"^setp\.lt\.f32", "",
        "at zero the size is 0, and so is -0", most=4,
    ),
)  # fmt: skip

EXPLANATIONS = (*TRITON, *MATMULS, *ELEMENTWISE, *REDUCTIONS, *REQUANTIZE, *RESCALE, *HELD_ROWS, *LINEARS)
