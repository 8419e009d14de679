"""FakeQuantLinear: torch.nn.Linear that trains as it will run in int8."""

import torch

from quaver import ops
from quaver.nn.linear import QuantLinear
from quaver.nn.module import check_activation_params
from quaver.qparams import PerChannel, PerToken, QuantizationParams


class FakeQuantLinear(torch.nn.Linear):
    """A linear layer whose result is, to the last bit, that of the QuantLinear it will become, with a gradient.

    The forward pass quantizes x and the weight and multiplies them in integers. The backward pass takes
    y = fake_quantize(x) @ fake_quantize(weight).T + bias in its place, ARITHMETIC.md (9): the straight-through
    estimator, with no gradient where the range of codes has clipped.

    Arguments:
        in_features, out_features, bias, device, dtype: as for torch.nn.Linear, whose parameters it has.
        symmetric: of activations that are quantized row by row with what they hold.
        relu: negative results become 0, and have no gradient.
        observer: for static activations: what sees x in training mode and decides on parameters of one element, such as
            quaver.observers.MovingAverage(). They are state, `input_scale` and `input_zero_point`; eval mode takes
            them as they are.

    `to_int8()` gives the QuantLinear. Bhalgat et al. and Jacob et al. 2018, "Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference", train this way.

    >>> import torch, quaver
    >>> _ = torch.manual_seed(0)
    >>> layer = quaver.nn.FakeQuantLinear(64, 8, symmetric=False)
    >>> x = torch.randn(4, 64)
    >>> layer(x).square().sum().backward()
    >>> layer.weight.grad.shape
    torch.Size([8, 64])
    >>> torch.equal(layer(x), layer.to_int8()(x))
    True
    """

    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        *,
        symmetric=True,
        relu=False,
        observer=None,
        device=None,
        dtype=None,
    ):
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.symmetric = symmetric if observer is None else observer.symmetric
        self.relu = relu
        self.observer = observer
        if observer is not None:
            self.register_buffer("input_scale", torch.ones(1, device=device))
            self.register_buffer("input_zero_point", torch.zeros(1, dtype=torch.int32, device=device))

    @classmethod
    def from_float(cls, linear, *, symmetric=True, relu=False, observer=None):
        """The layer that trains on from a torch.nn.Linear, whose parameters it shares."""
        layer = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            symmetric=symmetric,
            relu=relu,
            observer=observer,
            device=linear.weight.device,
        )
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    @torch.no_grad()
    def to_int8(self):
        """The QuantLinear with the codes that this layer multiplies."""
        return QuantLinear.from_float(self, symmetric=self.symmetric, relu=self.relu, input=self.input)

    @property
    def input(self):
        """The QuantizationParams of static activations, or None."""
        if self.observer is None:
            return None
        return QuantizationParams(
            self.input_scale, self.input_zero_point, self.observer.q_min, self.observer.q_max, self.symmetric
        )

    def forward(self, input):
        rows = input.unsqueeze(0) if input.dim() == 1 else input
        x_params = self._activation_params(rows.detach())
        weight_params = ops.choose_qparams(self.weight.detach(), PerChannel(0))
        trained = torch.nn.functional.linear(
            ops.fake_quantize(rows, x_params), ops.fake_quantize(self.weight, weight_params), self.bias
        )
        with torch.no_grad():
            y = ops.int8_matmul_dequantize(
                ops.quantize(rows, x_params),
                ops.quantize(self.weight, weight_params).t(),
                x_params,
                weight_params.t(),
                bias=self.bias,
                dtype=input.dtype,
            )
        y = _ValueOf.apply(trained.to(y.dtype), y)
        if self.relu:
            y = torch.where(y <= 0, torch.zeros((), dtype=y.dtype, device=y.device), y)
        return y.squeeze(0) if input.dim() == 1 else y

    def _activation_params(self, x):
        if self.observer is None:
            return ops.choose_qparams(x, PerToken(), symmetric=self.symmetric)
        if self.training:
            self.observer.observe(x)
            params = self.observer.qparams()
            check_activation_params("FakeQuantLinear: the observer's parameters", params)
            self.input_scale.copy_(params.scale.reshape(1))
            self.input_zero_point.copy_(params.zero_point.reshape(1))
        return self.input

    def extra_repr(self):
        words = f", symmetric={self.symmetric}" + (", relu=True" if self.relu else "")
        return super().extra_repr() + words + ("" if self.observer is None else f", observer={self.observer!r}")


class _ValueOf(torch.autograd.Function):
    """The second tensor's values with the first one's gradient."""

    @staticmethod
    def forward(ctx, trained, value):
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None
