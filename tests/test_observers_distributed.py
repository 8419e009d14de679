"""Observers in two processes: after all_reduce both have the bits of one that saw rank 0's data and then rank 1's."""

import warnings

import pytest
import torch
from torch import distributed, multiprocessing

from quaver import PerChannel
from quaver.observers import MinMax
from tests.cases import normal
from tests.test_observers import KINDS, after, assert_same_params, assert_same_state

PROCESSES = 2


def batches(rank):
    """Different numbers of them, of different sizes and magnitudes; some are empty, some have what is not finite."""
    first = [normal(7, 3), normal(4, 3, seed=1) * 100, torch.empty(0, 3)]
    second = [torch.full((2, 3), torch.nan), normal(5, 3, seed=2) * 1e4, normal(6, 3, seed=3)]
    second[1][2, 1] = -torch.inf
    return (first, second)[rank]


def check_all_saw(rank, kind):
    observer = after(kind(granularity=PerChannel(1)), *batches(rank))
    observer.all_reduce()
    expected = after(kind(granularity=PerChannel(1)), *batches(0), *batches(1))
    assert_same_state(observer, expected)
    assert_same_params(observer.qparams(), expected.qparams())
    for one in (observer, expected):  # and it goes on
        one.observe(normal(2, 3, seed=4) * 1e6)
    assert_same_state(observer, expected)


def check_one_saw_nothing(rank, kind):
    for seeing in range(PROCESSES):
        observer = after(kind(), *(batches(rank) if rank == seeing else ()))
        observer.all_reduce()
        assert_same_state(observer, after(kind(), *batches(seeing)))
    observer = kind()
    observer.all_reduce()
    assert_same_state(observer, kind())


def check_groups(rank, group):
    """A process outside of a group keeps what it has."""
    observer = after(MinMax(), *batches(rank))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of a call that does nothing
        observer.all_reduce(group)
    assert_same_state(observer, after(MinMax(), *batches(rank)))


def check_refusals(rank):
    """In both processes, so that neither waits for the other."""
    one = after(MinMax(symmetric=rank == 0), *batches(rank))
    with pytest.raises(ValueError, match="a state must be of"):
        one.all_reduce()
    one = after(MinMax(granularity=PerChannel(0)), normal(3 + rank, 5))
    with pytest.raises(ValueError, match="must give the scale the shape"):
        one.all_reduce()
    assert one.count == 5 * (3 + rank)


def process(rank, store):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    groups = [distributed.new_group([member]) for member in range(PROCESSES)]
    for kind in KINDS.values():
        check_all_saw(rank, kind)
        check_one_saw_nothing(rank, kind)
    for group in groups:
        check_groups(rank, group)
    check_refusals(rank)
    distributed.destroy_process_group()


def test_two_processes(tmp_path):
    """All of the above; what fails there, fails here."""
    multiprocessing.spawn(process, (str(tmp_path / "store"),), nprocs=PROCESSES)


def test_without_processes():
    with pytest.raises(ValueError, match="process group has not been initialized"):
        MinMax().all_reduce()
