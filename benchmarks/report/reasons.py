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
        "the others multiply floats; TFLite's integers take products of 64 bits, and each scale a division of float64",
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
        "NaN, saturation before the rounding and zero points, ARITHMETIC.md (2), are instructions that the others'"
        " expressions do without; other ways to write them were no faster",
        winner="compile|onnxruntime|eager",
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
        "the products alone take 1 to 40 us, the call more: it goes through the stable ABI, and Python's checks of the"
        " arguments come on top",
        case=r"[^\d](1 x \d+|16 x (112|144|384)) x \d+",
        instructions="^avx2$",
    ),
    Reason(
        "^(linear layer|MiniLM|EfficientNet|SmolLM2)",
        "torch gives activations 7 bits (reduce_range), so that pairs of products fit into 16: three instructions in"
        " the place of four, for codes that are half as fine",
        winner="^torch$",
        instructions="^avx2$",
    ),
    Reason(
        PRODUCTS,
        "without VNNI, what is fastest adds up pairs of products in 16 bits, where they saturate: see how much of the"
        " product of the largest codes they find; layers of onnxruntime find half. Sums that are exact take codes of 16"
        " bits, and four instructions in the place of three",
        winner="^(oneDNN|onnxruntime|torch)$",
        instructions="^avx2$",
    ),
    Reason(
        PRODUCTS,
        "along K there are so few codes that results, not products, take the time, and their way through the epilogue"
        " is longer than a float product's",
        case="expand|depthwise",
        winner="^(float32|eager|torch._int_mm)$",
        instructions="^avx2$",
    ),
    Reason(
        PRODUCTS,
        "its convolutions that expand and its depthwise ones are behind float32's, as above, and each layer quantizes"
        " the floats that it is given",
        case="^\\d+ pictures",
        winner="^float32$",
        instructions="^avx2$",
    ),
    Reason(
        PRODUCTS,
        "other work on the machine decided: in other runs quaver was faster",
        case="2 threads|128 x 112 x 672",
        winner="^float32$",
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
