"""Survivors of the kernels of quantize, dequantize, dynamic_quantize and fake_quantize."""

from .explanation import Explanation

QUANTIZE = "quantize_kernel of (vectors|each)"
DEQUANTIZE = "dequantize_kernel of (vectors|each)"
VECTORS = "(de)?quantize_kernel of vectors"
EACH = "(de)?quantize_kernel of each"
RUNS = "(de)?quantize_kernel of (vectors|each)"
DYNAMIC = "dynamic_quantize_kernel"
NUMBERED = "quantize_stochastic_kernel|fake_quantize(_mask)?_kernel"
WALKS = (
    "((de)?quantize_kernel of (vectors|each|elements)|(dynamic|rms_norm|silu_mul)_quantize_kernel|"
    f"(requantize|rescale)_(rows|elements)_kernel|{NUMBERED})"
)

LOOPS = "for (int loop = loops - 1; loop > 0 && index != 0; --loop) {"
ONE = "return divisor == 1 ? n : quotient_by_many(n);"
SHORT_ONE = "if (divisor == 1) return n;"
QUOTIENT = "return static_cast<int64_t>(__umul64hi(static_cast<uint64_t>(n), magic) >> (shift - 1));"
OFFSETS = "offset[i] += step * stride[loop][i]"
FIELD = r"\[%rd\d+\+\d+\]"  # of the plan, at a place that the compiler knows

NOTHING_LEFT = "a loop more adds nothing: where no index is left it is 0, and the outermost loop's quotient is 0"
NO_DIVISOR_1 = "a run has two vectors or more, a round as many elements as a vector: no divisor is 1"
WALK = (
    Explanation(WALKS, "drop guard", ONE, "", "for no thread", NO_DIVISOR_1),
    Explanation(WALKS, "drop guard", SHORT_ONE, "", "for no thread", NO_DIVISOR_1, most=12),
    Explanation(WALKS, "drop condition", LOOPS, "", "alone", NOTHING_LEFT, most=44),
    Explanation(WALKS, "drop guard", LOOPS, "", "for no thread", NOTHING_LEFT, most=12),
    Explanation(WALKS, "widen compare", LOOPS, r"^setp\.gt\.s32", "gt -> ge", NOTHING_LEFT, most=12),
)  # fmt: skip

FIRST = "a vector's first element is of its first round"
FIRST_AT = "of the first element, which lies 0 strides from itself"
SAME = "saves work: of parameters that do not change within a round the place is multiplied by 0"
FIRST_ROUND = (
    "a block's first run and round are but where its own ones are counted from: earlier ones serve as well, up to 2^31 "
    "elements"
)
ONE_ROUND = (
    "reads padding, which may be anything; where it is not 0, one round is found as many are: every way gives round 0, "
    "and within a round the stride is 0"
)
PARAMETERS = (
    Explanation(RUNS, "widen index", "one_round() const", "", "", ONE_ROUND, most=5),
    Explanation(RUNS, "widen index", "same_in_round() const", "", "", SAME, most=2),
    Explanation(RUNS, "drop condition", "if (!parameters.same_everywhere())", "", "alone|always", SAME, most=2),
    Explanation(
        RUNS, "drop guard", "if (parameters.one_round()) return {0", "", "for no thread",
        "saves work: the only round is no longer than short numbers go, and ends no earlier than a vector", most=8,
    ),
    Explanation(
        EACH, "widen index", "place.at * parameters.scale_stride", "", "",
        "of the later round, which is read from its start or not at all", most=8,
    ),
    Explanation(
        EACH, "widen index", "finder.place(beyond + min(place.left, count - 1))", r"^add", "-1 -> 0",
        "a later round that has none of the vector's elements is not read", most=4,
    ),
    Explanation(
        EACH, "drop guard", "for (int i = 0; i < kVector; ++i) {", "", "for no thread",
        "reads the parameters of one element more, which are there, and are not used", most=15,
    ),
    Explanation(EACH, "widen compare", "is_here = i < place.left", r", 0;", "gt -> ge", FIRST, most=4),
    Explanation(EACH, "drop condition", "at = is_here ? i : i - place.left", "", "always", FIRST, most=4),
    Explanation(EACH, "drop condition", "(is_here ? here.", "", "always", FIRST, most=8),
    Explanation(EACH, "widen index", "(is_here ? here.", r"^ld\.param", "", FIRST_AT, most=8),
    Explanation(EACH, "widen scale", "(is_here ? here.", "", "", FIRST_AT, most=8),
    # The compiler reads the zero points' stride in a place of no line
    Explanation(EACH, "widen index", "", r"^ld\.param\.u64 .*\+1096\]", "", FIRST_AT, most=2),
    Explanation(
        VECTORS, "widen index", "place.at * parameters.scale_stride", "", "",
        "within a round both strides are 0 in this plan", most=4,
    ),
    Explanation(
        RUNS, "drop guard", "zero_point = parameters.zero_point == nullptr", "", "for no thread",
        "without zero points their strides are 0, and null plus 0 is null", most=8,
    ),
    Explanation(
        VECTORS, "drop guard", "if (place.round != round) shared", "", "for no thread",
        "saves work: the same parameters again", most=4,
    ),
    Explanation(
        "(de)?quantize_kernel of (vectors|each|elements)", "widen index", ONE, FIELD, "",
        "the shift that stands after the divisor is 1 for a divisor of 2 alone, and rounds are no shorter than "
        "vectors; of single elements, the shift's other half is padding, which may be anything", most=1,
    ),
    Explanation(
        "(de)?quantize_kernel of (vectors|each|elements)", "widen index", SHORT_ONE, FIELD, "",
        "the shift that stands after the divisor is 1 for a divisor of 2 alone, and rounds are no shorter than "
        "vectors; of single elements, the shift's other half is padding, which may be anything", most=8,
    ),
    Explanation(
        RUNS, "drop guard", "if (!parameters.one_round()) first_round", "", "for no thread",
        "the only round is as long as everything, and the division gives 0",
    ),
    Explanation(
        RUNS, "drop guard", "if (!parameters.one_round()) first_round", "", "for every thread",
        FIRST_ROUND, verdict="known hole",
    ),
    Explanation(
        RUNS, "widen index", "__umul64hi(static_cast<uint64_t>(n), magic)", FIELD, "",
        FIRST_ROUND, most=4, verdict="known hole",
    ),
    Explanation(
        RUNS, "widen index", "__umul64hi(static_cast<uint64_t>(n), magic)", "^add", "-1 -> 0",
        FIRST_ROUND, most=2, verdict="known hole",
    ),
)  # fmt: skip

JOINED = "joined.put(i, i < place.left ? result.get(i) : later.get(i))"
LAST = (
    "where rounds are joined, the last element of a whole vector is of the second, and a part's last ones are nobody's"
)
JOINS = (
    Explanation(VECTORS, "widen compare", JOINED, r"^setp\.gt\.s32 .*, 0;", "gt -> ge", FIRST, most=4),
    Explanation(VECTORS, "drop condition", JOINED, "", "always", FIRST, most=4),
    Explanation(VECTORS, "drop condition", JOINED, "", "never", LAST, most=4),
)

BOUNDARY = "at the limit itself both factors keep everything in range, and the codes are the same"
QUOTIENTS = (
    Explanation(
        "quantize_kernel of (vectors|columns)|dynamic_quantize_kernel", "widen compare",
        "factor = given < kSmall ? kRaise", "", "", BOUNDARY, most=16,
    ),
)  # fmt: skip

ONE_BY_ONE = "saves work: a whole vector goes one element at a time as well"
WIDE = "vectors are cut where the wide operand is aligned: a whole one is one access, and never goes by elements"
LOAD = "if (count == kCount && misalignment<kCount>(from) == 0) return load_vector"
STORE = "if (count == kCount && misalignment<kCount>(to) == 0) return store_vector"
TO = "if (i < count) to[i] = vector.get(i);"
PUT = "if (i < count) vector.put(i, from[i]);"
SPANS = (
    Explanation(QUANTIZE, "drop guard", LOAD, "", "for every thread", ONE_BY_ONE, most=8),
    Explanation(QUANTIZE, "drop guard", LOAD, "", "for no thread", WIDE, most=4),
    Explanation(QUANTIZE, "drop guard", PUT, "", "for every thread", WIDE, most=4),
    Explanation(QUANTIZE, "widen compare", PUT, r", 4;", "", WIDE, most=4),
    Explanation(QUANTIZE, "widen index", PUT, r"\+12\]", "", WIDE, most=4),
    Explanation(QUANTIZE, "widen scale", PUT, "", "", WIDE, most=2, unreached=True),
    Explanation(RUNS, "drop guard", STORE, "", "for", ONE_BY_ONE, most=8),
    Explanation(DEQUANTIZE, "drop guard", LOAD, "", "for", ONE_BY_ONE, most=4),
    Explanation(DEQUANTIZE, "drop guard", TO, "", "for every thread", WIDE, most=2),
    Explanation(DEQUANTIZE, "widen compare", TO, r", 8;", "", WIDE, most=2),
    Explanation(DEQUANTIZE, "widen index", TO, r"\+14\]", "", WIDE, most=2),
    Explanation(
        EACH, "widen index", "span.count = max(min(number * kVector + kVector, high) - from, 0);", r"^add\.s32", "",
        "a whole vector that counts one element more goes one element at a time", most=3,
    ),
)  # fmt: skip

FIRST_OF_VECTOR = "a vector has one element at least"
DENSE = (
    "a vector of several elements begins at a multiple of their number, and where a dense result may be written whole"
)
MODES = "fake_quantize(_mask)?_kernel"
AGAIN = "the way of a product with a reciprocal is one of its own, on which the compiler asks again for the other modes"
NUMBER_BY_NUMBER = (
    Explanation(
        NUMBERED, "drop guard", "if (draws) {", "", "for no thread",
        "saves work: other modes do not look at what is drawn", most=2,
    ),
    Explanation(NUMBERED, "drop guard", LOAD, "", "for every thread", ONE_BY_ONE),
    Explanation(NUMBERED, "drop guard", LOAD, "", "for no thread", ONE_BY_ONE),
    Explanation(NUMBERED, "drop guard", PUT, "", "for no thread", FIRST_OF_VECTOR, most=1),
    Explanation(NUMBERED, "drop guard", STORE, "", "for", ONE_BY_ONE, most=3),
    Explanation(NUMBERED, "drop guard", TO, "", "for no thread", FIRST_OF_VECTOR, most=1),
    Explanation(NUMBERED, "drop guard", TO, "", "for every thread", DENSE, most=1),
    Explanation(NUMBERED, "widen compare", TO, r", [48];", "lt -> le", DENSE, most=1),
    Explanation(NUMBERED, "widen index", TO, r"\+(3|14)\]", "", DENSE, most=1),
    Explanation(
        NUMBERED, "drop guard", "if (i == 0 || !plan.parameters_step) {", "", "for every thread",
        "saves work: the way of each of four leads to the same parameters as the strides between them", most=6,
    ),
    Explanation(
        NUMBERED, "widen compare", "below = static_cast<float>(nearest) > t ? nearest - 1 : nearest", "", "lt -> le",
        "an integer less 1 and a fraction of 1, which is more than is ever drawn, is the integer", most=16,
    ),
    Explanation(MODES, "drop guard", "if (mode == QuantizeMode::kAffine)", "", "for no thread", AGAIN, most=8),
    Explanation(
        MODES, "drop guard", "rounded = mode == QuantizeMode::kStochastic", "", "for every thread", AGAIN, most=8
    ),
    Explanation(MODES, "", "> t ? nearest - 1 : nearest", "", "", AGAIN, most=16, unreached=True),
    Explanation(MODES, "", "return uniform < subtract(", "", "", AGAIN, most=24, unreached=True),
)  # fmt: skip

COLUMNS = "(de)?quantize_kernel of columns"
ROWS_OF_BLOCK = "for (int64_t row = first_row; row < end; row += kRows"
EACH_ROW = "saves work: each row is compared with the end again"
FIRST_ROW = "the first row of a step is before the end, or there would be no step"
READ = "if (row + u * ColumnsPlan::kRowsTogether < end) sources[u] = load_vector"
COLUMN_BY_COLUMN = (
    Explanation(COLUMNS, "drop guard", ROWS_OF_BLOCK, "", "for no thread", EACH_ROW),
    Explanation(COLUMNS, "widen compare", ROWS_OF_BLOCK, "", "", EACH_ROW, most=2),
    Explanation(COLUMNS, "drop guard", READ, "", "for no thread", FIRST_ROW),
    Explanation(COLUMNS, "widen compare", READ, r"^setp\.ge", "", FIRST_ROW),
    Explanation(
        COLUMNS, "drop guard", "if (row + u * ColumnsPlan::kRowsTogether < end)", "", "for no thread", FIRST_ROW
    ),
)

ROWS = "for (int64_t first = static_cast<int64_t>(blockIdx.x) * at_once"
GRID = "the launcher never starts more blocks than there are rows for"
NO_ROWS = "a step more, whose rows are all beyond the last: they have no elements and no results"
JOIN = "for (int apart = farthest / 2; apart >= nearest; apart /= 2)"
ROW_BY_ROW = (
    Explanation(DYNAMIC, "drop guard", ROWS, "", "for no thread", GRID),
    Explanation(DYNAMIC, "widen compare", ROWS, r"^setp\.ge", "", GRID),
    Explanation(DYNAMIC, "widen compare", ROWS, r"^setp\.lt", "", NO_ROWS),
    Explanation(
        DYNAMIC, "drop guard", "if (row_sum != nullptr) join_threads", "", "for no thread",
        "saves work: the sums are joined, and stored nowhere",
    ),
    Explanation(
        DYNAMIC, "drop guard", "if (threads <= kLanes) return;", "", "for no thread",
        "saves work: the state of a single warp comes back from shared memory as it was",
    ),
    Explanation(
        DYNAMIC, "widen compare", "", r"^setp\.lt\.s32 .*, 2;", "lt -> le",
        "joins the states of a single warp's lanes only: two threads are never asked for", most=2,
    ),
    Explanation(
        DYNAMIC, "drop guard", JOIN, "", "for no thread",
        "the first step is always made: here there are two warps or more", most=2,
    ),
    Explanation(
        DYNAMIC, "widen compare", JOIN, r"^setp\.gt\.s32 .*, 3;", "gt -> ge",
        "what is compared is a power of 2, and never 3", most=4,
    ),
    Explanation(
        DYNAMIC, "delete barrier", "__syncthreads();  // before the next states overwrite these", "", "",
        "of sums: before the next ones are written, the next ranges are joined, which has barriers of its own",
    ),
    Explanation(
        DYNAMIC, "widen compare", "is_finite(float a)", r"^setp\.gtu\.f32 .*, 0f7F7FFFFF;", "",
        "no bfloat16 and no difference of two is the largest float", most=33, subject="bfloat16",
    ),
    Explanation(DYNAMIC, "drop guard", LOAD, "", "for every thread", ONE_BY_ONE, most=8),
    Explanation(DYNAMIC, "drop guard", LOAD, "", "for no thread", WIDE, most=4),
    Explanation(DYNAMIC, "drop guard", PUT, "", "for every thread", WIDE, most=4),
    Explanation(DYNAMIC, "widen compare", PUT, r", [48];", "", WIDE, most=4),
    Explanation(DYNAMIC, "widen index", PUT, r"\+1[24]\]", "", WIDE, most=4),
    Explanation(DYNAMIC, "drop guard", STORE, "", "for", ONE_BY_ONE, most=8),
    Explanation(
        DYNAMIC, "drop guard", TO, "", "for no thread",
        "vectors without elements have been left out: the first element is always there", most=4,
    ),
)  # fmt: skip

ELEMENTWISE = (
    *ROW_BY_ROW,
    *COLUMN_BY_COLUMN,
    *WALK,
    *PARAMETERS,
    *JOINS,
    *QUOTIENTS,
    *SPANS,
    *NUMBER_BY_NUMBER,
)
