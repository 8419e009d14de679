"""How a matmul would run on a GPU, without one: which kernel, in which tiles, and what bounds it.

The plan is the one of the CUDA launcher, csrc/cuda/plan.h. The bounds are what published peaks allow, not measurements.
"""

from dataclasses import dataclass

import torch

from quaver import _C

KERNELS = ("large", "medium", "small", "skinny", "any medium", "any small", "gemv")
LAYOUTS = ("chunks of 16 along K", "words of 4 along K", "words of 4 across K", "any")
CHUNKS, WORDS, TRANSPOSED, ANY = range(4)


@dataclass(frozen=True)
class Gpu:
    """A card as its data sheet has it: dense int8 operations and bytes of memory a second, its boost clock in Hz."""

    architecture: int
    multiprocessors: int
    warps: int  # that a multiprocessor holds
    operations: float
    bandwidth: float
    clock: float


GPUS = {
    "T4": Gpu(75, 40, 32, 130e12, 320e9, 1.59e9),
    "A100": Gpu(80, 108, 64, 624e12, 2039e9, 1.41e9),
    "L40S": Gpu(89, 142, 48, 733e12, 864e9, 2.52e9),
    "RTX 4090": Gpu(89, 128, 48, 660.6e12, 1008e9, 2.52e9),
    "H100": Gpu(90, 132, 64, 1979e12, 3350e9, 1.83e9),
}


@dataclass(frozen=True)
class MatmulPlan:
    """What explain_matmul finds; `str` of it is a table."""

    gpu: str
    shape: tuple  # (batches, M, N, K)
    layouts: tuple  # of a and of b
    kernel: str
    tile: tuple  # rows, columns
    stages: int
    warps: int
    splits: int  # parts of K, whose sums another kernel adds up
    blocks: int
    waves: float  # of blocks that the GPU holds at once
    occupancy: float  # warps that a multiprocessor holds among those that it could, at least
    rounds: int  # blocks that a multiprocessor computes, one after the other or beside each other, at most
    efficiency: float  # computed results among those that full rounds of whole tiles would hold
    bytes: int
    operations: int
    memory_microseconds: float  # at the published bandwidth
    tensor_microseconds: float  # at the published rate of the tensor cores
    issue_microseconds: float  # of the plan's rounds of tiles, at the boost clock

    @property
    def bound(self):
        """What takes longest: "mem", "mma" or "issue"; the last where tiles do much more than the product needs."""
        if self.memory_microseconds >= max(self.tensor_microseconds, self.issue_microseconds):
            return "mem"
        return "mma" if self.issue_microseconds <= 1.25 * self.tensor_microseconds else "issue"

    def __str__(self):
        batches, m, n, k = self.shape
        lines = {
            "product": f"{f'{batches} x ' if batches > 1 else ''}[{m}, {k}] x [{k}, {n}] on {self.gpu}",
            "layouts": f"a: {self.layouts[0]}; b: {self.layouts[1]}",
            "kernel": f"{self.kernel}, tiles of {' x '.join(map(str, self.tile))}, {self.stages} stages, "
            f"{self.warps} warps",
            "parts of K": f"{self.splits}",
            "grid": f"{self.blocks:,} blocks, {self.waves:.2f} waves at {self.occupancy:.0%} occupancy, "
            f"{self.rounds:,} rounds, {self.efficiency:.0%} of them results",
            "bound": f"{self.bound}: {self.memory_microseconds:.1f} us for {self.bytes:,} bytes, "
            f"{self.tensor_microseconds:.1f} us for {self.operations:,} operations, "
            f"{self.issue_microseconds:.1f} us to issue",
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def explain_matmul(a, b, gpu="A100", *, out_dtype=torch.int32):
    """How int8_matmul(a, b), or one of its relatives, would run on a GPU: a bound and a plan, nothing is measured.

    Arguments:
        a, b: as int8_matmul takes them; their values are not read, so that they may be on the device "meta".
        gpu: "A100", "L40S", "RTX 4090", "T4" or "H100".
        out_dtype: the type of the result.

    Returns:
        A MatmulPlan: kernel, tile, stages, warps, parts of K, blocks, waves, occupancy, rounds over the
        multiprocessors, and the time that memory and tensor cores need at their published peaks.

    Raises:
        ValueError for a GPU that is not known, TypeError for what is not a tensor.

    >>> import torch, quaver
    >>> x, weight = (torch.empty(size, 4096, dtype=torch.int8, device="meta") for size in (2048, 14336))
    >>> print(quaver.explain_matmul(x, weight.t(), "A100", out_dtype=torch.float16))  # doctest: +ELLIPSIS
    product     [2048, 4096] x [4096, 14336] on A100
    layouts     a: chunks of 16 along K; b: chunks of 16 along K
    kernel      large, tiles of 128 x 256, 3 stages, 8 warps
    ...
    """
    if gpu not in GPUS:
        raise ValueError(f"quaver.explain_matmul: gpu must be one of {', '.join(GPUS)}, got {gpu!r}")
    card = GPUS[gpu]
    out = torch.ops.quaver.int8_matmul.default(a.to("meta"), b.to("meta"))
    m, n, k = out.shape[-2], out.shape[-1], a.shape[-1]
    batches = out.shape[:-2].numel()
    layouts = (_layout(a, a.dim() - 1), _layout(b, b.dim() - 2))
    kernel, splits, _, issue_cycles, at_once = _C.plan_matmul(
        (card.architecture, card.multiprocessors, m, n, k, batches, *layouts)
    )
    rows, columns, stages, warps = _C.matmul_tiles()[kernel]
    blocks = batches * -(-m // rows) * -(-n // columns) * splits
    rounds = -(-blocks // card.multiprocessors)
    moved = a.numel() + b.numel() + out.numel() * out_dtype.itemsize
    operations = 2 * out.numel() * k
    return MatmulPlan(
        gpu=gpu,
        shape=(batches, m, n, k),
        layouts=tuple(LAYOUTS[layout] for layout in layouts),
        kernel=KERNELS[kernel],
        tile=(rows, columns),
        stages=stages,
        warps=warps,
        splits=splits,
        blocks=blocks,
        waves=blocks / (card.multiprocessors * at_once),
        occupancy=min(at_once * warps / card.warps, 1.0),
        rounds=rounds,
        efficiency=out.numel() * splits / max(rounds * card.multiprocessors * rows * columns, 1),
        bytes=moved,
        operations=operations,
        memory_microseconds=1e6 * moved / card.bandwidth,
        tensor_microseconds=1e6 * operations / card.operations,
        issue_microseconds=1e6 * issue_cycles / card.clock,
    )


def _layout(matrix, k_dim):
    """As csrc/cuda/plan.h has it, of memory that begins at an aligned address where there is none."""
    line_dim = 2 * matrix.dim() - 3 - k_dim
    address = 0 if matrix.device.type == "meta" else matrix.data_ptr()
    batch = [stride for size, stride in zip(matrix.shape[:-2], matrix.stride()[:-2], strict=True) if size > 1]

    def aligned(stride, count):
        return all(step % count == 0 for step in (address, stride, *batch))

    if matrix.stride(k_dim) == 1:
        return next(
            (layout for layout, count in ((CHUNKS, 16), (WORDS, 4)) if aligned(matrix.stride(line_dim), count)), ANY
        )
    neighbours = matrix.stride(line_dim) == 1 and matrix.shape[line_dim] % 4 == 0
    return TRANSPOSED if neighbours and aligned(matrix.stride(k_dim), 4) else ANY
