"""Loads the compiled libraries and tells what they are.

`_C` (schemas, CPU kernels) must load: without it there is no quaver. `_C_cuda` may be absent, or built for another CUDA
than torch's; then every CUDA op says so, in the words that importing it left behind.
"""

import importlib
from importlib import metadata

import torch

from quaver import _C

NAMESPACE = "quaver"
OPS = (
    "choose_qparams",
    "quantize",
    "dynamic_quantize",
    "rms_norm_quantize",
    "silu_mul_quantize",
    "int8_matmul",
    "int8_matmul_dequantize",
    "int8_matmul_requantize",
    "rescale",
    "requantize",
    "dequantize",
    "fake_quantize",
    "fake_quantize_mask",
    "int8_linear",
    "int8_conv2d",
)

CPU_OPS = ("int8_prepack",)  # what only the CPU has a use for

WRITING_OPS = tuple(name for name in OPS if name != "choose_qparams")  # those with a form `.out`: large results
# Of these, those whose first result may have any strides, and those whose results are images, contiguous or
# channels_last; all other results are contiguous.
ANY_STRIDES = (
    *("quantize", "dynamic_quantize", "rescale", "requantize", "dequantize"),
    *("fake_quantize", "fake_quantize_mask"),
)
IMAGES = ("int8_conv2d",)


def _out_schema(schema):
    """Of an op's form that writes given tensors instead of making its results: torch's convention."""
    names = [result.name or "out" for result in schema.returns]
    written = [f"Tensor({alias}!) {name}" for alias, name in zip("abcdefgh", names, strict=False)]
    arguments, _ = str(schema).removeprefix(f"{schema.name}(").split(") -> ")
    returned = written[0].split()[0] if len(written) == 1 else f"({', '.join(written)})"
    return f"{schema.name.split('::')[1]}.out({arguments}, {', '.join(written)}) -> {returned}"


# Without torch.Tag.out: Inductor of torch 2.13 takes a form with this tag in its op's place and gives it some arguments
# twice, by position and by name.
_out_forms = torch.library.Library(NAMESPACE, "FRAGMENT")
for _name in WRITING_OPS:
    _plain = getattr(getattr(torch.ops, NAMESPACE), _name).default._schema
    _out_forms.define(_out_schema(_plain), tags=torch.Tag.pt2_compliant_tag)


def written_arguments(op):
    """The names of what a call writes: the out= of such a form."""
    return [a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]


def as_tuple(results):
    """What a call of an op returned, one tensor or several or nothing, as a tuple."""
    return (results,) if isinstance(results, torch.Tensor) else tuple(results or ())


def cuda_mismatch(torch_cuda, torch_hip, nvcc):
    """Why a library built by `nvcc` cannot serve this torch, or None.

    A torch without CUDA may load it all the same: nothing will call it.
    """
    if torch_hip is not None:
        return f"quaver's CUDA kernels were built for NVIDIA GPUs, this torch is built for ROCm {torch_hip}"
    if torch_cuda is not None and torch_cuda.split(".")[0] != nvcc.split(".")[0]:
        return (
            f"quaver's CUDA kernels were built with nvcc {nvcc}, this torch uses CUDA {torch_cuda}: "
            "the major versions must be equal; rebuild quaver with a CUDA toolkit of torch's major version"
        )
    return None


def _load_cuda():
    """Registers the CUDA kernels; returns why they cannot be used, or None."""
    if not _C.built_with_nvcc:
        return "quaver was built without its CUDA kernels (no nvcc was found, or QUAVER_CUDA=0)"
    mismatch = cuda_mismatch(torch.version.cuda, torch.version.hip, _C.built_with_nvcc)
    if mismatch is not None:
        return mismatch
    try:
        importlib.import_module("quaver._C_cuda")
    except ImportError as error:
        return f"quaver's CUDA library did not load: {error}"
    return None


cuda_unavailable_reason = _load_cuda()


def _refuse_cuda(name):
    def refuse(*args, **kwargs):
        raise RuntimeError(f"quaver::{name}: no CUDA implementation: {cuda_unavailable_reason}")

    return refuse


if cuda_unavailable_reason is not None:
    _refusals = torch.library.Library(NAMESPACE, "IMPL", "CUDA")
    for _name in OPS:
        _refusals.impl(_name, _refuse_cuda(_name))
    for _name in WRITING_OPS:
        _refusals.impl(f"{_name}.out", _refuse_cuda(_name))


def _only_on_the_cpu(name):
    def refuse(tensor):
        raise NotImplementedError(f"quaver::{name}: is for the CPU's matmuls: no other needs it, got {tensor.device}")

    return refuse


_cpu_only = torch.library.Library(NAMESPACE, "IMPL", "CUDA")
for _name in CPU_OPS:
    _cpu_only.impl(_name, _only_on_the_cpu(_name))


def build_info():
    """What was built, and what it runs on here.

    Returns a dict: `version` of quaver; `torch` and `torch_built_with`, the torch running and the one that the
    libraries were compiled against; `cpu_capability`, the instruction set that the CPU kernels use on this machine,
    the best of "portable", "avx2", "avx_vnni", "avx512", "avx512_vnni" and "amx" that it has, up to the one that
    QUAVER_CPU_CAPABILITY names in the environment;
    `cuda`, whether the CUDA kernels are loaded; and then `nvcc` and `cuda_architectures`, or else
    `cuda_unavailable_reason`.

    >>> import quaver
    >>> info = quaver.build_info()
    >>> info["cpu_capability"] in ("amx", "avx512_vnni", "avx512", "avx_vnni", "avx2", "portable")
    True
    """
    info = {
        "version": metadata.version("quaver"),
        "torch": torch.__version__,
        "torch_built_with": _C.built_with_torch,
        "cpu_capability": _C.cpu_capability(),
        "cuda": cuda_unavailable_reason is None,
    }
    if cuda_unavailable_reason is not None:
        return {**info, "cuda_unavailable_reason": cuda_unavailable_reason}
    return {**info, "nvcc": _C.built_with_nvcc, "cuda_architectures": _C.cuda_architectures.split(";")}
