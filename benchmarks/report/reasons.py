"""Why others are faster where they are. Each loss of a result that is kept has its reason here; a test looks."""

import re
from dataclasses import dataclass

ANY = ""


@dataclass(frozen=True)
class Reason:
    """What it is about, as patterns that are searched for: an op's name, its case, the winner, the instruction set."""

    op: str
    words: str
    case: str = ANY
    winner: str = ANY
    instructions: str = ANY

    def fits(self, result, cell):
        """Whether it may be this cell's."""
        ours, winner = cell.ours, cell.peers[0].candidate
        case = f"{ours.case}, {ours.memory}, {ours.threads} threads"
        asked = (
            (self.op, ours.op),
            (self.case, case),
            (self.winner, winner),
            (self.instructions, result.about["instruction set"]),
        )
        return all(re.search(pattern, text) for pattern, text in asked)


MODELS = "MiniLM|EfficientNet|SmolLM2"
PRODUCTS = f"^(product|linear layer|convolution|{MODELS})"

# The first that fits is a loss's.
REASONS = (
    Reason(
        "stochastic",
        "the others round to nearest: nobody else draws random numbers, which take most of the time",
    ),
    Reason(
        "^requantize, fixed",
        "to be mended: each element's multiplier is made by a division of float64, where one for a column would do",
    ),
    Reason(
        "^(requantize|rescale)",
        "the others are given the product of both scales; quaver, as its matmuls do, multiplies them for each element",
    ),
    Reason(
        "^(quantize|fake_quantize)",
        "true division, ARITHMETIC.md (2), where the winner multiplies by 1 / scale and gives some other codes",
        case="per tensor",
        winner="^torch$",
    ),
    Reason(
        "^(quantize|fake_quantize)",
        "to be mended: NaN, saturation before the rounding and zero points cost instructions that torch.compile's"
        " expression does without; from memory little of it shows, on a machine that others use as well more",
        winner="compile|onnxruntime",
    ),
    Reason(
        "^dequantize",
        "both wait for memory, and such a machine's varies by as much from run to run",
        case="cold",
    ),
    Reason(
        "^dequantize",
        "a call of an op through the stable ABI takes some microseconds longer than one of torch's own",
        case="warm",
    ),
    Reason(
        "^a call of",
        "a call of an op through the stable ABI takes some microseconds longer than one of torch's own, and Python's"
        " checks of the arguments come on top",
    ),
    Reason(
        PRODUCTS,
        "to be mended: K is filled up to a multiple of 64 codes, which are multiplied",
        case="expand",
        instructions="^avx2$",
    ),
    Reason(
        PRODUCTS,
        "to be mended: sums of depthwise convolutions are made in 32 bits, tap by tap",
        case="depthwise",
        instructions="^avx2$",
    ),
    Reason(
        PRODUCTS,
        "to be mended, and not profiled yet: without VNNI exact products need codes of 16 bits, which are made on the"
        " way, in a loop that by its times does less than half of what its instructions allow",
        instructions="^avx2$",
    ),
)


def reason_of(result, cell):
    """The first that fits, or None."""
    return next((reason for reason in REASONS if reason.fits(result, cell)), None)


def given(result):
    """{reason's words: the cells that are lost for it}, in the cells' order; None stands for no reason."""
    found = {}
    for cell in result.cells:
        if cell.loses:
            reason = reason_of(result, cell)
            found.setdefault(reason and reason.words, []).append(cell)
    return found
