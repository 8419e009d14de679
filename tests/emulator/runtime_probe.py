"""Builds runtime_probe.cu on the stand-in for the CUDA runtime, and calls it."""

import ctypes

import numpy as np

from . import build, toolkit
from .runtime import HEADERS, SOURCES, Runtime, sources

# Of the probe's kFunctions.
FUNCTIONS = PLAIN, DYNAMIC, STATIC, BOUNDED, MANY_REGISTERS = range(5)


class Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


def probe_library(name="probe", packaging=("--no-compress",), linked_with=None):
    """The probe with PTX for sm_80 and sm_90, on the stand-in or on another library."""
    text = build._texts("runtime_probe.cu", *HEADERS, *SOURCES, "toolkit.py")
    path = build.CACHE / f"lib{name}_{build._digest(*text, toolkit._version())}.so"
    codes = [f"-gencode=arch=compute_{n},code=compute_{n}" for n in (80, 90)]
    command = [toolkit.nvcc(), "-O3", "-std=c++20", "-lineinfo", *codes, *packaging, "-Xcompiler=-fPIC"]
    commands = {build.HERE / "runtime_probe.cu": command} | (sources() if linked_with is None else {})
    flags = [] if linked_with is None else [f"-L{linked_with.parent}", f"-l:{linked_with.name}"]
    return build.once(path, lambda: toolkit.build_library(path, commands, flags))


class Probe:
    """The probe's functions. Those that give a code of cudaError_t give it as CudaError's number."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        self.runtime = Runtime(self.library)
        for name in ("probe_error_name", "probe_error_words", "probe_name"):
            getattr(self.library, name).restype = ctypes.c_char_p

    def reset(self):
        """Makes the device an A100, as if no kernel had been touched."""
        self.runtime.pretend("sm_80")
        self.runtime._functions.clear()
        self.library.probe_last_error()
        for take in (self.runtime.take_calls, self.runtime.take_refusals, self.runtime.runs.clear):
            take()
        self.runtime.failure = None

    def launch(self, function, grid=(1, 1, 1), block=(32, 1, 1), shared=0, count=32):
        """(code, what the kernel wrote)"""
        out = np.full(max(count, 1), -1, np.int32)
        build.machine().add_allocation(out.ctypes.data, out.nbytes, True)
        try:
            code = self.library.probe_launch(
                function, Dim3(*grid), Dim3(*block), ctypes.c_size_t(shared), ctypes.c_void_p(out.ctypes.data), count
            )
        finally:
            build.machine().remove_allocation(out.ctypes.data)
        assert self.library.probe_last_error() == code
        return code, out

    def numbers(self, name, *arguments, count=1):
        """(code, the ints that a function gives through pointers)"""
        found = [ctypes.c_int(-1) for _ in range(count)]
        code = getattr(self.library, name)(*arguments, *map(ctypes.byref, found))
        return code, *(number.value for number in found)

    def attributes(self, function):
        values = (ctypes.c_int * 8)()
        assert self.library.probe_attributes(function, values) == 0
        names = ("shared", "local", "threads", "registers", "ptx", "binary", "most_dynamic", "carveout")
        return dict(zip(names, values, strict=True))

    def occupancy(self, function, threads, shared=0, flags=False):
        code, blocks = self.numbers("probe_occupancy", function, threads, ctypes.c_size_t(shared), int(flags))
        assert code == 0
        return blocks
