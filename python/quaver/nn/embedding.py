"""QuantEmbedding: torch.nn.Embedding with rows of int8."""

import torch

from quaver import ops
from quaver.nn.config import check_fields, dtype_name, result_dtype
from quaver.nn.module import Int8Module, quantized_weight
from quaver.qparams import PerToken


class QuantEmbedding(Int8Module):
    """torch.nn.Embedding whose table is int8, one scale for each row: y = weight_scale[i] * weight_q[i].

    A quarter of a float32 table's memory; only the rows that are asked for become real numbers.

    Arguments:
        num_embeddings, embedding_dim, padding_idx, device: as for torch.nn.Embedding.
        dtype: of the result.

    Its state is `weight_q` int8 [V, D] and `weight_scale` float32 [V, 1], which no conversion of dtype changes.

    >>> import torch, quaver
    >>> table = torch.nn.Embedding.from_pretrained(torch.tensor([[0.5, -1.0], [0.0, 2.54]]))
    >>> quaver.nn.QuantEmbedding.from_float(table)(torch.tensor([1, 0, 1]))
    tensor([[ 0.0000,  2.5400],
            [ 0.5039, -1.0000],
            [ 0.0000,  2.5400]])
    """

    float_type = torch.nn.Embedding

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None, *, dtype=torch.float32, device=None):
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.dtype = dtype
        self.register_buffer("weight_q", torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.ones(num_embeddings, 1, device=device))

    @classmethod
    @torch.no_grad()
    def from_float(cls, embedding):
        """The int8 table for a torch.nn.Embedding, which stays as it is.

        One with max_norm, which changes its table as it is read, is refused with a ValueError.
        """
        if embedding.max_norm is not None:
            raise ValueError(f"QuantEmbedding: max_norm changes the table as it is read, got {embedding.max_norm}")
        weight = embedding.weight
        table = cls(
            embedding.num_embeddings,
            embedding.embedding_dim,
            embedding.padding_idx,
            dtype=weight.dtype,
            device=weight.device,
        )
        table.weight_q, table.weight_scale = quantized_weight(weight, PerToken(), None)
        return table.train(embedding.training)

    def config(self):
        """What JSON can hold of the constructor's arguments."""
        names = ("num_embeddings", "embedding_dim", "padding_idx")
        return {name: getattr(self, name) for name in names} | {"dtype": dtype_name(self.dtype)}

    @classmethod
    def from_config(cls, config, device=None):
        """A table whose state has the names, shapes and dtypes of the one that gave the config, and other values.

        Raises ValueError for what is no such config.
        """
        check_fields(config, num_embeddings=int, embedding_dim=int, padding_idx=(int, type(None)), dtype=str)
        return cls(**{**config, "dtype": result_dtype(config["dtype"])}, device=device)

    def forward(self, input):
        """Indices, int32 or int64 of any shape [...], to [..., D]."""
        rows = torch.nn.functional.embedding(input, self.weight_q)
        scale = torch.nn.functional.embedding(input, self.weight_scale)
        return ops.dequantize(rows, scale, dtype=self.dtype)

    def extra_repr(self):
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
