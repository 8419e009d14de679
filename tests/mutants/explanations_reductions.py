"""Survivors of reduce_along_kernel and reduce_across_kernel that are explained."""

from .explanation import Explanation

FAMILY = "reduce_(along|across)_kernel"
ALONG, ACROSS = "reduce_along_kernel", "reduce_across_kernel"
LOOP = "for (int loop = loops - 1; loop >= 0; --loop)"
REST = "const int64_t rest = loop > 0 ? size[loop].quotient(index) : 0;"
DIVISOR_1 = "if (divisor == 1) return n;"
QUOTIENT = "return static_cast<int64_t>(__umul64hi(static_cast<uint64_t>(n), magic) >> (shift - 1));"
STEP = "const int64_t step = index - rest * size[loop].divisor;"
OFFSETS = "for (int i = 0; i < kOperands; ++i) offset[i] += step * stride[loop][i];"
WALK = (LOOP, REST, DIVISOR_1, QUOTIENT, STEP, OFFSETS)

OUTERMOST = "in the outermost loop the quotient is 0 as well, since the index is less than the loop's size"
NOTHING_LEFT = "after the outermost loop the index is 0, as it is where there is no loop: further rounds add nothing"
SIX_LOOPS = "a tensor has 6 dimensions, so at most 6 loops stay or are folded: a third round of a remainder is the last"
ONE_LOOP = "states of parts are folded in one loop, and never in parts again"
ONE_DIMENSION = "sums are of one dimension: one loop is folded, as one run"
WHERE_BLOCK_BEGINS = "with several runs, each vector's run is found anew: nobody reads where the block's first one begins"
ZEROS = "a round more, or a vector, that is beyond the end: it is of no elements, and taking zeros changes nothing"
ALWAYS_WHOLE = "one element is a whole vector and aligned, a vector across results is always: the other way is the same"

REDUCTIONS = (
    Explanation(FAMILY, "drop guard", REST, "", "for no thread", OUTERMOST, most=60),
    Explanation(
        FAMILY, "drop guard", DIVISOR_1, "", "for no thread", "a loop of one round is no loop: no size is 1", most=60
    ),
    Explanation(FAMILY, "drop guard", LOOP, "", "for no thread", NOTHING_LEFT, most=30),
    Explanation(FAMILY, "widen compare", LOOP, "", "", NOTHING_LEFT, most=20),
    *(Explanation(ACROSS, "", line, "", "", ONE_LOOP, most=150, subject="JoinParts", unreached=True) for line in WALK),
    *(Explanation(FAMILY, "", line, "", "", ONE_DIMENSION, most=150, subject="SumCodes", unreached=True) for line in WALK),
    *(Explanation(FAMILY, "", line, "", "", SIX_LOOPS, most=60, unreached=True) for line in WALK),
    Explanation(FAMILY, "drop guard", REST, "", "for every thread", SIX_LOOPS, most=20),
    Explanation(FAMILY, "widen index", LOOP, r"^add\.s32", "", SIX_LOOPS, most=20),
)  # fmt: skip
