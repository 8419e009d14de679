"""Survivors of linear_gemv_kernel that are explained."""

from .explanation import Explanation
from .explanations_elementwise import BOUNDARY, JOIN, ONE_BY_ONE
from .explanations_reductions import WIDEST
from .explanations_rows import BARRIER, LOAD_OF_ROW

LINEAR = "linear_gemv_kernel"
TILES = "for (uint32_t round = 0; tile_in_round(round) < tiles; ++round) {"
TURNS = "for (int k = first + warp * Gemv::kTurn; k < end; k += Gemv::kUnroll * kAround) {"
IN_K = "const bool in_k = at + own < end;"
NO_COLUMNS = "a round more: its columns are all beyond the last, which stands for them, and are not stored"
NO_CODES = "a turn more, at K: there the codes of neither operand are read, and zeros add nothing"
ZEROS = "of a row that is not there, or of codes beyond K, either the address or the reading is let off: one is enough"


def alike(operator, source, reason, *, ptx="", change="", most=1, **how):
    return Explanation(LINEAR, operator, source, ptx, change, reason, most, **how)


LINEARS = (
    alike("drop guard", LOAD_OF_ROW, ONE_BY_ONE, change="for every thread", most=6),
    alike("drop guard", LOAD_OF_ROW, ONE_BY_ONE, change="for no thread", most=4),
    alike("widen compare", "bool is_finite(float a)", WIDEST, most=17, subject="bfloat16"),
    alike(
        "widen compare", "bool is_finite(float a)",
        "a range as wide as the largest float: the scale is the same by either formula", subject="<float>",
    ),
    alike("widen compare", JOIN, "a round more joins a range with itself, which changes none", ptx=r", 1;"),
    alike("delete barrier", BARRIER, "ranges are joined once: nothing overwrites them"),
    alike("widen compare", "factor = given < kSmall ? kRaise", BOUNDARY, most=2),
    alike("", TILES, NO_COLUMNS, most=3),
    alike("", TURNS, NO_CODES, most=2),
    alike("widen compare", "const int warp = threadIdx.x / kLanes;", NO_CODES),
    alike("widen compare", IN_K, ZEROS, most=4),
    alike("drop condition", IN_K, ZEROS, change="always"),
    alike("drop condition", "b[u][j] = load_codes(b_from[j] + at, in_k);", ZEROS, change="always"),
    alike("drop condition", "if (!in_k || !exists) return {};", ZEROS, change="alone", most=2),
    alike(
        "drop condition", "a[u][i] = rows.load(i, at, in_k);", "ones in more rows than the one that is read",
        change="always",
    ),
    alike("shrink shared", "", "the pitch behind the last row is not used", ptx="smem_sum"),
    alike("shrink shared", "", "the pitch behind the last row's codes is not used", change="16 bytes less of dynamic"),
    alike(
        "shrink shared", "", "runs into the shared memory behind it", ptx="smem_chosen", most=2, verdict="known hole",
    ),
)  # fmt: skip
