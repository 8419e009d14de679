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
WHERE_BLOCK_BEGINS = "with several runs, each vector finds its own run: where the first one begins nobody reads"
NO_DIVISION = "only the test for 1 reads it here, and what stands next to it is not 1 either"
NO_REST = "in the outermost loop the rest is 0, whatever it is multiplied with"
GRID = "the launcher never starts more blocks than there are pieces"
ONE_ROUND = "a piece has no more columns than the block has threads: each thread has one round"
ONE_RESULT = "without loops there is one result, and the next column is beyond it"
SAME_VECTOR = "one element is always whole and aligned, and so is a vector across results; else elements give the same"
TESTED = "the loop's condition has tested the first of the four rows"
TAKEN_AGAIN = "no elements, or some that the result already has: zeros and repetitions change no range"
ALIGNED = "whole vectors that begin in their run are aligned: the last element is not put in by itself"
INSIDE = "the steps of a part end with the last run: there is none beyond"
NO_VECTORS = "a round more is of no vectors: each of its four is tested again"
SAME_STATE = "all threads of a lane have the same state, and write it to the same place"
TWO_WARPS = "a result has two warps or more here"
ONE_RUN = "a result of one run is taken another way, never through a block of vectors"

OF_THE_FIRST_RUN = (
    "begin = vector * kVector - misalignment<kVector>(data + offset[aligned]);",
    QUOTIENT,
    OFFSETS,
)
OF_FOUR_VECTORS = (
    "if (step + u * threads < end) vectors[u] = load_vector<kVector>(from);",
    "if (step + u * threads < end) take_all(operation, vectors[u], state);",
    "if (step + u * threads >= steps) continue;",
    "if (step + u * threads < steps) take_all(operation, vectors[u], state);",
)
OF_SEVERAL_RUNS = (
    *OF_FOUR_VECTORS[2:],
    "for (int step = lane; step < steps; step += kUnroll * threads)",
    "span.count = run + further < runs.runs ?",
    "return runs.runs == 1 ? span_of_one_run(number)",
    "const int from = max(number * kVector, low);",
)
OF_SPANS = (
    "if (count == kCount && misalignment<kCount>(from) == 0)",
    "if (i < count) vector.put(i, from[i]);",
    "memcpy(&bits, &value, sizeof value);",
    "word[i / kInWord] = shift == 0 ? bits",
)

REDUCTIONS = (
    Explanation(FAMILY, "drop guard", REST, "", "for no thread", OUTERMOST, most=60),
    Explanation(
        FAMILY, "drop guard", DIVISOR_1, "", "for no thread", "a loop of one round is no loop: no size is 1", most=60
    ),
    Explanation(FAMILY, "drop guard", LOOP, "", "for no thread", NOTHING_LEFT, most=30),
    Explanation(FAMILY, "widen compare", LOOP, "", "", NOTHING_LEFT, most=20),
    *(Explanation(ACROSS, "", line, "", "", ONE_LOOP, most=150, subject="JoinParts", unreached=True) for line in WALK),
    *(
        Explanation(FAMILY, "", line, "", "", ONE_DIMENSION, most=150, subject="SumCodes", unreached=True)
        for line in WALK
    ),
    *(Explanation(FAMILY, "", line, "", "", SIX_LOOPS, most=60, unreached=True) for line in WALK),
    Explanation(FAMILY, "drop guard", REST, "", "for every thread", SIX_LOOPS, most=20),
    Explanation(FAMILY, "widen index", LOOP, r"^add\.s32", "", SIX_LOOPS, most=20),
    Explanation(FAMILY, "widen index", DIVISOR_1, "^ld.param", "", NO_DIVISION, most=20),
    Explanation(FAMILY, "widen index", STEP, "^ld.param", "", NO_REST, most=20),
    Explanation(ACROSS, "", "if (plan.parts.count.divisor > 1)", "", "", ONE_LOOP, most=4, subject="JoinParts"),
    Explanation(
        ACROSS, "", "operation.parts[part * plan.results + result] = state;", "", "", ONE_LOOP, most=12,
        subject="JoinParts", unreached=True,
    ),
    Explanation(ACROSS, "drop guard", "for (int64_t piece = blockIdx.x; ", "", "for no thread", GRID),
    Explanation(ACROSS, "widen compare", "for (int64_t piece = blockIdx.x; ", "", "", GRID),
    Explanation(ALONG, "drop guard", "for (int64_t first = ", "", "for no thread", GRID),
    Explanation(ALONG, "widen compare", "for (int64_t first = ", "", "", GRID),
    Explanation(ACROSS, "drop guard", "for (int column = ", "", "for no thread", ONE_ROUND, 2, subject="<[148],"),
    Explanation(ACROSS, "widen index", "for (int column = ", "", "256 -> 257", ONE_ROUND, 2, subject="<[148],"),
    Explanation(ACROSS, "drop guard", "for (int column = ", "", "for every thread", ONE_RESULT),
    Explanation(FAMILY, "drop guard", "if (count == kCount && misalignment", "", "", SAME_VECTOR, 12),
    *(Explanation(ACROSS, "", line, "", "", SAME_VECTOR, 150, unreached=True) for line in OF_SPANS),
    Explanation(ACROSS, "widen compare", "vectors[u] = load_span<kVector>(data + away[0], ", "", "", TESTED),
    # Where the states of parts are joined, the walk over what is folded has one loop.
    Explanation(ACROSS, "drop guard", LOOP, "", "for every thread", ONE_LOOP, 8, subject="JoinParts"),
    Explanation(ACROSS, "drop guard", DIVISOR_1, "", "for every thread", ONE_LOOP, 4, subject="JoinParts"),
    Explanation(ACROSS, "widen index", QUOTIENT, "", "", ONE_LOOP, 10, subject="JoinParts"),
    Explanation(ACROSS, "widen scale", QUOTIENT, "", "", ONE_LOOP, 6, subject="JoinParts"),
    Explanation(ACROSS, "widen index", OFFSETS, "", "", ONE_LOOP, 6, subject="JoinParts"),
    Explanation(ACROSS, "widen scale", OFFSETS, "", "", ONE_LOOP, 8, subject="JoinParts"),
    # Sums of codes have one run for each result, and never vectors from several.
    *(
        Explanation(ALONG, "", line, "", "", ONE_DIMENSION, 150, subject="SumCodes", unreached=True)
        for line in (*OF_SEVERAL_RUNS, *OF_SPANS)
    ),
    # BlockOfVectors finds where its first run begins, for the way of one run.
    *(Explanation(ALONG, "", line, "", "", WHERE_BLOCK_BEGINS, 18, subject="FindRange") for line in OF_THE_FIRST_RUN),
    Explanation(ALONG, "drop guard", "return runs.runs == 1 ? span_of_one_run(number)", "", "", ONE_RUN, 6),
    Explanation(ALONG, "", "const int from = max(number * kVector, low);", "", "", ONE_RUN, 8, unreached=True),
    *(
        Explanation(ALONG, operator, line, "", "", TAKEN_AGAIN, 6, subject="FindRange")
        for operator in ("drop guard", "widen compare")
        for line in OF_FOUR_VECTORS
    ),
    Explanation(ALONG, "drop guard", DIVISOR_1, "", "for every thread", WHERE_BLOCK_BEGINS, 5, subject="FindRange"),
    Explanation(ALONG, "widen compare", REST, "", "", WHERE_BLOCK_BEGINS, 3, subject="FindRange"),
    Explanation(ALONG, "", "if (i < count) vector.put(i, from[i]);", "", "", ALIGNED, 8, unreached=True),
    Explanation(ALONG, "drop guard", "if (i < count) vector.put(i, from[i]);", "", "for every thread", ALIGNED, 4),
    Explanation(ALONG, "", "span.count = run + further < runs.runs ?", "", "", INSIDE, 12),
    Explanation(ALONG, "", "for (int step = lane; step < steps; ", "", "", NO_VECTORS, 3),
    Explanation(ALONG, "", "for (int64_t step = first_step + lane; ", "", "", NO_VECTORS, 3),
    Explanation(FAMILY, "drop guard", "if (threadIdx.x % kLanes == lane) ", "", "for no thread", SAME_STATE, 16),
    Explanation(ALONG, "drop guard", "if (warps == 1) return;", "", "for no thread", TWO_WARPS),
    Explanation(
        FAMILY, "", "for (int apart = farthest / 2; ", "", "", "joins a state with itself, which changes no range", 4,
        subject="Range",
    ),
    Explanation(
        FAMILY, "widen compare", "bool is_finite(float a)", "", "",
        "no bfloat16 is as large as the largest float, and no difference of two equals it", 150, subject="bfloat16",
    ),
)  # fmt: skip
