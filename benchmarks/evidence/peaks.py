"""The peaks of a few GPUs, as NVIDIA publishes them."""

from dataclasses import dataclass

ISSUES_PER_CLOCK = 4  # warp instructions of a multiprocessor: one for each of its four schedulers, sm_70 and later


@dataclass(frozen=True)
class Gpu:
    """Published peaks: the data sheets' memory bandwidth and boost clock."""

    name: str
    architecture: str
    bytes_per_second: float
    multiprocessors: int
    clock: float  # Hz

    def microseconds_of_bytes(self, size):
        return 1e6 * size / self.bytes_per_second

    def microseconds_of_issue(self, warp_instructions):
        return 1e6 * warp_instructions / (self.multiprocessors * ISSUES_PER_CLOCK * self.clock)


GPUS = (
    Gpu("T4", "sm_75", 320e9, 40, 1.59e9),
    Gpu("A100 SXM 80 GB", "sm_80", 2039e9, 108, 1.41e9),
    Gpu("L4", "sm_89", 300e9, 58, 2.04e9),
    Gpu("RTX 4090", "sm_89", 1008e9, 128, 2.52e9),
    Gpu("H100 SXM", "sm_90", 3350e9, 132, 1.98e9),
)
