"""Survivors of reduce_along_kernel and reduce_across_kernel that are explained."""

from .explanation import Explanation

FAMILY = "reduce_(along|across)_kernel"
ALONG, ACROSS = "reduce_along_kernel", "reduce_across_kernel"
RANGES, SUMS, JOINS = "FindRange", "SumCodes", "JoinParts"

LOOP = "for (int loop = loops - 1; loop > 0 && index != 0; --loop)"
DIVISOR_1 = "return divisor == 1 ? n : quotient_by_many(n);"
QUOTIENT = "return static_cast<int64_t>(__umul64hi(static_cast<uint64_t>(n), magic) >> (shift - 1));"
STEP = "const int64_t step = index - rest * size[loop].divisor;"
OFFSETS = "offset[i] += step * stride[loop][i];"
FOUR_ROWS = "for (int u = 0; u < kUnroll; ++u) {"

NOTHING_LEFT = "a loop more adds nothing: where no index is left it is 0, and the outermost loop's quotient is 0"
ONE_FOLDED = "states of parts and the codes of a sum are folded in one loop, which divides nothing"
NO_PARTS = "joined states are never in parts again, so one part and few tiles are all there is"
GRID = "the launcher never starts more blocks than there are pieces"
NO_PIECES = "a round more has no pieces: each thread's own is tested again"
ONE_ROUND = "a piece has no more columns than the block has threads: each thread has one round"
TAKEN_AGAIN = "takes elements that the result already has, or that another part takes: repetitions change no range"
INSIDE = "the steps of a part end with the last run: there is none beyond"
SAME_STATE = "all threads of a lane have the same state, and write it to the same place"
ONE_BY_ONE = "saves work: a whole vector goes one element at a time as well"
ALIGNED = "vectors are cut where data is aligned: a whole one is one access, and never goes by elements"
ITSELF = "joins a state with itself, which changes no range"
TWO_VECTORS = "a run has two vectors or more"
EARLIER = (
    "the block's first run is but where its own are counted from: an earlier one serves as well, up to 2^31 elements"
)
IN_STEP = "parts' states lie in the order of their loops: however a number is split, the place is the same"
POWER = "what is compared is a power of 2, and never one more than another"
AT_LEAST_TWO = "the first step is always made: here are two warps or more"
ONE_WARP = "saves work: the state of a single warp comes back from shared memory as it was"
FIRST_OF_FOUR = "saves work: without a first step none of the four is before the end"
ONE_RUN = "only a run of 2^30 elements and more needs numbers that are not counted from the block's first run"
WIDEST = "no bfloat16 and no difference of two is the largest float"
PITCH = "the last bytes are of the pitch behind the last row, which nobody uses"


def alike(operator, source, reason, *, kernel=FAMILY, ptx="", change="", most=4, subject="", **how):
    return Explanation(kernel, operator, source, ptx, change, reason, most, subject=subject, **how)


WALKS = (
    alike("drop condition", LOOP, NOTHING_LEFT, change="alone", most=30),
    alike("widen compare", LOOP, NOTHING_LEFT, most=12),
    alike("widen index", LOOP, NOTHING_LEFT, ptx=r"^add\.s32", change="^-1 -> 0", most=2),
    alike("drop guard", LOOP, NOTHING_LEFT, change="for no thread", most=12),
    *(
        alike("", line, ONE_FOLDED, kernel=ACROSS, subject=f"{SUMS}|{JOINS}", most=24, unreached=True)
        for line in (LOOP, QUOTIENT, STEP, OFFSETS)
    ),
    alike("drop guard", LOOP, ONE_FOLDED, kernel=ACROSS, change="for every thread", subject=f"{SUMS}|{JOINS}", most=8),
    # Where the plan's folded loops stand in memory, computed ahead and then not read.
    *(
        alike("", line, ONE_FOLDED, kernel=ACROSS, ptx=r"^(add|mul\.wide)\.s", subject=f"{SUMS}|{JOINS}", most=6)
        for line in (FOUR_ROWS, "const int warp = ", "const int rows = ")
    ),
)

JOINED = (
    alike("drop guard", "if (plan.parts.count.divisor > 1)", NO_PARTS, kernel=ACROSS, subject=JOINS),
    alike("", "operation.parts[part * plan.results + result] = state;", NO_PARTS, subject=JOINS, unreached=True),
    alike("drop guard", DIVISOR_1, NO_PARTS, kernel=ACROSS, change="for no thread", subject=JOINS),
    alike("widen index", QUOTIENT, IN_STEP, kernel=ACROSS, subject=JOINS, most=3),
    alike("widen scale", QUOTIENT, IN_STEP, kernel=ACROSS, subject=JOINS, most=1),
    alike("widen index", QUOTIENT, NO_PARTS, kernel=ACROSS, change="^-1 -> 0", subject=JOINS, most=1),
)

PIECES = (
    alike("drop guard", "for (int64_t piece = blockIdx.x; ", GRID, kernel=ACROSS, change="for no thread", most=1),
    alike("widen compare", "for (int64_t piece = blockIdx.x; ", GRID, kernel=ACROSS, most=1),
    alike("drop guard", "for (int64_t first = ", GRID, kernel=ALONG, change="for no thread", most=1),
    alike("widen compare", "for (int64_t first = ", GRID, kernel=ALONG, ptx=r"^setp\.ge", most=1),
    alike("widen compare", "for (int64_t first = ", NO_PIECES, kernel=ALONG, ptx=r"^setp\.lt", most=1),
    alike("", "for (int column = threadIdx.x; ", ONE_ROUND, kernel=ACROSS, subject="<[148],", most=8),
    alike("shrink shared", "", PITCH, kernel=ACROSS, most=1),
    alike("drop guard", "if (threadIdx.x % kLanes == lane) ", SAME_STATE, change="for no thread", most=16),
)

STEPS = (
    alike("", "if (first_step == 0) {", TAKEN_AGAIN, kernel=ALONG, subject=RANGES),
    alike("", "for (int i = lane; i < head; i += threads)", TAKEN_AGAIN, kernel=ALONG, subject=RANGES),
    alike("widen compare", "if (u == 0 || step + u * threads < end)", TAKEN_AGAIN, kernel=ALONG, subject=RANGES),
    *(
        alike("", line, TAKEN_AGAIN, kernel=ALONG, change="for no thread|->", subject=RANGES, most=6)
        for line in ("for (int step = lane; ", "if (u > 0 && step + u * threads >= steps)")
    ),
    alike(
        "drop guard", "if (divisor == 1) return n;", TWO_VECTORS, kernel=ALONG, change="for no thread", subject=RANGES
    ),
    alike(
        "widen index", QUOTIENT, EARLIER, kernel=ALONG, change="^-1 -> 0", subject=RANGES, most=1, verdict="known hole"
    ),
    alike("", "span.count = run + further < runs.runs ?", INSIDE, kernel=ALONG, most=16),
    alike("drop guard", "if (Operation::kOneRun || ", ONE_RUN, change="for no thread", most=1, verdict="known hole"),
    alike("drop guard", "if (count == kCount && ", ONE_BY_ONE, change="for every thread", most=8),
    alike("drop guard", "if (count == kCount && ", ALIGNED, change="for no thread", most=4),
    alike("drop guard", "if (i < count) vector.put(i, from[i]);", ALIGNED, change="for every thread", most=4),
    alike("widen compare", "if (i < count) vector.put(i, from[i]);", ALIGNED, ptx=r", [48];"),
    alike("", "if (i < count) vector.put(i, from[i]);", ALIGNED, most=8, unreached=True),
)

STATES = (
    alike("", "for (int apart = farthest / 2; ", ITSELF, subject="Range"),
    alike("drop guard", "for (int apart = farthest / 2; ", AT_LEAST_TWO, change="for no thread", most=1),
    alike("widen compare", "for (int apart = farthest / 2; ", POWER, ptx=r", [13];", most=2),
    alike("widen compare", "if (threads <= kLanes) return;", ONE_WARP, most=1),
    alike("widen compare", "bool is_finite(float a)", WIDEST, subject="bfloat16", most=150),
)

REDUCTIONS = (*WALKS, *JOINED, *PIECES, *STEPS, *STATES)
