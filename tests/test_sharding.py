"""Every op on DTensors: in 2 and in 4 processes, whatever the placements, the bits of one that has whole tensors."""

import random

import pytest
import torch
from torch import distributed, multiprocessing
from torch.distributed.tensor import DeviceMesh, DTensor, Partial, Replicate, Shard, distribute_tensor, init_device_mesh

import quaver
import quaver.sharding
from quaver import library, reference
from quaver.draw import Draw
from tests.cases import assert_bits, codes, normal, products, scales, zero_points

ops = torch.ops.quaver

CALLS = 12  # of each op, on each mesh
WHOLE = Replicate()


def placed(draw, tensor, mesh):
    """A tensor that all processes have, as a DTensor that lies somehow."""
    if tensor.numel() == 1 and draw.random() < 0.3:
        return tensor  # is taken for one that all have
    kinds = [WHOLE, *map(Shard, range(tensor.dim()))]
    return distribute_tensor(tensor, mesh, draw.choices(kinds, k=mesh.ndim), src_data_rank=None)


def whole(result):
    return result.full_tensor()


def check_calls(mesh):
    for op in library.OPS:
        for seed in range(CALLS):
            draw = random.Random(f"{op} {seed} {mesh.ndim} {mesh.size()}")
            arguments = Draw(draw, most=300, packs=False).call(op)
            given = {
                name: placed(draw, value, mesh) if isinstance(value, torch.Tensor) else value
                for name, value in arguments.items()
            }
            if not any(isinstance(value, DTensor) for value in given.values()):
                continue
            try:
                expected = library.as_tuple(getattr(ops, op)(**arguments))
                results = library.as_tuple(getattr(ops, op)(**given))
                for result, one in zip(results, expected, strict=True):
                    assert isinstance(result, DTensor)
                    assert result.shape == one.shape
                    assert_bits(whole(result), one)
            except Exception as error:
                error.add_note(f"{op} {seed}: {[getattr(value, 'placements', value) for value in given.values()]}")
                raise


def on(mesh, tensor, *placements):
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def sums_in_parts(mesh, tensor):
    """int32 sums of which each process has a share."""
    shares = torch.randint(
        -(2**31), 2**31 - 1, (mesh.size(), *tensor.shape), generator=torch.Generator().manual_seed(1)
    )
    shares[0] = tensor - shares[1:].sum(0)
    return DTensor.from_local(shares[mesh.get_local_rank()].to(torch.int32), mesh, [Partial()], run_check=False)


def check_where_results_lie(mesh):
    """Nothing is moved where nothing must be."""
    x, scale, b = normal(8, 12), scales(8, 1), codes(12, 20)
    q = ops.quantize(on(mesh, x, Shard(0)), on(mesh, scale, WHOLE))
    assert q.placements == (Shard(0),)
    assert ops.quantize(on(mesh, x, WHOLE), on(mesh, scale, WHOLE)).placements == (WHOLE,)
    assert ops.quantize(on(mesh, x, WHOLE), on(mesh, scale, Shard(0))).placements == (Shard(0),)
    assert ops.dequantize(on(mesh, codes(4, 8), Shard(1)), on(mesh, scales(2, 4), WHOLE)).placements == (Shard(1),)
    assert ops.int8_matmul(q, on(mesh, b, WHOLE)).placements == (Shard(0),)
    whole_q = on(mesh, whole(q), WHOLE)
    assert ops.int8_matmul(whole_q, on(mesh, b, Shard(1))).placements == (Shard(1),)
    for left, right in ((Shard(1), Shard(0)), (WHOLE, Shard(0)), (Shard(1), WHOLE)):
        acc = ops.int8_matmul(on(mesh, whole(q), left), on(mesh, b, right))
        assert acc.placements == (Partial("sum"),)
        assert_bits(whole(acc), reference.int8_matmul(whole(q), b))
    params = quaver.choose_qparams(on(mesh, x, Shard(1)), quaver.PerToken(), symmetric=False)
    assert params.scale.placements == (WHOLE,)
    per_column = quaver.choose_qparams(on(mesh, x, Shard(1)), quaver.PerChannel(1))
    assert per_column.scale.placements == (Shard(1),)
    images = on(mesh, codes(4, 6, 5, 5), Shard(0)), on(mesh, codes(8, 6, 3, 3), WHOLE)
    assert ops.int8_conv2d(*images, torch.tensor(1.0), torch.tensor(1.0)).placements == (Shard(0),)


def check_sums_in_parts(mesh):
    """What was summed on each process is added before anything else happens to it, wrapping."""
    acc, factors, bias = products(6, 12), (scales(6, 1), scales(1, 12)), normal(12)
    given = sums_in_parts(mesh, acc), *(on(mesh, each, WHOLE) for each in factors)
    assert_bits(whole(ops.rescale(*given, bias=on(mesh, bias, WHOLE))), ops.rescale(acc, *factors, bias=bias))
    assert_bits(
        whole(ops.requantize(*given, torch.tensor(4096.0))), ops.requantize(acc, *factors, torch.tensor(4096.0))
    )
    a, b, points = codes(6, 40), codes(40, 12), zero_points(6, 1)
    b_sum = b.sum(0, keepdim=True, dtype=torch.int32)
    options = {"a_zero_point": on(mesh, points, WHOLE)}
    for held in (sums_in_parts(mesh, b_sum), on(mesh, b_sum, WHOLE)):  # of other parts than b's, so never with K cut
        y = ops.int8_matmul(on(mesh, a, WHOLE), on(mesh, b, WHOLE), **options, b_sum=held)
        assert_bits(whole(y), ops.int8_matmul(a, b, a_zero_point=points))


def check_packed(mesh):
    """A packed weight is each process's own, of its part; where that part has to move, it is left alone."""
    a, b = codes(6, 128), codes(128, 64)
    right = on(mesh, b, Shard(1))
    packed = ops.int8_prepack(right.to_local())
    for left in (on(mesh, a, WHOLE), on(mesh, a, Shard(0)), on(mesh, a, Shard(1))):
        assert_bits(whole(ops.int8_matmul(left, right, b_packed=packed)), ops.int8_matmul(a, b))
    whole_b = on(mesh, b, WHOLE)
    packed = quaver.int8_prepack(whole_b)
    assert_bits(whole(ops.int8_matmul(on(mesh, a, Shard(0)), whole_b, b_packed=packed)), ops.int8_matmul(a, b))


def check_processes_without_a_part(processes):
    """A mesh of fewer processes than there are: the others have nothing, and wait for nobody."""
    first = DeviceMesh("cpu", list(range(processes - 1)))
    a, b = on(first, codes(6, 9), Shard(1)), on(first, codes(9, 4), Shard(0))
    scales_of_both = torch.tensor(0.5), torch.tensor(0.1)
    y = ops.int8_matmul_dequantize(a, b, *scales_of_both)
    assert y.shape == (6, 4)
    if first.get_coordinate() is None:
        assert y.to_local().numel() == 0
    else:
        assert_bits(whole(y), ops.int8_matmul_dequantize(codes(6, 9), codes(9, 4), *scales_of_both))


def check_gradients(mesh):
    x, scale = normal(6, 8), torch.tensor(0.02)
    cut = on(mesh, x, Shard(0)).requires_grad_()
    quaver.fake_quantize(cut, on(mesh, scale, WHOLE)).sum().backward()
    x.requires_grad_()
    quaver.fake_quantize(x, scale).sum().backward()
    assert_bits(whole(cut.grad), x.grad)


def check_compiled(mesh):
    def function(x, b):
        q, params = quaver.dynamic_quantize(x, quaver.PerToken(), symmetric=False)
        return quaver.int8_matmul_dequantize(q, b, params, torch.tensor(0.1))

    x, b = normal(6, 16), codes(16, 12)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for left, right in ((Shard(0), WHOLE), (WHOLE, Shard(1)), (Shard(1), Shard(0))):
        assert_bits(whole(compiled(on(mesh, x, left), on(mesh, b, right))), function(x, b))


def check_refusals(mesh):
    x, scale = on(mesh, normal(6, 8), Shard(0)), on(mesh, scales(6, 1), WHOLE)
    plain = r"quantize: scale must be a DTensor like the other tensors, got a torch.Tensor of the shape \[6, 1\]"
    with pytest.raises(RuntimeError, match=plain):
        quaver.quantize(x, scales(6, 1))
    with pytest.raises(RuntimeError, match=r"quantize: scale must have one element, or as many"):
        quaver.quantize(x, on(mesh, scales(4, 1), WHOLE))
    with pytest.raises(
        NotImplementedError, match=r"quantize.out: DTensors cannot be written: call the op without out="
    ):
        quaver.quantize(x, scale, out=on(mesh, codes(6, 8), Shard(0)))
    bad = scale.full_tensor()
    bad[-1] = -1  # in the last process's part
    with pytest.raises(ValueError, match=r"quantize: scale must be positive and finite, got -1.0"):
        quaver.quantize(x, on(mesh, bad, Shard(0)), check=True)
    with pytest.raises(RuntimeError, match=r"int8_matmul: a must have at least 2 dimensions, got 1"):
        ops.int8_matmul(on(mesh, codes(4), Shard(0)), on(mesh, codes(4, 4), WHOLE))
    longest = 33025  # for codes with zero points
    q = [on(mesh, codes(*shape), Shard(dim)) for shape, dim in (((1, longest + 1), 1), ((longest + 1, 1), 0))]
    with pytest.raises(RuntimeError, match=r"int8_matmul: K must be at most 33025"):
        ops.int8_matmul(*q, a_zero_point=on(mesh, zero_points(1, 1), WHOLE))
    if mesh.size() == 4:
        other = init_device_mesh("cpu", (2, 2))
        with pytest.raises(RuntimeError, match=r"quantize: scale must be on the mesh of x"):
            quaver.quantize(x, distribute_tensor(scales(6, 1), other, [WHOLE, WHOLE]))


def meshes(processes):
    yield init_device_mesh("cpu", (processes,))
    if processes == 4:
        yield init_device_mesh("cpu", (2, 2))


def process(rank, processes, store):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    for mesh in meshes(processes):
        check_calls(mesh)
    mesh = next(meshes(processes))
    for check in (check_where_results_lie, check_sums_in_parts, check_packed, check_gradients, check_compiled):
        check(mesh)
    check_refusals(mesh)
    check_processes_without_a_part(processes)
    distributed.destroy_process_group()


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.deep)])
def test_processes(processes, tmp_path):
    """All of the above; what fails there, fails here."""
    multiprocessing.start_processes(
        process, (processes, str(tmp_path / "store")), nprocs=processes, start_method="spawn"
    )
