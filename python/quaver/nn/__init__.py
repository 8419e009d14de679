"""Modules whose products run in int8, and those that train a model for them."""

from quaver.nn.conv import QuantConv2d
from quaver.nn.embedding import QuantEmbedding
from quaver.nn.fake_quant import FakeQuantConv2d, FakeQuantLinear
from quaver.nn.linear import QuantLinear

__all__ = ["FakeQuantConv2d", "FakeQuantLinear", "QuantConv2d", "QuantEmbedding", "QuantLinear"]
