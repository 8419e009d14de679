"""QuantLinear: torch.nn.Linear in int8."""

import torch

from quaver import ops
from quaver.nn.layer import Int8Layer
from quaver.nn.module import float_bias, quantized_weight
from quaver.qparams import PerChannel, PerToken


class QuantLinear(Int8Layer):
    """torch.nn.Linear with int8 weights, one scale for each output channel, and int8 activations.

    y = relu(x @ (weight_scale * weight_q).T + bias), its product in integers.

    Activations are dynamic or static. Dynamic, the default: each row of x is quantized with what it holds, by
    `quaver.int8_linear`, with a zero point of 0 (`symmetric`) or one of its own. Static: `input` holds the parameters
    that calibration found, for all of x; then x may also come as int8 codes of these parameters, from a layer before.
    With `output`, the result is codes of those parameters: layers that agree on them pass codes along, and no float
    tensor exists between them.

    Arguments:
        in_features, out_features, bias, device: as for torch.nn.Linear.
        symmetric: of dynamic activations.
        relu: negative results become 0.
        input, output: symmetric or asymmetric QuantizationParams of one element for int8 codes, or None.
        weights: which elements of the weight share a scale: PerChannel(0), those of an output, or PerTensor().
        dtype: of a float result where x is codes; else it has x's dtype, under torch.autocast too.

    Its state is plain tensors: `weight_q` int8 [N, K], `weight_scale` float32 [N, 1], `weight_sum` int32 [N, 1] (what
    zero points of activations need of the weight), `bias` float32 [N] or None and, where there are such parameters,
    `input_scale`, `input_zero_point`, `output_scale` and `output_zero_point`. They keep their dtypes whatever
    `.half()` or `.to(dtype)` say to the model around them. It is made for inference: what requires grad is refused.

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

    Two layers with int8 codes between them:

    >>> x = torch.randn(100, 64)
    >>> first, second = torch.nn.Linear(64, 32), torch.nn.Linear(32, 8)
    >>> seen, between = quaver.choose_qparams(x), quaver.choose_qparams(first(x).relu().detach(), symmetric=False)
    >>> first = quaver.QuantLinear.from_float(first, relu=True, input=seen, output=between)
    >>> first(x).dtype
    torch.int8
    >>> quaver.QuantLinear.from_float(second, input=between)(first(x)).dtype
    torch.float32
    """

    float_type = torch.nn.Linear
    activations = PerToken()
    _sizes = dict.fromkeys(("in_features", "out_features"), int)

    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        *,
        symmetric=True,
        relu=False,
        input=None,
        output=None,
        weights=PerChannel(0),
        dtype=torch.float32,
        device=None,
    ):
        super().__init__(symmetric=symmetric, relu=relu, input=input, output=output, weights=weights, dtype=dtype)
        self.in_features = in_features
        self.out_features = out_features
        self.register_buffer("weight_q", torch.zeros(out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.ones(weights.scale_shape(self.weight_q.shape), device=device))
        self.register_buffer("weight_sum", torch.zeros(out_features, 1, dtype=torch.int32, device=device))
        self.register_buffer("bias", torch.zeros(out_features, device=device) if bias else None)
        self._hold_params("input", input, device)
        self._hold_params("output", output, device)

    @classmethod
    @torch.no_grad()
    def from_float(
        cls,
        linear,
        *,
        symmetric=True,
        relu=False,
        input=None,
        output=None,
        weights=PerChannel(0),
        weight_params=None,
    ):
        """The int8 layer for a torch.nn.Linear, which stays as it is.

        `weight_params` are symmetric QuantizationParams to take for the weight instead of those of its range. The rest
        is as above.
        """
        weight = linear.weight
        layer = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            symmetric=symmetric,
            relu=relu,
            input=input,
            output=output,
            weights=weights,
            dtype=weight.dtype,
            device=weight.device,
        )
        layer.weight_q, layer.weight_scale = quantized_weight(weight.contiguous(), weights, weight_params)
        layer.weight_sum = layer.weight_q.sum(1, keepdim=True, dtype=torch.int32)
        layer.bias = float_bias(linear.bias)
        return layer.train(linear.training)

    def config(self):
        """What JSON can hold of the constructor's arguments."""
        return {name: getattr(self, name) for name in self._sizes} | super().config()

    def forward(self, input):
        if not self._ranges:  # neither input nor output
            return ops.int8_linear(
                input,
                *self._held("weight_q", "weight_scale", "bias"),
                weight_sum=None if self.symmetric else self.weight_sum,
                symmetric=self.symmetric,
                relu=self.relu,
                weight_packed=self._packed_weight(),
            )
        rows = input.unsqueeze(0) if input.dim() == 1 else input
        y = self._product(*self._codes(rows), self.dtype if input.dtype == torch.int8 else input.dtype)
        return y.squeeze(0) if input.dim() == 1 else y

    def _matrix(self):
        return self.weight_q.mT

    def _product(self, q, params, dtype):
        """The product of codes, as floats of a dtype or as codes of `output`."""
        weight_scale, bias = self._held("weight_scale", "bias")
        operands = (q, self._matrix(), params.scale, weight_scale.mT)
        options = {
            "a_zero_point": params.correction,
            "bias": bias,
            "b_packed": self._packed_weight(),
            "relu": self.relu,
        }
        if not self.symmetric:
            options["b_sum"] = self.weight_sum.mT
        output = self.output
        if output is None:
            return ops.int8_matmul_dequantize(*operands, dtype=dtype, **options)
        return ops.int8_matmul_requantize(*operands, output.scale, **self._of_output(), **options)

    def extra_repr(self):
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, symmetric={self.symmetric}{self._more_repr()}"
        )
