"""An int8 network in parts on two processes: the bits of the network in one.

    python examples/tensor_parallel.py

Over gloo, on the CPU; under torchrun, with init_device_mesh("cuda", ...), the same lines run on GPUs.
"""

import copy
import tempfile
from pathlib import Path

import torch
from torch import distributed, multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module

import quaver
from quaver.parallel import ColwiseParallel, RowwiseParallel

PROCESSES = 2


def run(rank, store):
    """What each process does."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256))
    int8 = quaver.quantize_model(model)
    x = torch.randn(8, 256)
    expected = int8(x)

    mesh = init_device_mesh("cpu", (PROCESSES,))
    parts = parallelize_module(copy.deepcopy(int8), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    y = parts(x)
    held = [list(layer.weight_q.to_local().shape) for layer in (parts[0], parts[2])]
    print(f"process {rank} holds weights {held}; the bits of one process: {torch.equal(y, expected)}", flush=True)
    assert torch.equal(y, expected)
    distributed.destroy_process_group()


def main():
    """Starts the processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(run, (str(Path(folder, "store")),), nprocs=PROCESSES, start_method="spawn")


if __name__ == "__main__":
    main()
