"""What a benchmark runs on: its parts and versions, and whether it is as fast at the moment as it can be."""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

import quaver

ROOT = Path(__file__).parents[1]
IDLE_LOAD = 0.5  # more than this before the start is other work, which takes a share of every time
COPIED = 3  # times the last cache, whose copy is the memory's
SLOW_COPY = 1.25  # times the fastest copy so far: something else uses the memory
SLOW_PRODUCT = 4 / 3  # times the fastest product so far: something else uses the cores, or the tiles of AMX
DISTRIBUTIONS = (
    *("torch", "numpy", "onnxruntime", "torchao", "optimum-quanto", "bitsandbytes", "triton", "transformers"),
    *("vllm", "sgl-kernel"),
)


# Its parts.


def processor():
    """The CPU's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores():
    """Those that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@cache
def last_cache():
    """Bytes of the last level of the caches of this process's cores; 32 MiB where the system does not tell."""
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}
    caches = {}  # {(level, the cores that share it): bytes}
    for core in cores():
        for folder in Path(f"/sys/devices/system/cpu/cpu{core}/cache").glob("index*"):
            size, level, shared = (
                (folder / name).read_text().strip() if (folder / name).exists() else ""
                for name in ("size", "level", "shared_cpu_list")
            )
            if size[-1:] in unit:
                caches[level, shared] = int(size[:-1]) * unit[size[-1]]
    last = max((level for level, _ in caches), default=None)
    return sum(size for (level, _), size in caches.items() if level == last) or 2**25


def kind():
    """A name for machines like this one, as files have it: the processor, its instruction set and its cores."""
    words = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*", " ", processor())
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return f"{slug}-{quaver.build_info()['cpu_capability'].replace('_', '-')}-{len(cores())}-cores"


def load():
    """How many processes wanted to run in the last minute, on average; NaN where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def is_idle():
    return load() <= IDLE_LOAD


def commit():
    """The commit that is checked out, marked where files differ from it; None outside a repository or without git."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def versions():
    """{distribution: version} of those that are installed."""
    found = {"quaver": quaver.__version__, "python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def described():
    """What stands in every file of results."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "kind": kind(),
        "processor": processor(),
        "instruction set": quaver.build_info()["cpu_capability"],
        "cores": len(cores()),
        "last cache, bytes": last_cache(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load before": round(load(), 2),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": f"python -m benchmarks {' '.join(sys.argv[1:])}".strip(),
    }


def pin(threads):
    """Keeps this process, and the threads that it starts from now on, to as many cores; torch uses as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[:threads])
    torch.set_num_threads(threads)


# Its state.


class Probe:
    """How much slower than at its best the machine copies memory and multiplies, by two short jobs."""

    def __init__(self, numel=2**22):
        self.source, self.target = torch.ones(numel), torch.empty(numel)
        generator = torch.Generator().manual_seed(0)
        self.a, b = (torch.randint(-128, 128, (128, 512), dtype=torch.int8, generator=generator) for _ in range(2))
        self.b = b.t()
        self.packed = quaver.int8_prepack(self.b)
        self.out = torch.empty(128, 128, dtype=torch.int32)
        self.least = [float("inf")] * 2
        for _ in range(3):
            self.slowdowns()
        self.copied_per_second = self._bandwidth()

    def slowdowns(self):
        """(of a copy, of a product): how many times its least each took."""
        jobs = (self._copy, 1), (self._multiply, 8)
        took = [min(self._seconds(job, times) for _ in range(5)) for job, times in jobs]
        self.least = [min(pair) for pair in zip(took, self.least, strict=True)]
        return tuple(now / least for now, least in zip(took, self.least, strict=True))

    @staticmethod
    def _bandwidth():
        """Bytes that a copy reads and writes in a second, of more than the caches hold."""
        source = torch.ones(COPIED * last_cache() // 4)
        target = torch.empty_like(source)
        return 2 * source.nbytes / min(Probe._seconds(lambda: target.copy_(source), 1) for _ in range(4))

    @staticmethod
    def _seconds(job, times):
        start = time.perf_counter()
        for _ in range(times):
            job()
        return time.perf_counter() - start

    def _copy(self):
        self.target.copy_(self.source)

    def _multiply(self):
        quaver.int8_matmul(self.a, self.b, b_packed=self.packed, out=self.out)


def disturbed(*slowdowns):
    """Whether a machine with these pairs of slowdowns, before and after, is not to be believed."""
    return any(copy > SLOW_COPY or product > SLOW_PRODUCT for copy, product in slowdowns)
