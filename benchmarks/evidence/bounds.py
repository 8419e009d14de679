"""What every case is held to, and the cases that are held to less, each with its reason."""

import re
from dataclasses import dataclass

from .counted import WHOLE_OP

# Stack and local memory are where spilled registers go.
SPILLS = ("stack_bytes", "local_bytes")
# 32-byte sectors of global memory and wavefronts of shared memory, against the fewest that could carry the same bytes.
ACCESSES = {"sectors_over_ideal": 1.05, "wavefronts_over_ideal": 1.05}
# Every element is read once and written once by the ops that memory bounds; a product reads its tiles again.
BYTES = "bytes_over_compulsory"
MOST_BYTES = 1.02
BOUND_BY_MEMORY = (
    "choose_qparams",
    "quantize",
    "dynamic_quantize",
    "rms_norm_quantize",
    "silu_mul_quantize",
    "rescale",
    "requantize",
    "dequantize",
    "fake_quantize",
    "fake_quantize_mask",
)
# Cycles to issue the main loop of the matmul's large tile, for each mma: what other instructions there are must fit in
# between, since the tensor cores take one in 8 cycles on an A100 and in 16 on consumer chips.
CYCLES = "loop_cycles_of_mma"
LARGE_TILE = "MmaTile<0,"
MOST_CYCLES = {"sm_80": 8.1, "sm_86": 16.1, "sm_89": 16.1, "sm_120": 16.1}


@dataclass(frozen=True)
class Looser:
    """A bound that some cases do not reach. Patterns are searched in the row's op, case and kernel."""

    quantity: str
    most: float
    op: str
    case: str
    kernel: str
    reason: str

    def covers(self, row):
        return all(
            re.search(pattern, text)
            for pattern, text in ((self.op, row["op"]), (self.case, row["case"]), (self.kernel, row["kernel"]))
        )


LOOSER = (
    Looser(
        "sectors_over_ideal", 1.65, "^(quantize|dequantize)$", "float32.*misaligned", "<(0, )?float, 4>",
        "x and q lie differently against 16 bytes. Vectors follow x; a thread's four codes take an access each, and the"
        " four accesses of a warp meet the same sectors",
    ),
    Looser(
        "sectors_over_ideal", 3.3, "^(quantize|dequantize)$", "bfloat16.*misaligned", ", 8>",
        "as for float32, with eight codes of a thread",
    ),
    Looser(
        "sectors_over_ideal", 3.0, "^(quantize|dequantize)$", "float32.*channel 1, odd rows", "EachPlan",
        "each row's parameters lie differently against 16 bytes, and are read one by one: the four accesses of a warp"
        " meet the same sectors",
    ),
    Looser(
        "sectors_over_ideal", 6.5, "^(quantize|dequantize)$", "bfloat16.*channel 1, odd rows", "EachPlan",
        "as for float32, with the parameters of eight elements",
    ),
    Looser(
        "sectors_over_ideal", 2.9, "quantize", "float32.*channel 1", "NumberedPlan",
        "a thread reads the parameters of its four elements one by one: the four accesses of a warp meet the same"
        " sectors",
    ),
    Looser(
        "sectors_over_ideal", 6.2, "quantize", "bfloat16.*channel 1", "NumberedPlan",
        "as for float32, with the parameters of eight elements",
    ),
    Looser(
        "sectors_over_ideal", 2.0, "^(choose_qparams|quantize|dequantize)$", "every second element", "",
        "half of each sector is not the tensor's",
    ),
    Looser(
        "sectors_over_ideal", 4.8, "^int8_matmul$", "65x63x100", "SumCodes",
        "rows of 100 codes: most requests are of heads and tails, code by code, by lanes on different rows",
    ),
    Looser(
        "sectors_over_ideal", 1.33, "^int8_matmul", "65x63x100", "AnyOperands",
        "rows of 100 codes begin anywhere in a sector, and results of 63 columns are stored one by one",
    ),
    Looser(
        "sectors_over_ideal", 1.17, "^(requantize|rescale)$", "odd rows", "(requantize|rescale)_elements_kernel",
        "a warp's 32 neighbours begin anywhere, and their codes and products meet one sector more",
    ),
    Looser(
        "sectors_over_ideal", 1.06, "^choose_qparams$", "float32.*misaligned", "reduce_along_kernel",
        "a warp's vectors begin 16 bytes before a sector does, and 1,024 elements are few beside a row's head and tail",
    ),
    Looser(
        "sectors_over_ideal", 3.4, "^int8_conv2d$", "3 channels", "conv2d_sm80",
        "pixels of 3 codes begin anywhere: they are gathered code by code, by lanes on different pixels",
    ),
    Looser(
        "sectors_over_ideal", 1.33, "^int8_conv2d$", " contiguous$", "conv2d_sm80",
        "the codes of a pixel's channels lie an image apart: they are gathered code by code",
    ),
    Looser(
        "wavefronts_over_ideal", 1.45, "^int8_conv2d$", " contiguous$", "conv2d_sm80",
        "results of neighbouring pixels are stored together: they are read down the columns of a slice",
    ),
    Looser(
        "sectors_over_ideal", 1.36, "^int8_conv2d$", "channels_last, depthwise", "conv2d_depthwise",
        "a lane reads what its four channels bring one by one, and the four accesses of a warp meet the same sectors",
    ),
    Looser(
        "sectors_over_ideal", 1.24, "^int8_conv2d$", "contiguous, depthwise", "conv2d_depthwise",
        "a warp's 32 neighbours in a line begin anywhere, one tap further each time",
    ),
    Looser(
        BYTES, 2.01, "^dynamic_quantize$", "20000", "",
        "rows that registers cannot hold are read twice, and their codes once more for row sums",
    ),
    Looser(
        "sectors_over_ideal", 3.75, "^(rms_norm|silu_mul)_quantize$", "odd rows|misaligned", "<float>",
        "a place in a vector is a place in the row, for the order of its sum and for two tensors that lie differently:"
        " what is not aligned is read and written element by element, each time the same sectors",
    ),
    Looser(
        "sectors_over_ideal", 7.3, "^(rms_norm|silu_mul)_quantize$", "odd rows|misaligned", "<__nv_bfloat16>",
        "a place in a vector is a place in the row, for the order of its sum and for two tensors that lie differently:"
        " what is not aligned is read and written element by element, each time the same sectors",
    ),
)  # fmt: skip


def standard_limits(row):
    """{quantity: most} for a row of the table."""
    limits = {}
    if row["kernel"] != WHOLE_OP:
        limits |= {**dict.fromkeys(SPILLS, 0), **ACCESSES}
    if row["op"] in BOUND_BY_MEMORY and row[BYTES] is not None:
        limits[BYTES] = MOST_BYTES
    if LARGE_TILE in row["kernel"] and row.get(CYCLES) is not None and row["architecture"] in MOST_CYCLES:
        limits[CYCLES] = MOST_CYCLES[row["architecture"]]
    return limits


def looser_limits(row):
    """{quantity: Looser} of those that cover a row."""
    return {each.quantity: each for each in LOOSER if each.covers(row)}


def broken(rows):
    """Each case that breaks a bound, in words."""
    problems = []
    for row in rows:
        looser = looser_limits(row)
        for quantity, standard in standard_limits(row).items():
            most = looser[quantity].most if quantity in looser else standard
            if row[quantity] > most:
                where = f"{row['case']} on {row['architecture']}, {row['kernel']}"
                problems.append(f"{where}: {quantity} is {row[quantity]}, the bound {most}")
    return problems


def unneeded(rows):
    """The looser bounds that no row needs."""
    needed = {
        each
        for row in rows
        for quantity, each in looser_limits(row).items()
        if row[quantity] is not None and row[quantity] > standard_limits(row).get(quantity, row[quantity])
    }
    return [each for each in LOOSER if each not in needed]
