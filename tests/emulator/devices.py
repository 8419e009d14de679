"""The pretended GPUs: what a launch may ask of each, and how many blocks an SM holds at once.

Limits: CUDA C++ Programming Guide, "Compute Capabilities"; tests/test_emulator_limits.py compares what follows from
them with NVIDIA's own cuda_occupancy.h. The number of SMs is that of one card of the architecture.
"""

from dataclasses import dataclass
from enum import IntEnum

KIB = 1024
WARP = 32


class CudaError(IntEnum):
    """The codes of cudaError_t that a launch or a question may be refused with."""

    INVALID_VALUE = 1
    INVALID_CONFIGURATION = 9
    NO_KERNEL_IMAGE_FOR_DEVICE = 209
    INVALID_PTX = 218
    LAUNCH_OUT_OF_RESOURCES = 701
    NOT_SUPPORTED = 801
    UNKNOWN = 999


class LaunchError(ValueError):
    """A launch that hardware would refuse, and the code that the CUDA runtime would give."""

    def __init__(self, words, code=CudaError.INVALID_VALUE):
        super().__init__(words)
        self.code = code


@dataclass(frozen=True)
class Device:
    """What a launch may ask of a GPU."""

    name: str
    card: str
    multiprocessors: int
    shared_per_block: int  # bytes, with opting in
    shared_splits: tuple  # how much of an SM's memory may be shared memory, the rest being its L1 cache
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    reserved_shared_per_block: int = KIB  # what the driver takes of every block
    shared_unit: int = 128  # shared memory is given out in these
    barriers_per_multiprocessor: int | None = None  # None where they limit nothing
    shared_without_opting_in: int = 48 * KIB
    threads_per_block: int = 1024
    block_limits: tuple = (1024, 1024, 64)
    grid_limits: tuple = (2**31 - 1, 65535, 65535)
    registers_per_block: int = 64 * KIB
    registers_per_multiprocessor: int = 64 * KIB
    registers_per_thread: int = 255
    register_unit: int = 256  # registers are given to warps, in these
    partitions: int = 4  # of an SM: each has its part of the registers and runs its own warps

    @property
    def compute_capability(self):
        return divmod(int(self.name.removeprefix("sm_")), 10)

    @property
    def shared_per_multiprocessor(self):
        return self.shared_splits[-1]

    def shared_split(self, size):
        """The smallest share that holds `size` bytes."""
        return next(split for split in self.shared_splits if split >= size)

    def registers_of_warp(self, registers):
        return _round_up(registers * WARP, self.register_unit)

    def threads_that_fit(self, registers):
        """Of one block, by its registers: hardware counts as if every partition got as many warps as the fullest."""
        warps = self.registers_per_block // max(self.registers_of_warp(registers), 1)
        return min(warps // self.partitions * self.partitions * WARP, self.threads_per_block)


def _splits(*kibs):
    return tuple(kib * KIB for kib in kibs)


_AMPERE = _splits(0, 8, 16, 32, 64, 100, 132, 164)
_SMALL = _splits(0, 8, 16, 32, 64, 100)
_HOPPER = _splits(0, 8, 16, 32, 64, 100, 132, 164, 196, 228)

DEVICES = {
    device.name: device
    for device in (
        Device("sm_75", "T4", 40, 64 * KIB, _splits(32, 64), 1024, 16, reserved_shared_per_block=0, shared_unit=256),
        Device("sm_80", "A100", 108, 163 * KIB, _AMPERE, 2048, 32),
        Device("sm_86", "A40", 84, 99 * KIB, _SMALL, 1536, 16),
        Device("sm_89", "L40S", 142, 99 * KIB, _SMALL, 1536, 24),
        Device("sm_90", "H100 SXM", 132, 227 * KIB, _HOPPER, 2048, 32, barriers_per_multiprocessor=64),
        Device("sm_100", "B200", 148, 227 * KIB, _HOPPER, 2048, 32, barriers_per_multiprocessor=64),
        Device("sm_120", "RTX 5090", 170, 99 * KIB, _SMALL, 1536, 24, barriers_per_multiprocessor=24),
    )
}


@dataclass(frozen=True)
class Use:
    """What one block of a kernel takes of its SM."""

    threads: int
    registers: int  # of a thread
    shared: int  # bytes, static and dynamic
    barriers: int = 1


def resident_blocks(device, use, most_shared, carveout=-1):
    """How many blocks an SM holds at once.

    `most_shared` is what a block of the kernel may have, static and dynamic, as it was opted in; `carveout` the
    percentage of shared memory that was preferred, -1 for no preference.
    """
    if use.threads > min(device.threads_per_block, device.threads_that_fit(use.registers)):
        return 0
    if use.shared > most_shared:
        return 0
    shared = _round_up(use.shared + device.reserved_shared_per_block, device.shared_unit)
    warps = -(-use.threads // WARP)
    limits = [device.threads_per_multiprocessor // WARP // warps, device.blocks_per_multiprocessor]
    if use.registers:
        each = device.registers_per_multiprocessor // device.partitions // device.registers_of_warp(use.registers)
        limits.append(each * device.partitions // warps)
    if shared:
        whole = device.shared_per_multiprocessor
        preferred = device.shared_split(whole if carveout < 0 else carveout * whole // 100)
        limits.append(max(preferred, device.shared_split(shared)) // shared)
    if device.barriers_per_multiprocessor and use.barriers:
        limits.append(device.barriers_per_multiprocessor // use.barriers)
    return min(limits)


def _round_up(value, multiple):
    return -(-value // multiple) * multiple
