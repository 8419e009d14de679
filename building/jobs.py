"""How many compilers may run at once: one for each core, as long as memory lasts."""

import os
from pathlib import Path

# The largest compiler process of a whole build takes 0.4 GB; the rest is room for what goes on beside it.
BYTES_PER_JOB = 2**30


def compile_jobs():
    """At least one; what MAX_JOBS is where it is not set."""
    return max(1, int(min(_cores(), available_bytes() / BYTES_PER_JOB)))


def _cores():
    """Those that this process may run on, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes(meminfo=Path("/proc/meminfo"), cgroup=Path("/sys/fs/cgroup")):
    """The memory that may still be taken: the machine's, or a container's if that is less; endless where unknown."""
    left = [float("inf")]
    if meminfo.exists():
        amounts = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        left.append(int(amounts["MemAvailable"].split()[0]) * 1024)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        if (cgroup / limit).exists() and (cgroup / limit).read_text().strip() != "max":
            left.append(int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
    return min(left)
