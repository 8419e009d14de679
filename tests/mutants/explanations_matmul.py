"""Survivors of the int8 matmuls' kernels that are explained."""

from .explanation import Explanation
from .explanations_linear import IN_K, NO_CODES, TURNS, ZEROS
from .explanations_requantize import SATURATES

GEMV, JOIN, TILES = "matmul_gemv_kernel", "matmul_join_kernel", "matmul_sm80_kernel"
EVERY = "matmul_.*_kernel"
CHUNKS, ANY = "<small, ", "<any small, "  # in the names of TILES' instances

ROUNDS = "for (uint32_t round = 0; tile_in_round(round) < tiling.tiles; ++round) {"
GROUP_ROWS = (
    "const int64_t rows = min(tiling.row_tiles - group * Tiling::kGroup, static_cast<int64_t>(Tiling::kGroup));"
)
DIMS = "if (dim < problem.batch_dims)"
SPLITS = "for (int split = 0; split < splits; ++split)"
STEPS = "for (int at = k; at < end; at += Tile::kK) {"
STAGES = "for (int stage = 0; stage < Tile::kStages - 1; ++stage)"
COLUMN_TILE = "place.row_tile * Tile::kM + part.row, place.column_tile * Tile::kN + part.column};"
GRID = "the launcher never starts more blocks than there are tiles"
NO_BATCH = "the strides of batch dimensions that are not there are 0, whatever the index in them"
ONE_ROW_OF_TILES = "up to 16 rows are one row of tiles, in the first group"
NO_STEP = "a step more, at K or with K = 0: its stage is all zeros, which add nothing"
STRICTER = "a stricter alignment than four results need: they are stored one by one"
ONE_BY_ONE = "saves work: results that could be stored in vectors are stored one by one as well"
NO_VECTORS = "saves work: what columns bring is loaded, and used for no vector"
NOT_FIXED = "in vectors no results of the fixed mode are stored: nobody asks for its bias"
GATHERED = "saves work: any layout can be gathered code by code, and codes in chunks can be copied in words"
ANY_ORDER = "only the order in which threads take chunks: which one is better depends on the strides"
SAME_PASS = "a pass without a line of its own repeats the last one's, which is the same line"


def alike(kernel, operator, source, reason, *, ptx="", change="", most=1, **how):
    return Explanation(kernel, operator, source, ptx, change, reason, most, **how)


PLACES = (
    alike(f"{GEMV}|{TILES}", "", ROUNDS, GRID, ptx=r"^(setp\.le|@%p\d+ bra)", change="le -> lt|for no thread", most=2),
    alike(GEMV, "widen scale", "", ONE_ROW_OF_TILES, ptx=r"^shl\.b64 .*, 3;", most=3),
    alike(EVERY, "drop guard", DIMS, NO_BATCH, change="for no thread", most=2),
)

FEW_ROWS = (
    alike(GEMV, "", TURNS, NO_CODES, most=3),
    alike(GEMV, "widen compare", IN_K, ZEROS, most=5),
    alike(GEMV, "drop condition", "load_codes(b_from[j] + at, in_k);", ZEROS, change="always"),
    alike(GEMV, "drop condition", "a[u][i] = rows.load(i, at, in_k);", ZEROS, change="always"),
    alike(GEMV, "drop condition", "if (!exists) return {};", ZEROS, change="alone", most=4),
    alike(GEMV, "shrink shared", "", "the pitch behind the last row is not used", ptx="smem_sum"),
)

TWO_PARTS = "there are two parts or more"
JOINED = (
    alike(JOIN, "drop guard", SPLITS, TWO_PARTS, change="for no thread"),
    alike(JOIN, "widen compare", "", TWO_PARTS, ptx=r"^setp\.lt\.s32 .*, 1;"),
)

LOADED = (
    alike(TILES, "", STEPS, NO_STEP, most=3),
    alike(TILES, "widen compare", "last = behind < kLinesOfPass ? 0 :", "the quotient is 0 there as well", most=2),
    alike(TILES, "", STAGES, SAME_PASS, subject=CHUNKS, most=4),
    alike(TILES, "drop guard", "if (layout == OperandLayout::kChunks)", GATHERED, change="for no thread", most=4),
    alike(TILES, "drop guard", "if (layout <= OperandLayout::kWords)", GATHERED, change="for no thread", most=4),
    alike(
        TILES, "drop guard", "else if (layout == OperandLayout::kTransposed)", GATHERED, change="for no thread", most=4
    ),
    alike(TILES, "drop guard", "const int line = along_k ?", ANY_ORDER, most=8),
)

STORED = (
    alike(
        TILES,
        "widen scale",
        "const WarpPart<Tile> part(computed_anew(threadIdx.x));",
        "warps' slices lie further apart, and still where stages were",
        ptx=r", 2560,",
        subject=CHUNKS,
    ),
    alike(TILES, "widen compare", "", "what has 2 bytes has not 4", ptx=r"^setp\.gt\.u32 .*, 1;"),
    alike(TILES, "drop condition", "", "what has 2 bytes has not 4", ptx=r"^and\.pred", change="alone"),
    alike(TILES, "drop condition", COLUMN_TILE, STRICTER, change="always", most=2),
    alike(TILES, "widen compare", COLUMN_TILE, STRICTER, change="lt -> le"),
    alike(TILES, "drop guard", "if (vectors) load_columns<Tile>", NO_VECTORS, change="for no thread"),
    alike(TILES, "drop guard", "if (vectors) {", ONE_BY_ONE, change="for every thread"),
    alike(TILES, "drop guard", "if (view.data == nullptr) return absent;", NOT_FIXED, change="for every thread"),
    alike(TILES, "", "return view.data[offset_of(place, view.batch_stride)", NOT_FIXED, most=2, unreached=True),
    alike(TILES, "widen index", "slice.row[i][in_row] = field[i];", NOT_FIXED, ptx=r"\+960\]"),
    alike(EVERY, "widen compare", "if (shift > 30)", SATURATES, ptx=r", 30;", change="gt -> ge"),
)

MATMULS = (*PLACES, *FEW_ROWS, *JOINED, *LOADED, *STORED)
