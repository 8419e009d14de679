"""Survivors of rms_norm_quantize's and silu_mul_quantize's kernels; those of walks over loops are with
explanations_elementwise.py's."""

from .explanation import Explanation
from .explanations_elementwise import BOUNDARY, GRID, JOIN, LOAD, NO_ROWS, ONE_BY_ONE, STORE, TO

RMS, SILU = "rms_norm_quantize_kernel", "silu_mul_quantize_kernel"
BOTH = f"{RMS}|{SILU}"

ROWS = "for (int64_t first = blockIdx.x * at_once; first < rows.count; first += gridDim.x * at_once)"
LOAD_OF_ROW = "if (count == kCount && step == 1 && misalignment<kCount>(from) == 0) return load_vector<kCount>(from);"
NO_ROW = "saves work: of a row that is not there, which has no elements, the place is not used"
NOTHING_HELD = "saves work: what stands for no element has the code of 0, which is taken off again, and is not stored"
READING = (
    Explanation(BOTH, "drop guard", ROWS, "", "for no thread", GRID),
    Explanation(BOTH, "widen compare", ROWS, r"^setp\.ge", "", GRID),
    Explanation(BOTH, "widen compare", ROWS, r"^setp\.lt", "", NO_ROWS),
    Explanation(BOTH, "widen compare", "exists = row < rows.count;", r"^setp\.ge", "", NO_ROW),
    Explanation(BOTH, "drop guard", "if (exists) rows.walk.add_offsets(row, offset);", "", "for no thread", NO_ROW),
    Explanation(BOTH, "drop guard", LOAD_OF_ROW, "", "for", ONE_BY_ONE, most=16),
)

WARPS = "for (int apart = warps / 2; apart > 0; apart /= 2) {"
COUNT = "left = max(min(kPiece, count - first), 0);"
NOT_NEGATIVE = "a vector's elements are counted already, and not below none"
NORM = (
    Explanation(
        RMS, "drop guard", WARPS, "", "for no thread",
        "a row of one warp has a round more, in which the distance is 0, and nobody gives or takes",
    ),
    Explanation(RMS, "widen compare", WARPS, r", 3;", "gt -> ge", "what is compared is a power of 2, and never 3"),
    Explanation(
        RMS, "drop condition", "if (warp_of_row >= apart && warp_of_row < 2 * apart) {", "", "alone",
        "the first half's warps write, too: each to its own place, which others read in later rounds alone, when it"
        " has written there again",
    ),
    Explanation(
        RMS, "drop guard", "if (warp_of_row == 0) {", "", "for no thread",
        "saves work: what other warps than the first come to is not stored",
    ),
    Explanation(
        RMS, "shrink shared", "", r"smem_part", "16380 of",
        "the last word is the next array's first then, which is written several barriers after the last one is read",
    ),
    Explanation(
        RMS, "shrink shared", "", r"smem_sum", "",
        "a row's first warp alone writes: where rows share a block, its number is 6 at most", most=2,
    ),
    Explanation(
        RMS, "drop guard", "switch (data.weight_type) {", "", "for no thread",
        "what is neither the first type nor the second is the third",
    ),
    Explanation(RMS, "widen compare", "int count(int u) const", r", 0;", "gt -> ge", NOT_NEGATIVE, most=12),
    Explanation(RMS, "drop condition", COUNT, "", "always", NOT_NEGATIVE, most=12),
    Explanation(RMS, "drop guard", LOAD, "", "for", ONE_BY_ONE, most=24),
)  # fmt: skip

PRODUCT = (
    Explanation(
        SILU, "drop condition", "return is_nan(x) ? x : result;", "", "always",
        "a gate that is no number makes the quotient none, whatever is below it", most=16,
    ),
)  # fmt: skip

BARRIER = "__syncthreads();  // before the next states overwrite these"
JOINING = (
    Explanation(
        BOTH, "widen compare", JOIN, r", 2;", "lt -> le",
        "joins the states of a single warp's lanes only: two threads are never asked for", most=2,
    ),
    Explanation(
        BOTH, "widen compare", JOIN, r", 3;", "gt -> ge", "what is compared is a power of 2, and never 3", most=2,
    ),
    Explanation(
        BOTH, "widen compare", JOIN, r", 1;", "gt -> ge", "a round more joins a range with itself, which changes none",
    ),
    Explanation(
        BOTH, "drop guard", JOIN, "", "for no thread",
        "the first step is always made: there are 32 lanes, and here two warps or more", most=4,
    ),
    Explanation(
        BOTH, "drop guard", "if (threads <= kLanes) return;", "", "for no thread",
        "saves work: the state of a single warp comes back from shared memory as it was", most=2,
    ),
    Explanation(
        SILU, "delete barrier", BARRIER, "", "",
        "of sums: before the next ones are written, the next ranges are joined, which has barriers of its own",
    ),
    Explanation(
        RMS, "delete barrier", BARRIER, "", "",
        "before the next row's ranges and sums are written, its squares are summed, which has barriers of its own",
        most=2,
    ),
)  # fmt: skip

CODES = (
    Explanation(BOTH, "widen compare", "factor = given < kSmall ? kRaise", "", "", BOUNDARY, most=2),
    Explanation(BOTH, "drop guard", "if (count == 0) continue;", "", "for no thread", NOTHING_HELD, most=4),
    Explanation(SILU, "drop guard", STORE, "", "for", ONE_BY_ONE, most=8),
    Explanation(RMS, "drop guard", STORE, "", "for", ONE_BY_ONE, most=16),
    Explanation(
        BOTH, "drop guard", TO, "", "for no thread",
        "vectors without elements have been left out: the first element is always there", most=4,
    ),
    Explanation(
        BOTH, "drop guard", "if (codes.row_sum != nullptr) join_threads(sum, part.threads);", "", "for no thread",
        "saves work: the sums are joined, and stored nowhere",
    ),
)  # fmt: skip

HELD_ROWS = (*READING, *NORM, *PRODUCT, *JOINING, *CODES)
