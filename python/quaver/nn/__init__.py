"""Modules whose products run in int8, and those that train a model for them."""

from quaver.nn.embedding import QuantEmbedding
from quaver.nn.fake_quant import FakeQuantLinear
from quaver.nn.linear import QuantLinear

__all__ = ["FakeQuantLinear", "QuantEmbedding", "QuantLinear"]
