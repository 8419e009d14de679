"""QuantLinear in parts on 2 and on 4 processes: the bits of the layer in one."""

import copy

import pytest
import torch
from torch import distributed, multiprocessing
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, Replicate, Shard, init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module

import quaver
from quaver.parallel import ColwiseParallel, RowwiseParallel
from tests.cases import assert_bits, normal

WHOLE = Replicate()


def layers():
    """(layer, x): of every kind, of sizes that divide evenly and that do not."""
    for k, n in ((64, 32), (37, 22), (3, 5)):
        for bias in (True, False):
            linear = torch.nn.Linear(k, n, bias=bias)
            rows = normal(9, k) * torch.logspace(-3, 3, 9)[:, None]
            rows[2, 1], rows[3, 0], rows[4] = torch.nan, torch.inf, 0
            for options in (
                {"symmetric": True},
                {"symmetric": False},
                {"symmetric": False, "relu": True, "weights": quaver.PerTensor()},
            ):
                layer = quaver.QuantLinear.from_float(linear, **options)
                yield layer, rows
                yield layer, rows.bfloat16()
                yield layer, rows.reshape(3, 3, k)
                yield layer, rows[0]
            seen = quaver.choose_qparams(rows, symmetric=False)
            made = quaver.choose_qparams(linear(rows).detach())
            for output in (None, made):
                layer = quaver.QuantLinear.from_float(linear, input=seen, output=output)
                yield layer, rows
                yield layer, quaver.quantize(rows, seen)


def check_layers(mesh):
    torch.manual_seed(0)
    for layer, x in layers():
        expected = layer(x)
        own = own_part(x, mesh)
        for style, given in (
            (ColwiseParallel(output_layouts=WHOLE), x),
            (ColwiseParallel(input_layouts=Shard(-1), output_layouts=WHOLE), own),
            (RowwiseParallel(), own),
            (RowwiseParallel(input_layouts=WHOLE), x),
        ):
            cut = parallelize_module(copy.deepcopy(layer), mesh, style)
            for _ in range(2):  # the second time with a packed weight
                assert_bits(cut(given), expected)
        cut = parallelize_module(copy.deepcopy(layer), mesh, ColwiseParallel(use_local_output=False))
        y = cut(x)
        assert y.placements == (Shard(expected.dim() - 1),)
        assert_bits(y.full_tensor(), expected)


def own_part(x, mesh):
    """This process's columns of x, as torch cuts them."""
    parts = x.chunk(mesh.size(), -1)
    rank = mesh.get_local_rank()
    return parts[rank].contiguous() if rank < len(parts) else x[..., :0]


class Block(torch.nn.Module):
    """Codes from layer to layer, or floats."""

    def __init__(self, static):
        super().__init__()
        up, down, x = torch.nn.Linear(24, 40), torch.nn.Linear(40, 24), normal(50, 24)
        seen, between = (
            (quaver.choose_qparams(x), quaver.choose_qparams(up(x).relu().detach(), symmetric=False))
            if static
            else (None, None)
        )
        self.up = quaver.QuantLinear.from_float(up, relu=True, input=seen, output=between)
        self.down = quaver.QuantLinear.from_float(down, input=between, symmetric=False)

    def forward(self, x):
        return self.down(self.up(x))


STYLES = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def check_blocks(mesh):
    for static in (True, False):
        torch.manual_seed(1)
        block, x = Block(static), normal(2, 7, 24)
        expected = block(x)
        cut = parallelize_module(copy.deepcopy(block), mesh, STYLES)
        assert_bits(cut(x), expected)
        assert cut.up.weight_q.to_local().shape == (40 // mesh.size(), 24)
        assert cut.down.weight_q.to_local().shape == (24, 40 // mesh.size())
        with torch.inference_mode():
            assert_bits(cut(x), expected)
        compiled = torch.compile(cut, fullgraph=True, backend="aot_eager")
        assert_bits(compiled(x), expected)
        for name, tensor in block.state_dict().items():
            held = cut.state_dict()[name]
            assert isinstance(held, DTensor)
            assert_bits(held.full_tensor(), tensor)
        # Sequences in parts before and after
        styles = {
            "up": ColwiseParallel(input_layouts=Shard(0)),
            "down": RowwiseParallel(output_layouts=Shard(0), use_local_output=False),
        }
        cut = parallelize_module(copy.deepcopy(block), mesh, styles)
        rows = normal(8, 24)
        mine = rows.chunk(mesh.size())[mesh.get_local_rank()]
        y = cut(mine)
        assert y.placements == (Shard(0),)
        assert_bits(y.full_tensor(), block(rows))


def check_state(mesh, folder):
    """Saved in parts and loaded in parts, by torch's ways; and written in place, behind the packed weight's back."""
    torch.manual_seed(3)
    blocks = [Block(static=False), Block(static=False)]
    x = normal(3, 24)
    one, other = (parallelize_module(copy.deepcopy(block), mesh, STYLES) for block in blocks)
    for cut, block in ((one, blocks[0]), (other, blocks[1])):
        assert_bits(cut(x), block(x))
    checkpoint.save(one.state_dict(), checkpoint_id=folder)
    state = other.state_dict()
    checkpoint.load(state, checkpoint_id=folder)
    assert_bits(other(x), blocks[0](x))  # written in place, after a call that has packed the weights
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(other, blocks[1].state_dict(), options=options)
    assert_bits(other(x), blocks[1](x))
    with pytest.raises(ValueError, match=r"is a DTensor, in parts on several devices: only whole tensors can be saved"):
        quaver.save(one, f"{folder}.safetensors")


def check_other_modules(mesh):
    """Float layers are torch's affair, in one plan with int8 ones."""
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(8, 12), quaver.QuantLinear.from_float(torch.nn.Linear(12, 4)))
    x = normal(3, 8)
    cut = parallelize_module(copy.deepcopy(model), mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    with torch.no_grad():
        torch.testing.assert_close(cut(x), model(x))


def check_rank_0_tells(mesh, rank):
    """What the other processes had in their layers is replaced, as with torch's styles."""
    torch.manual_seed(rank)
    layer, x = quaver.QuantLinear.from_float(torch.nn.Linear(16, 8)), torch.ones(2, 16)
    y = parallelize_module(layer, mesh, RowwiseParallel(input_layouts=WHOLE))(x)
    torch.manual_seed(0)
    assert_bits(y, quaver.QuantLinear.from_float(torch.nn.Linear(16, 8))(x))


def check_refusals(mesh):
    layer = quaver.QuantLinear.from_float(torch.nn.Linear(16, 8))
    with pytest.raises(ValueError, match=r"^RowwiseParallel: the mesh must have one dimension, got 2$"):
        RowwiseParallel()._apply(layer, init_device_mesh("cpu", (mesh.size() // 2, 2)))
    with pytest.raises(NotImplementedError, match="ColwiseParallel currently only support"):
        parallelize_module(torch.nn.ReLU(), mesh, ColwiseParallel())


def process(rank, processes, store):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    check_layers(mesh)
    check_blocks(mesh)
    check_other_modules(mesh)
    check_rank_0_tells(mesh, rank)
    check_refusals(mesh)
    check_state(mesh, f"{store}.checkpoint")
    if processes == 4:  # two models, each on two of them
        check_blocks(init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "parts"))["parts"])
    distributed.destroy_process_group()


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.deep)])
def test_processes(processes, tmp_path):
    """All of the above; what fails there, fails here."""
    multiprocessing.start_processes(
        process, (processes, str(tmp_path / "store")), nprocs=processes, start_method="spawn"
    )
