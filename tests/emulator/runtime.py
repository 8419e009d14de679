"""The Python side of the stand-in for the CUDA runtime (runtime.cpp): what a library's launches and questions come to.

A library that was linked with the stand-in has a runtime of its own: `Runtime(ctypes.CDLL(path))`. One that was linked
with CUDA's libcudart.so.13 takes the stand-in for it where that was loaded first:

    runtime = Runtime(ctypes.CDLL(libcudart(), ctypes.RTLD_GLOBAL))
    library = ctypes.CDLL(path)
"""

import ctypes
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_uint32, c_uint64, c_void_p

from . import build, toolkit
from .devices import DEVICES, CudaError, LaunchError, Use, resident_blocks
from .module import Module

SOURCES = ("runtime.cpp", "runtime_functions.cpp", "runtime_device.cpp", "runtime_refusals.cpp", "fat_binary.cpp")
HEADERS = ("runtime.h", "fat_binary.h")
# Of cudaFuncAttribute.
MAX_DYNAMIC_SHARED, CARVEOUT = 8, 9


def sources():
    """{source of the stand-in: the command that compiles it}"""
    command = ["g++", "-O1", "-std=c++20", "-fPIC", "-Wall", "-Wextra", "-Werror", *toolkit.include_flags()]
    return {build.HERE / name: command for name in SOURCES}


def libcudart():
    """Builds the stand-in as a library of its own, with the name and the versions of symbols that CUDA's has."""
    versions = build.HERE / "libcudart.map"
    digest = build._digest(*build._texts(*SOURCES, *HEADERS, "toolkit.py", versions.name))
    path = build.CACHE / f"libcudart_{digest}" / "libcudart.so.13"
    flags = [f"-Wl,-soname,{path.name}", f"-Wl,--version-script={versions}"]
    return str(build.once(path, lambda: toolkit.build_library(path, sources(), flags)))


class _Kernel(ctypes.Structure):
    _fields_ = [("host", c_void_p), ("name", c_char_p), ("ptx", c_void_p), ("ptx_size", c_uint64)]


class _Device(ctypes.Structure):
    _fields_ = [
        ("name", c_char * 64),
        *((name, c_int32) for name in ("major", "minor", "multiprocessors", "threads_per_block")),
        *((name, c_int32 * 3) for name in ("block_limits", "grid_limits")),
        *(
            (name, c_int32)
            for name in (
                "threads_per_multiprocessor", "blocks_per_multiprocessor", "registers_per_block",
                "registers_per_multiprocessor", "shared_per_block", "shared_per_block_with_opting_in",
                "shared_per_multiprocessor", "reserved_shared_per_block",
            )
        ),
    ]  # fmt: skip


class _Attributes(ctypes.Structure):
    _fields_ = [
        (name, c_int32)
        for name in (
            "registers", "static_shared", "local", "threads", "dynamic_shared", "carveout", "ptx_version",
            "binary_version",
        )
    ]  # fmt: skip


class _Handlers(ctypes.Structure):
    _fields_ = [
        ("launch", ctypes.CFUNCTYPE(
            c_int, POINTER(_Kernel), POINTER(c_uint32), POINTER(c_uint32), c_uint64, c_uint64, POINTER(c_void_p),
        )),
        ("attributes", ctypes.CFUNCTYPE(c_int, POINTER(_Kernel), POINTER(_Attributes))),
        ("set_attribute", ctypes.CFUNCTYPE(c_int, POINTER(_Kernel), c_int, c_int)),
        ("resident_blocks", ctypes.CFUNCTYPE(c_int, POINTER(_Kernel), c_int, c_uint64, POINTER(c_int))),
    ]  # fmt: skip


class Run:
    """One launch: the kernel's name, its grid, its dynamic shared memory, its stream and what the emulator saw."""

    def __init__(self, kernel, grid, block, shared, stream, result):
        self.kernel, self.grid, self.block, self.shared, self.stream = kernel, grid, block, shared, stream
        self.reports, self._result = result.reports, result

    @property
    def counters(self):
        return self._result.counters


class _Function:
    """A kernel on a device: its module, and the attributes that were set."""

    def __init__(self, module, name):
        self.module, self.name, self.kernel = module, name, module.kernel(name)
        self.dynamic_shared = module.device.shared_without_opting_in - self.kernel.static_shared
        self.carveout = -1

    @property
    def most_shared(self):
        return self.kernel.static_shared + self.dynamic_shared

    def resources(self):
        found = self.module.resources(self.name)
        if found is None:
            raise LaunchError(f"no ptxas to say how many registers {self.name} takes", CudaError.NOT_SUPPORTED)
        return found


class Runtime:
    """The stand-in runtime of one library."""

    def __init__(self, library):
        self.library = library
        self.runs = []  # of every launch, until somebody empties it
        self.seed = 0
        self.launch = lambda module, name, **how: module.launch_packed(name, **how)  # or what stands in its place
        self.failure = None  # what the last launch or question was refused for, or failed with
        self._modules, self._functions = {}, {}
        library.emulator_take_calls.restype = library.emulator_take_refusals.restype = c_char_p
        kinds = dict(_Handlers._fields_)
        answers = (self._launch, self._attributes, self._set_attribute, self._resident_blocks)
        self._handlers = _Handlers(*(kinds[name](self._guarded(f)) for name, f in zip(kinds, answers, strict=True)))
        library.emulator_set_handlers(ctypes.byref(self._handlers))
        self.pretend("sm_80")

    def pretend(self, name):
        """Makes the device one of DEVICES. What was set of kernels is kept for each device apart, as CUDA does."""
        self.device = device = DEVICES[name]
        self.library.emulator_set_device(ctypes.byref(_Device(
            f"{device.name}, emulated as {device.card}".encode(),
            *device.compute_capability,
            device.multiprocessors,
            device.threads_per_block,
            (c_int32 * 3)(*device.block_limits),
            (c_int32 * 3)(*device.grid_limits),
            device.threads_per_multiprocessor,
            device.blocks_per_multiprocessor,
            device.registers_per_block,
            device.registers_per_multiprocessor,
            device.shared_without_opting_in,
            device.shared_per_block,
            device.shared_per_multiprocessor,
            device.reserved_shared_per_block,
        )))  # fmt: skip

    def known_kernels(self, device):
        """The names of all kernels in the modules of which some kernel has been launched, or asked about."""
        modules = [module for (name, _), module in self._modules.items() if name == device]
        return {kernel for module in modules for kernel in module.kernels}

    def take_calls(self):
        """The names of the runtime's functions that were called since the last time."""
        return self.library.emulator_take_calls().decode().splitlines()

    def take_refusals(self):
        """In words, the calls that the stand-in refused since the last time because of what they are."""
        return self.library.emulator_take_refusals().decode().splitlines()

    def _guarded(self, answer):
        """No exception can cross C: it becomes a code and is kept."""

        def guarded(kernel, *arguments):
            try:
                answer(self._function(kernel.contents), *arguments)
            except LaunchError as error:
                self.failure = error
                return int(error.code)
            except Exception as error:  # a defect of the emulator, or PTX that it does not know
                self.failure = error
                return int(CudaError.UNKNOWN)
            return 0

        return guarded

    def _function(self, kernel):
        key = (self.device.name, kernel.host)
        if key not in self._functions:
            text = ctypes.string_at(kernel.ptx, kernel.ptx_size).decode()
            where = (self.device.name, text)
            if where not in self._modules:
                self._modules[where] = Module.from_ptx(text, self.device.name)
            self._functions[key] = _Function(self._modules[where], kernel.name.decode())
        return self._functions[key]

    def _launch(self, function, grid, block, shared, stream, arguments):
        grid, block = tuple(grid[:3]), tuple(block[:3])
        result = self.launch(
            function.module,
            function.name,
            grid=grid,
            block=block,
            parameters=_parameters(function.kernel, arguments),
            shared=shared,
            most_shared=function.most_shared,
            seed=self.seed,
        )
        self.runs.append(Run(function.name, grid, block, shared, stream, result))

    def _attributes(self, function, out):
        device, module, found = self.device, function.module, function.resources()
        limits = function.kernel.parsed.limits
        threads = device.threads_that_fit(found.registers)
        for bound in ("maxntid", "reqntid"):
            x, y, z = (*limits.get(bound, (threads,)), 1, 1)[:3]
            threads = min(threads, x * y * z)
        out[0] = _Attributes(
            registers=found.registers,
            static_shared=function.kernel.static_shared,
            local=found.stack,
            threads=threads,
            dynamic_shared=function.dynamic_shared,
            carveout=function.carveout,
            ptx_version=module.target,
            binary_version=int(device.name.removeprefix("sm_")),
        )

    def _set_attribute(self, function, attribute, value):
        if attribute == MAX_DYNAMIC_SHARED:
            most = self.device.shared_per_block - function.kernel.static_shared
            if not 0 <= value <= most:
                raise LaunchError(
                    f"{function.name} may have {most} bytes of dynamic shared memory at most, not {value}"
                )
            function.dynamic_shared = value
        else:
            if not -1 <= value <= 100:
                raise LaunchError(f"a carveout is a percentage, or -1, not {value}")
            function.carveout = value

    def _resident_blocks(self, function, threads, shared, out):
        found = function.resources()
        use = Use(threads, found.registers, function.kernel.static_shared + shared, found.barriers)
        out[0] = resident_blocks(self.device, use, function.most_shared, function.carveout)


def _parameters(kernel, arguments):
    data = bytearray(kernel.parameter_bytes)
    for i, parameter in enumerate(kernel.parsed.parameters):
        data[parameter.offset : parameter.offset + parameter.size] = ctypes.string_at(arguments[i], parameter.size)
    return bytes(data)
