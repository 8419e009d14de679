"""torch.func.vmap over an op is refused in words.

Without this torch would run the op once for each element of the batch: right, and slower by the size of the batch.
Each op takes batches as they are, in one call.
"""

import torch

from quaver.library import CPU_OPS, NAMESPACE, OPS

_refusals = torch.library.Library(NAMESPACE, "IMPL")


def _refuse(name):
    def refuse(*args, **kwargs):
        raise NotImplementedError(
            f"quaver::{name}: torch.func.vmap is not supported; call it once for the whole batch: "
            "make the batch a dimension of its tensors, and of the scales' shapes where scales differ along it"
        )

    return refuse


for _name in (*OPS, *CPU_OPS):
    for _overload in getattr(getattr(torch.ops, NAMESPACE), _name).overloads():
        _refusals.impl(_name if _overload == "default" else f"{_name}.{_overload}", _refuse(_name), "FuncTorchBatched")
