"""Int8 layers in parts on several devices: styles for torch.distributed.tensor.parallel.parallelize_module.

A model's layers are cut where torch's own styles cut float layers, and give the bits of the whole model:

    plan = {"up": quaver.parallel.ColwiseParallel(), "down": quaver.parallel.RowwiseParallel()}
    parallelize_module(quaver.quantize_model(model), mesh, plan)

Importing this module also teaches quaver's ops what to do with DTensors: `quaver.sharding`.
"""

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor import parallel as torch_parallel

import quaver.sharding  # noqa: F401 - the rules of the ops
from quaver.nn import QuantLinear


class _OfQuantLinear:
    """A style of torch that has a way for QuantLinear, too."""

    def _apply(self, module, device_mesh):
        if not isinstance(module, QuantLinear):
            return super()._apply(module, device_mesh)
        if device_mesh.ndim != 1:
            raise ValueError(f"{type(self).__name__}: the mesh must have one dimension, got {device_mesh.ndim}")
        return distribute_module(module, device_mesh, self._cut, self._take_input, self._give_output)

    def _hold(self, module, mesh, name, placement):
        """A tensor of the module's state becomes a DTensor of what process 0 has there, or each process."""
        tensor = getattr(module, name)
        if tensor is None:
            return
        placement = Replicate() if name == "weight_scale" and tensor.numel() == 1 else placement
        module.register_buffer(name, distribute_tensor(tensor, mesh, [placement], src_data_rank=self.src_data_rank))

    def _take_input(self, module, inputs, mesh):
        x = inputs[0]
        if not isinstance(x, DTensor):
            x = DTensor.from_local(x, mesh, self.input_layouts, run_check=False, **self._shape(module, x))
        return x.redistribute(placements=self._wanted)

    def _shape(self, module, x):
        """Of the whole of x, where the module knows more of it than parts of one size would tell."""
        (layout,) = self.input_layouts
        if layout not in (Shard(-1), Shard(x.dim() - 1)):
            return {}
        shape = torch.Size([*x.shape[:-1], module.in_features])
        return {"shape": shape, "stride": torch.empty(shape, device="meta").stride()}

    def _give_output(self, module, output, mesh):
        output = output.redistribute(placements=self.output_layouts)
        return output.to_local() if self.use_local_output else output


class ColwiseParallel(_OfQuantLinear, torch_parallel.ColwiseParallel):
    """Each device has some of a QuantLinear's outputs: their rows of the weight, their scales, their bias.

    Arguments:
        input_layouts: how the input lies that comes as a plain tensor; whole on each device, by default. In parts of
            another dimension than the last, the parts must be of one size, as for torch's own styles.
        output_layouts: how the output is to lie; by default where it was made: Shard(-1).
        use_local_output: the output as each device's plain tensor, or as a DTensor.

    With `input` and `output` of the layer, codes come in and go out, and no device sends floats. Other modules than
    QuantLinear are left to torch.distributed.tensor.parallel.ColwiseParallel.

    Results have the bits of the layer on one device.

    Source: Shoeybi et al. 2019, Megatron-LM, section 3.

    >>> import torch, quaver
    >>> from quaver.parallel import ColwiseParallel
    >>> ColwiseParallel()
    ColwiseParallel(input_layouts=(Replicate(),), output_layouts=(Shard(dim=-1),), use_local_output=True)
    """

    _wanted = (Replicate(),)

    def _cut(self, name, module, mesh):
        for tensor in ("weight_q", "weight_scale", "weight_sum", "bias"):
            self._hold(module, mesh, tensor, Shard(0))


class RowwiseParallel(_OfQuantLinear, torch_parallel.RowwiseParallel):
    """Each device has some of a QuantLinear's inputs: their columns of the weight.

    Its parts of the products are int32 sums, which are added over the devices before they are scaled, once: so the
    result has the bits of the layer on one device, whatever the order of the additions. Dynamic activations join their
    range first: the largest numbers of each row, of all devices.

    Arguments:
        input_layouts: how the input lies that comes as a plain tensor; Shard(-1) by default, as ColwiseParallel gives.
            In parts of another dimension than the last, the parts must be of one size, as for torch's own styles.
        output_layouts: how the output is to lie; whole on each device, by default.
        use_local_output: the output as each device's plain tensor, or as a DTensor.

    An int32 sum has four bytes where a bfloat16 partial result has two: over a slow link this costs time.

    Other modules than QuantLinear are left to torch.distributed.tensor.parallel.RowwiseParallel.

    Source: Shoeybi et al. 2019, Megatron-LM, section 3; equations (4), (6) and (7).

    >>> import torch, quaver
    >>> from quaver.parallel import RowwiseParallel
    >>> RowwiseParallel()
    RowwiseParallel(input_layouts=(Shard(dim=-1),), output_layouts=(Replicate(),), use_local_output=True)
    """

    _wanted = (Shard(-1),)

    def _cut(self, name, module, mesh):
        self._hold(module, mesh, "weight_q", Shard(1))
        for tensor in ("weight_scale", "weight_sum", "bias"):
            self._hold(module, mesh, tensor, Replicate())
