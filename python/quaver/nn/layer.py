"""What QuantLinear and QuantConv2d share: activations that are static or dynamic, and results in floats or in codes."""

import torch

from quaver import ops
from quaver.nn.config import check_fields, dtype_name, params_of, range_of, result_dtype
from quaver.nn.module import Int8Module, check_activation_params
from quaver.qparams import PerChannel, PerTensor


class Int8Layer(Int8Module):
    """An int8 module with a weight of symmetric codes, one scale for each output or one for all.

    `activations` are the elements of a dynamic layer's x that share a scale.
    """

    activations = None

    def __init__(self, *, symmetric, relu, input, output, weights, dtype):
        super().__init__()
        name = type(self).__name__
        check_activation_params(f"{name}: input", input)
        check_activation_params(f"{name}: output", output)
        if weights not in (PerChannel(0), PerTensor()):
            raise ValueError(f"{name}: weights must be PerChannel(0) or PerTensor(), got {weights}")
        self.symmetric = symmetric if input is None else input.symmetric
        self.relu = relu
        self.dtype = dtype

    @property
    def input(self):
        """The QuantizationParams of static activations, or None."""
        return self._held_params("input")

    @property
    def output(self):
        """The QuantizationParams of a result in codes, or None."""
        return self._held_params("output")

    def _codes(self, x):
        """(q, params) of x, which may already be codes where it is static."""
        params = self.input
        if params is None:
            return ops.dynamic_quantize(x, self.activations, symmetric=self.symmetric)
        if x.dtype == torch.int8:
            return x, params
        return ops.quantize(x, params.scale, params.correction, q_min=params.q_min, q_max=params.q_max), params

    def _of_output(self):
        """The options of an op that makes codes of `output`, beside its scale."""
        output = self.output
        return {"out_zero_point": output.correction, "q_min": output.q_min, "q_max": output.q_max}

    def config(self):
        """What JSON can hold of the constructor's arguments."""
        return {
            "bias": self.bias is not None,
            "symmetric": self.symmetric,
            "relu": self.relu,
            "input": range_of(self.input),
            "output": range_of(self.output),
            "one_weight_scale": self.weight_scale.numel() == 1,
            "dtype": dtype_name(self.dtype),
        }

    @classmethod
    def from_config(cls, config, device=None):
        """A layer whose state has the names, shapes and dtypes of the one that gave the config, and other values.

        Raises ValueError for what is no such config.
        """
        flags = dict.fromkeys(("bias", "symmetric", "relu", "one_weight_scale"), bool)
        ranges = dict.fromkeys(("input", "output"), (dict, type(None)))
        check_fields(config, **cls._sizes, **flags, **ranges, dtype=str)
        arguments = {
            **config,
            **{name: params_of(config[name], device) for name in ranges},
            "weights": PerTensor() if config["one_weight_scale"] else PerChannel(0),
            "dtype": result_dtype(config["dtype"]),
        }
        del arguments["one_weight_scale"]
        return cls(**arguments, device=device)
