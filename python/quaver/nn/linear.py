"""Modules whose products run in int8."""

import torch

from quaver import ops


class QuantLinear(torch.nn.Module):
    """torch.nn.Linear with int8 weights, one scale for each output channel; activations are quantized row by row.

    y = x @ (weight_scale * weight_q).T + bias, computed by `quaver.int8_linear`. Its state is plain tensors: `weight_q`
    int8 [N, K], `weight_scale` float32 [N, 1], `weight_sum` int32 [N, 1] (what asymmetric activations need of the
    weight) and `bias` float32 [N] or None. It is made for inference: an input that requires grad is refused.

    These tensors keep their dtypes whatever `.half()`, `.bfloat16()`, `.double()` or `.to(dtype)` say to the model
    around them, and follow it to other devices. The output has the input's dtype, under torch.autocast too, which
    changes nothing here; a scale rounded to float16 would make another weight.

    On the CPU the first call packs the weight (`quaver.int8_prepack`), a copy that is no part of the state and is made
    anew when weight_q has changed. A compiled graph uses the copy that the last call outside of a graph has left: call
    the layer once before it is compiled, to be fast, and after its weight was changed in place, to be right.

    >>> import torch, quaver
    >>> _ = torch.manual_seed(0)
    >>> layer = quaver.QuantLinear.from_float(torch.nn.Linear(64, 8), symmetric=False)
    >>> layer
    QuantLinear(in_features=64, out_features=8, bias=True, symmetric=False)
    >>> layer(torch.randn(2, 64)).shape
    torch.Size([2, 8])
    """

    def __init__(self, in_features, out_features, bias=True, *, symmetric=True, device=None):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.symmetric = symmetric
        self.register_buffer("weight_q", torch.zeros(out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.ones(out_features, 1, device=device))
        self.register_buffer("weight_sum", torch.zeros(out_features, 1, dtype=torch.int32, device=device))
        self.register_buffer("bias", torch.zeros(out_features, device=device) if bias else None)
        self._packed = None
        self._packed_from = None  # the weight that it is a copy of, and that weight's version

    @classmethod
    @torch.no_grad()
    def from_float(cls, linear, *, symmetric=True):
        """The int8 layer for a torch.nn.Linear; `symmetric` says how activations will be quantized."""
        weight = linear.weight
        layer = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            symmetric=symmetric,
            device=weight.device,
        )
        layer.weight_q, params, layer.weight_sum = ops.dynamic_quantize(weight.contiguous(), return_row_sum=True)
        layer.weight_scale = params.scale
        if linear.bias is not None:
            layer.bias = linear.bias.detach().to(torch.float32).clone()
        return layer.train(linear.training)

    def forward(self, x):
        return ops.int8_linear(
            x,
            self.weight_q,
            self.weight_scale,
            self.bias,
            weight_sum=self.weight_sum,
            symmetric=self.symmetric,
            weight_packed=self._packed_weight(),
        )

    def _packed_weight(self):
        weight = self.weight_q
        if weight.device.type != "cpu":
            return None
        if torch.compiler.is_compiling():
            return self._packed
        made_from = (weight, None if weight.is_inference() else weight._version)
        if self._packed is None or self._packed_from[0] is not weight or self._packed_from[1] != made_from[1]:
            packed = ops.int8_prepack(weight.t())
            if type(packed) is not torch.Tensor:  # a fake one, of a tracer
                return None
            self._packed, self._packed_from = packed, made_from
        return self._packed

    def _forget_packed(self):
        self._packed = self._packed_from = None

    def __getstate__(self):
        return {**super().__getstate__(), "_packed": None, "_packed_from": None}

    def _load_from_state_dict(self, *args, **kwargs):
        self._forget_packed()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn, recurse=True):
        """What every conversion of a module goes through: it sees float32 as int32, so it moves bits and casts none."""

        def keeping_bits(tensor):
            if tensor.dtype != torch.float32:
                return fn(tensor)
            return fn(tensor.view(torch.int32)).view(torch.float32)

        self._forget_packed()
        return super()._apply(keeping_bits, recurse)

    def extra_repr(self):
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, symmetric={self.symmetric}"
        )
