"""QuantEmbedding: rows of int8 that become real numbers as they are read."""

import copy

import pytest
import torch

from quaver import reference
from quaver.nn import QuantEmbedding
from tests.cases import DEVICES, FLOAT_DTYPES, assert_bits, normal


def embedding(rows=11, width=48, dtype=torch.float32, **options):
    return torch.nn.Embedding(rows, width, _weight=normal(rows, width, dtype=dtype), **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_rows_are_the_reference(dtype, device):
    table = embedding(dtype=dtype)
    q, scale, _, _ = reference.dynamic_quantize(table.weight.detach(), (11, 1))
    every = reference.dequantize(q, scale, dtype=dtype)
    made = QuantEmbedding.from_float(table).to(device)
    for indices in (torch.arange(11), torch.tensor(3), torch.tensor([[2, 2], [10, 0]]), torch.zeros(0, 2).long()):
        for kind in (torch.int64, torch.int32):
            assert_bits(made(indices.to(device, kind)), every[indices])


def test_the_row_of_padding_is_zero():
    table = embedding(padding_idx=4)
    with torch.no_grad():
        table.weight[4] = 0
    made = QuantEmbedding.from_float(table)
    assert_bits(made(torch.tensor([4])), torch.zeros(1, 48))
    assert repr(made) == "QuantEmbedding(11, 48, padding_idx=4)"


def test_state_and_conversions():
    made = QuantEmbedding.from_float(embedding())
    assert list(made.state_dict()) == ["weight_q", "weight_scale"]
    indices = torch.tensor([3, 1])
    for other in (copy.deepcopy(made).half(), QuantEmbedding(11, 48)):
        other.load_state_dict(made.state_dict())
        assert_bits(other(indices), made(indices))


def test_a_quarter_of_the_memory():
    table = embedding(1000, 256)
    bytes_of = lambda module: sum(tensor.nbytes for tensor in module.state_dict().values())  # noqa: E731
    assert bytes_of(QuantEmbedding.from_float(table)) == bytes_of(table) / 4 + 4 * 1000


def test_compiled_and_exported():
    made = QuantEmbedding.from_float(embedding()).eval()
    indices = torch.tensor([[2, 9], [10, 0]])
    assert_bits(torch.compile(made, fullgraph=True)(indices), made(indices))
    assert_bits(torch.export.export(made, (indices,)).module()(indices), made(indices))


def test_a_table_that_changes_as_it_is_read_is_refused():
    with pytest.raises(ValueError, match=r"QuantEmbedding: max_norm changes the table as it is read, got 1\.0"):
        QuantEmbedding.from_float(embedding(max_norm=1.0))


def test_an_index_that_does_not_exist_is_refused():
    with pytest.raises(IndexError):
        QuantEmbedding.from_float(embedding())(torch.tensor([11]))
