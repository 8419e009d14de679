"""What the five source notebooks print, as plain literals: what went in, what came out, and where that is wrong.

Texts have single spaces where the notebooks align columns. `not_ours` holds the fields that quaver does not print:
why, and what it prints instead.
"""

from typing import NamedTuple


class Example(NamedTuple):
    replay: str  # the function of test_notebooks.py that computes the fields again
    x: object  # the numbers that go in
    printed: dict  # field: text
    not_ours: dict = {}  # field: (reason, our text)  # noqa: RUF012


SEVEN = [5.47, 3.08, -7.59, 0.0, -1.95, -4.57, 10.8]
OUTLIER = [-0.59, -0.21, -0.07, -0.13, 0.28, 0.57, 256.0]
SEED_8215 = [0.21535037, 1.2962357, -1.0161772]  # the first three of numpy's randn, as float32
SEED_1 = [1.6243454, -0.6117564, -0.5281718]
SEED_0 = [  # the first nine of torch's randn
    [1.5409960746765137, -0.293428897857666, -2.1787893772125244],
    [0.5684312582015991, -1.0845223665237427, -1.3985954523086548],
    [0.40334683656692505, 0.8380263447761536, -0.7192575931549072],
]
SEED_0_TEXT = "tensor([[ 1.5410, -0.2934, -2.1788], [ 0.5684, -1.0845, -1.3986], [ 0.4033, 0.8380, -0.7193]])"

NUMPY_1 = "numpy 1 divided a float32 by an int in float64; this is the same quotient, rounded to float32"

EXAMPLES = {
    "seven numbers": Example(
        "asymmetric_torch",
        SEVEN,
        {
            "x_max": "10.800000190734863",
            "x_min": "-7.590000152587891",
            "scale": "0.0721176415681839",
            "zero point before rounding": "-22.755294799804688",
            "zero point": "-23.0",
            "codes": "tensor([ 53, 20, -128, -23, -50, -86, 127], dtype=torch.int8)",
            "x_hat": "tensor([ 5.4809, 3.1011, -7.5724, 0.0000, -1.9472, -4.5434, 10.8176])",
            "error": "tensor([-0.0109, -0.0211, -0.0176, 0.0000, -0.0028, -0.0266, -0.0176])",
        },
    ),
    "an outlier": Example(
        "truncated",
        OUTLIER,
        {
            "scale": "2.0157480239868164",
            "codes": "tensor([ 0, 0, 0, 0, 0, 0, 127], dtype=torch.int8)",
        },
    ),
    "an outlier, clipped to 5": Example(
        "truncated",
        [min(value, 5.0) for value in OUTLIER],
        {
            "scale": "0.03937007859349251",
            "codes": "tensor([-14, -5, -1, -3, 7, 14, 127], dtype=torch.int8)",
        },
    ),
    "no zero point, seed 8215": Example(
        "no_zero_point",
        SEED_8215,
        {
            "x": "[ 0.21535037 1.2962357 -1.0161772 ]",
            "scale": "0.00906828525019627",
            "before saturation": "[ 24. 143. -112.]",
            "codes": "[ 24. 127. -112.]",
            "x_hat": "[ 0.21763885 1.1516722 -1.0156479 ]",
            "error": "[ 0.00228848 -0.14456344 0.00052929]",
        },
        {"scale": (NUMPY_1, "0.00906828511506319")},
    ),
    "symmetric, seed 8215": Example(
        "symmetric_numpy",
        SEED_8215,
        {
            "x": "[ 0.21535037 1.2962357 -1.0161772 ]",
            "scale": "0.01020658016204834",
            "codes": "[ 21. 127. -100.]",
            "x_hat": "[ 0.21433818 1.2962357 -1.020658 ]",
            "error": "[-0.00101219 0. -0.00448084]",
        },
    ),
    "asymmetric, seed 8215": Example(
        "asymmetric_numpy",
        SEED_8215,
        {
            "x": "[ 0.21535037 1.2962357 -1.0161772 ]",
            "scale": "0.00906828525019627",
            "zero point": "-16.0",
            "codes": "[ 8. 127. -128.]",
            "x_hat": "[ 0.21763885 1.2967647 -1.0156479 ]",
            "error": "[0.00228848 0.00052905 0.00052929]",
        },
        {"scale": (NUMPY_1, "0.00906828511506319")},
    ),
    "asymmetric, seed 1": Example(
        "asymmetric_numpy",
        SEED_1,
        {
            "x": "[ 1.6243454 -0.6117564 -0.5281718]",
            "scale": "0.008769026924582089",
            "zero point": "-58.0",
            "codes": "[ 127. -128. -118.]",
            "x_hat": "[ 1.62227 -0.6138319 -0.52614164]",
            "error": "[-0.00207543 -0.00207549 0.00203013]",
        },
        {"scale": (NUMPY_1, "0.008769026957452297")},
    ),
    "symmetric, seed 1": Example(
        "symmetric_numpy",
        SEED_1,
        {
            "x": "[ 1.6243454 -0.6117564 -0.5281718]",
            "scale": "0.012790121431425801",
            "codes": "[127. -48. -41.]",
            "x_hat": "[ 1.6243454 -0.6139258 -0.524395 ]",
            "error": "[ 0. -0.00216943 0.00377679]",
        },
        {"scale": (NUMPY_1, "0.012790121138095856")},
    ),
    "the saturated maximum in prose": Example(
        "saturated_maximum",
        SEED_1,
        {"x_hat": "1.1062843"},
        {
            "x_hat": (
                "it belongs to other data and another formula: 127 * 0.0087109, where 0.0087109 is the range of the "
                "rounded data divided by 256 instead of 255, and cut to five digits",
                "1.1136664",
            )
        },
    ),
    "ten numbers": Example(
        "uniform",
        [10.0, -10.0, 0.11, 0.21, 0.15, 0.05, -0.14, -0.22, -0.08, -0.35],
        {"codes": "[127, -127, 1, 3, 2, 1, -2, -3, -1, -5]"},
        {
            "codes": (
                "a slip in the last code: -0.35 / (20 / 255) = -4.46, and no one rounding gives all ten",
                "[127, -127, 1, 3, 2, 1, -2, -3, -1, -4]",
            )
        },
    ),
    "0.3 * 0.5 through int8": Example(
        "product",
        ((0.3, (-1.2, 1.0)), (0.5, (-1.0, 1.2)), (-0.8, 2.0)),  # (a, its range), (b, its range), the product's range
        {
            "S1": "0.008627451",
            "Z1": "11",
            "code of a": "46",
            "S2": "0.008627451",
            "Z2": "-12",
            "code of b": "46",
            "S3": "0.010980392",
            "Z3": "-55",
            "M": "0.006778711",
            "a * b": "0.142745",
        },
        {"a * b": ("M * 2030 = 13.76 was truncated to 13 steps of S3; the nearest code is 14 steps away", "0.153725")},
    ),
    "symmetric per tensor": Example(
        "tool",
        (SEED_0, {}),
        {
            "x": SEED_0_TEXT,
            "params": "QuantizationParams(scale=tensor(0.0172), zero_point=tensor(0.), q_min=-128, q_max=127)",
            "codes": "tensor([[ 90, -17, -127], [ 33, -63, -82], [ 24, 49, -42]], dtype=torch.int8)",
            "x_hat": "tensor([[ 1.5440, -0.2916, -2.1788], [ 0.5661, -1.0808, -1.4068], [ 0.4117, 0.8406, -0.7205]])",
        },
    ),
    "symmetric per channel": Example(
        "tool",
        (SEED_0, {"per_channel": True}),
        {
            "x": SEED_0_TEXT,
            "params": "QuantizationParams(scale=tensor([[0.0172], [0.0110], [0.0066]]), "
            "zero_point=tensor([[0.], [0.], [0.]]), q_min=-128, q_max=127)",
            "codes": "tensor([[ 90, -17, -127], [ 52, -98, -127], [ 61, 127, -109]], dtype=torch.int8)",
            "x_hat": "tensor([[ 1.5440, -0.2916, -2.1788], [ 0.5727, -1.0792, -1.3986], [ 0.4025, 0.8380, -0.7193]])",
            "error": "tensor([[ 3.0279e-03, 1.7799e-03, 0.0000e+00], [ 4.2220e-03, 5.2912e-03, 0.0000e+00], "
            "[-8.3023e-04, 0.0000e+00, 6.6161e-06]])",
        },
    ),
    "asymmetric per tensor": Example(
        "tool",
        (SEED_0, {"sym": False}),
        {
            "x": SEED_0_TEXT,
            "params": "QuantizationParams(scale=tensor(0.0146), zero_point=tensor(21.), q_min=-128, q_max=127)",
            "codes": "tensor([[ 127, 1, -128], [ 60, -53, -75], [ 49, 78, -28]], dtype=torch.int8)",
            "x_hat": "tensor([[ 1.5463, -0.2917, -2.1735], [ 0.5689, -1.0795, -1.4004], [ 0.4084, 0.8315, -0.7148]])",
        },
    ),
    "asymmetric per channel": Example(
        "tool",
        (SEED_0, {"per_channel": True, "sym": False}),
        {
            "x": SEED_0_TEXT,
            "params": "QuantizationParams(scale=tensor([[0.0146], [0.0077], [0.0061]]), "
            "zero_point=tensor([[ 21.], [ 53.], [-10.]]), q_min=-128, q_max=127)",
            "codes": "tensor([[ 127, 1, -128], [ 127, -88, -128], [ 56, 127, -128]], dtype=torch.int8)",
            "x_hat": "tensor([[ 1.5463, -0.2917, -2.1735], [ 0.5708, -1.0877, -1.3962], [ 0.4031, 0.8367, -0.7206]])",
            "error": "tensor([[ 0.0053, 0.0017, 0.0053], [ 0.0024, -0.0031, 0.0024], [-0.0003, -0.0014, -0.0014]])",
        },
    ),
}

# Three ways to write the zero point of a range (lo, hi), each seen in a notebook:
# round(q_min - lo / s), q_min - round(lo / s), q_max - round(hi / s).
ZERO_POINTS = {
    (-7.59, 10.8): (-23, -23, -23),
    (-1.0161772, 1.2962357): (-16, -16, -16),
    (-0.6117564, 1.6243454): (-58, -58, -58),
    (-2.1787893772125244, 1.5409960746765137): (21, 21, 21),
    (-1.3985954523086548, 0.5684312582015991): (53, 53, 53),
    (-0.7192575931549072, 0.8380263447761536): (-10, -10, -10),
    (-0.5, 254.5): (-128, -128, -127),  # ties at both ends: even neighbours are not 255 steps apart
    (-1.5, 253.5): (-126, -126, -127),
    (-1.0, 1.0): (-1, -1, 0),  # lo / s is an ulp short of -127.5
    (-1.4999999, 253.5): (-126, -127, -127),  # -128 + 1.4999999 is rounded to -126.5, a tie
}

# Where the notebook's formulas fail: what goes in, the largest error that they make (NaN: all is lost), and our
# (scale as a quotient, zero point, codes). Asymmetric first, then symmetric.
NAN = float("nan")
TRAPS = {
    "no 0 in the range": (
        [2.0, 4.0, 6.0, 8.0, 10.0],
        "float32",
        (2.0, ((10.0, 255), -128, [-77, -26, 25, 76, 127])),
        (0.03149604797363281, ((10.0, 127), 0, [25, 51, 76, 102, 127])),
    ),
    "no 0 in the range, negative": (
        [-10.0, -8.0, -6.0, -4.0, -2.0],
        "float32",
        (2.0, ((10.0, 255), 127, [-128, -77, -26, 25, 76])),
        (0.03149604797363281, ((10.0, 127), 0, [-127, -102, -76, -51, -25])),
    ),
    "one value": (
        [3.7, 3.7, 3.7, 3.7],
        "float32",
        (3.6999974250793457, ((3.7, 255), -128, [127, 127, 127, 127])),
        (0.0, ((3.7, 127), 0, [127, 127, 127, 127])),
    ),
    "zeros": (
        [0.0, 0.0, 0.0, 0.0],
        "float32",
        (0.0, ((1.0, 1), -128, [-128, -128, -128, -128])),
        (0.0, ((1.0, 1), 0, [0, 0, 0, 0])),
    ),
    "float16 zeros": (
        [0.0, 0.0, 0.0, 0.0],
        "float16",
        (NAN, ((1.0, 1), -128, [-128, -128, -128, -128])),
        (0.0, ((1.0, 1), 0, [0, 0, 0, 0])),
    ),
    "a range that overflows": (
        [-3e38, 3e38],
        "float32",
        (NAN, ((3e38, 127.5), 0, [-128, 127])),
        (0.0, ((3e38, 127), 0, [-127, 127])),
    ),
    "a NaN": (
        [1.0, NAN, -2.0],
        "float32",
        (NAN, ((3.0, 255), 42, [127, 42, -128])),
        (NAN, ((2.0, 127), 0, [64, 0, -127])),
    ),
}
