"""Which matmul kernel a shape gets, a pure function that needs no GPU, and what explain_matmul tells of it."""

from itertools import pairwise

import pytest
import torch

import quaver
from quaver import _C, explain
from quaver.explain import ANY, CHUNKS, GPUS, KERNELS, TRANSPOSED, WORDS

A100 = GPUS["A100"]
SIZES = (
    1, 2, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100,
    127, 128, 129, 255, 256, 257, 500, 1000, 2048, 4095, 4096, 8192,
)  # fmt: skip


def plan(m, n, k, batches=1, a_layout=CHUNKS, b_layout=CHUNKS, gpu=A100):
    """(the kernel's name, parts of K, cycles)"""
    kernel, splits, cycles, *_ = _C.plan_matmul(
        (gpu.architecture, gpu.multiprocessors, m, n, k, batches, a_layout, b_layout)
    )
    return KERNELS[kernel], splits, cycles


def test_large_products_get_large_tiles():
    assert plan(8192, 8192, 4096)[:2] == ("large", 1)
    assert plan(256, 256, 4096)[0] != "large"
    assert plan(32, 28672, 4096)[0] == "skinny"


def test_products_that_leave_multiprocessors_idle_are_split():
    _, splits, _ = plan(64, 64, 65536)
    assert splits > 8
    assert plan(64, 64, 256)[1] == 1
    assert plan(8192, 8192, 65536)[1] == 1


def test_layouts_that_must_be_moved_apart_get_kernels_that_can():
    for a_layout in (CHUNKS, WORDS, TRANSPOSED, ANY):
        for b_layout in (CHUNKS, WORDS, TRANSPOSED, ANY):
            any_layout = plan(512, 512, 512, a_layout=a_layout, b_layout=b_layout)[0].startswith("any")
            assert any_layout == ((a_layout, b_layout) != (CHUNKS, CHUNKS))


def test_without_asynchronous_copies_there_are_the_kernels_for_any_layout():
    assert plan(8192, 8192, 4096, gpu=GPUS["T4"])[:2] == ("any medium", 1)
    assert plan(1, 8192, 4096, gpu=GPUS["T4"])[0] == "gemv"


def test_few_rows_read_the_weight_straight_into_registers():
    for m in (1, 2, 8, 16):
        assert plan(m, 4096, 4096)[0] == "gemv"
        assert plan(m, 28672, 4096)[0] == "gemv"
        assert plan(m, 4096, 4096 + 8)[0] != "gemv"  # 16 codes of a lane would end beyond K
    assert plan(17, 4096, 4096)[0] != "gemv"


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("layout", [CHUNKS, ANY])
def test_no_size_is_an_edge_to_fall_off(gpu, layout):
    """One row, one column or one code more never costs less by the model, nor much more than another tile of each."""
    for n in SIZES[::3]:
        for k in (64, 1000, 4096):
            costs = [plan(m, n, k, b_layout=layout, gpu=GPUS[gpu])[2] for m in SIZES]
            assert costs == sorted(costs)
            steps = zip(pairwise(SIZES), pairwise(costs), strict=True)
            assert all(after <= 2.5 * before * larger / smaller for (smaller, larger), (before, after) in steps)


def test_parts_of_k_are_whole_stages_and_none_is_empty():
    for k in (64, 257, 1000, 4096, 4097, 11008, 100_003):
        for m in (1, 16, 64, 300):
            _, splits, _ = plan(m, 64, k)
            stages = -(-k // 64)
            each = -(-stages // splits)
            assert (splits - 1) * each < stages


def test_the_tiles_have_names():
    assert len(_C.matmul_tiles()) == len(KERNELS)


def test_a_step_of_decoding_is_one_launch():
    def blocks(m, n, k, gpu=A100):
        return _C.plan_linear((gpu.architecture, gpu.multiprocessors, m, n, k, 1, CHUNKS, CHUNKS))

    for gpu in GPUS.values():
        for n, k in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (1280, 8192), (7168, 8192), (384, 384)):
            assert 0 < blocks(1, n, k, gpu) <= -(-n // 16)
    assert blocks(1, 28672, 4096) == 4 * A100.multiprocessors  # what runs at once
    assert blocks(4, 4096, 4096) > 0
    assert blocks(5, 4096, 4096) == 0
    assert blocks(4, 28672, 8192) == 0  # quantizing in every block would take longer than another launch
    assert blocks(1, 4096, 4096 + 8) == 0
    assert blocks(1, 4096, 65536) == 0  # more codes than fit


# explain_matmul


def matrices(m, n, k, **options):
    a, b = (torch.empty(size, k, dtype=torch.int8, **options) for size in (m, n))
    return a, b.t()


def test_explained_by_hand():
    found = quaver.explain_matmul(*matrices(2048, 14336, 4096, device="meta"), "A100", out_dtype=torch.float16)
    assert found.shape == (1, 2048, 14336, 4096)
    assert (found.kernel, found.tile, found.splits) == ("large", (128, 256), 1)
    assert found.blocks == 16 * 56
    assert found.rounds == 9  # of 108 multiprocessors
    assert found.waves == pytest.approx(16 * 56 / 108)  # of blocks that fill a multiprocessor
    assert found.occupancy == 8 / 64
    assert found.efficiency == pytest.approx(16 * 56 / (9 * 108))
    assert found.operations == 2 * 2048 * 14336 * 4096
    assert found.bytes == 2048 * 4096 + 14336 * 4096 + 2 * 2048 * 14336
    assert found.tensor_microseconds == pytest.approx(found.operations / 624e6)
    assert found.bound == "mma"
    assert quaver.explain_matmul(*matrices(1, 4096, 4096)).bound == "mem"


def test_layouts_are_told_by_strides_and_addresses():
    a, b = matrices(64, 64, 64)
    assert quaver.explain_matmul(a, b).layouts == (explain.LAYOUTS[CHUNKS],) * 2
    assert quaver.explain_matmul(a, b.contiguous()).layouts[1] == explain.LAYOUTS[TRANSPOSED]
    memory = torch.empty(64 * 80 + 16, dtype=torch.int8)
    for begin, pitch, layout in ((0, 80, CHUNKS), (4, 80, WORDS), (0, 68, WORDS), (1, 80, ANY), (0, 65, ANY)):
        view = memory[begin:].as_strided((64, 64), (pitch, 1), memory.storage_offset() + begin)
        assert quaver.explain_matmul(view, b).layouts[0] == explain.LAYOUTS[layout]
    batch = torch.empty(3, 64, 65, dtype=torch.int8)[:, :, :64]
    assert quaver.explain_matmul(batch, b).layouts[0] == explain.LAYOUTS[ANY]


def test_it_prints_a_table():
    lines = str(quaver.explain_matmul(*matrices(16, 4096, 4096), "L40S")).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["product", "layouts", "kernel", "parts of K", "grid", "bound"]


def test_refusals():
    a, b = matrices(4, 5, 6)
    with pytest.raises(ValueError, match=r"^quaver\.explain_matmul: gpu must be one of T4, A100, .*, got 'H200'"):
        quaver.explain_matmul(a, b, "H200")
    with pytest.raises(RuntimeError, match=r"^quaver::int8_matmul: a \[..., M, K\] and b"):
        quaver.explain_matmul(a, b.t())
