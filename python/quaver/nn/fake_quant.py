"""Layers that train as they will run in int8: their results are, to the last bit, those of the int8 layers they become.

The forward pass quantizes x and the weight and multiplies them in integers. The backward pass takes the float layer of
fake_quantize(x) and fake_quantize(weight) in its place, ARITHMETIC.md (9): the straight-through estimator, with no
gradient where the range of codes has clipped. Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", train this way.
"""

import torch

from quaver import ops
from quaver.nn.conv import QuantConv2d, padding_of
from quaver.nn.linear import QuantLinear
from quaver.nn.module import check_activation_params
from quaver.qparams import PerChannel, PerTensor, PerToken, QuantizationParams


class _FakeQuant:
    """What these layers add to the torch.nn modules that they are."""

    def _prepare(self, symmetric, relu, observer, device):
        self.symmetric = symmetric if observer is None else observer.symmetric
        self.relu = relu
        self.observer = observer
        if observer is not None:
            self.register_buffer("input_scale", torch.ones(1, device=device))
            self.register_buffer("input_zero_point", torch.zeros(1, dtype=torch.int32, device=device))

    def _take_parameters(self, layer):
        self.weight, self.bias = layer.weight, layer.bias
        return self.train(layer.training)

    @property
    def input(self):
        """The QuantizationParams of static activations, or None."""
        if self.observer is None:
            return None
        held = self.input_scale, self.input_zero_point
        return QuantizationParams(*held, self.observer.q_min, self.observer.q_max, self.symmetric)

    def _activation_params(self, x, granularity):
        if self.observer is None:
            return ops.choose_qparams(x, granularity, symmetric=self.symmetric)
        if self.training:
            self.observer.observe(x)
            params = self.observer.qparams()
            check_activation_params(f"{type(self).__name__}: what the observer decides on", params)
            self.input_scale.copy_(params.scale.reshape(1))
            self.input_zero_point.copy_(params.zero_point.reshape(1))
        return self.input

    def _trained(self, x, granularity, in_floats, in_int8):
        """in_int8's result on the codes of x and of the weight, with in_floats' gradient on what these stand for."""
        x_params = self._activation_params(x.detach(), granularity)
        weight_params = ops.choose_qparams(self.weight.detach(), PerChannel(0))
        trained = in_floats(ops.fake_quantize(x, x_params), ops.fake_quantize(self.weight, weight_params))
        with torch.no_grad():
            q, weight_q = ops.quantize(x, x_params), ops.quantize(self.weight, weight_params)
            y = in_int8(q, weight_q, x_params, weight_params)
        y = _ValueOf.apply(trained.to(y.dtype), y)
        return torch.where(y <= 0, torch.zeros((), dtype=y.dtype, device=y.device), y) if self.relu else y

    def extra_repr(self):
        words = f", symmetric={self.symmetric}" + (", relu=True" if self.relu else "")
        return super().extra_repr() + words + ("" if self.observer is None else f", observer={self.observer!r}")


class FakeQuantLinear(_FakeQuant, torch.nn.Linear):
    """A linear layer that trains as the QuantLinear it will become.

    Arguments:
        in_features, out_features, bias, device, dtype: as for torch.nn.Linear, whose parameters it has.
        symmetric: of activations that are quantized row by row with what they hold.
        relu: negative results become 0, and have no gradient.
        observer: for static activations: what sees x in training mode and decides on parameters of one element, such as
            quaver.observers.MovingAverage(). They are state, `input_scale` and `input_zero_point`; eval mode takes
            them as they are.

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
        self._prepare(symmetric, relu, observer, device)

    @classmethod
    def from_float(cls, linear, *, symmetric=True, relu=False, observer=None):
        """The layer that trains on from a torch.nn.Linear, whose parameters it shares."""
        sizes = linear.in_features, linear.out_features, linear.bias is not None
        options = {"symmetric": symmetric, "relu": relu, "observer": observer, "device": linear.weight.device}
        return cls(*sizes, **options)._take_parameters(linear)

    @torch.no_grad()
    def to_int8(self):
        """The QuantLinear with the codes that this layer multiplies."""
        return QuantLinear.from_float(self, symmetric=self.symmetric, relu=self.relu, input=self.input)

    def forward(self, input):
        rows = input.unsqueeze(0) if input.dim() == 1 else input

        def in_floats(x, weight):
            return torch.nn.functional.linear(x, weight, self.bias)

        def in_int8(q, weight_q, x_params, weight_params):
            scales = x_params, weight_params.t()
            return ops.int8_matmul_dequantize(q, weight_q.t(), *scales, bias=self.bias, dtype=input.dtype)

        y = self._trained(rows, PerToken(), in_floats, in_int8)
        return y.squeeze(0) if input.dim() == 1 else y


class FakeQuantConv2d(_FakeQuant, torch.nn.Conv2d):
    """A convolution that trains as the QuantConv2d it will become.

    Arguments:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype: as for
            torch.nn.Conv2d, whose parameters it has; padding is of zeros.
        symmetric: of activations that are quantized with what x holds.
        relu, observer: as for FakeQuantLinear.

    >>> import torch, quaver
    >>> _ = torch.manual_seed(0)
    >>> layer = quaver.nn.FakeQuantConv2d(3, 8, 3, padding=1, observer=quaver.observers.MovingAverage())
    >>> x = torch.randn(2, 3, 9, 9)
    >>> layer(x).square().sum().backward()
    >>> layer.weight.grad.shape
    torch.Size([8, 3, 3, 3])
    >>> torch.equal(layer.eval()(x), layer.to_int8()(x))
    True
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        *,
        symmetric=True,
        relu=False,
        observer=None,
        device=None,
        dtype=None,
    ):
        sizes = in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        super().__init__(*sizes, device=device, dtype=dtype)
        self._prepare(symmetric, relu, observer, device)

    @classmethod
    def from_float(cls, conv, *, symmetric=True, relu=False, observer=None):
        """The layer that trains on from a torch.nn.Conv2d, whose parameters it shares."""
        sizes = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding_of(conv), conv.dilation
        options = {"symmetric": symmetric, "relu": relu, "observer": observer, "device": conv.weight.device}
        return cls(*sizes, conv.groups, conv.bias is not None, **options)._take_parameters(conv)

    @torch.no_grad()
    def to_int8(self):
        """The QuantConv2d with the codes that this layer multiplies."""
        return QuantConv2d.from_float(self, symmetric=self.symmetric, relu=self.relu, input=self.input)

    def forward(self, input):
        images = input.unsqueeze(0) if input.dim() == 3 else input
        geometry = {
            "stride": self.stride,
            "padding": padding_of(self),
            "dilation": self.dilation,
            "groups": self.groups,
        }

        def in_floats(x, weight):
            return torch.nn.functional.conv2d(x, weight, self.bias, **geometry)

        def in_int8(q, weight_q, *params):
            return ops.int8_conv2d(q, weight_q, *params, bias=self.bias, dtype=input.dtype, **geometry)

        y = self._trained(images, PerTensor(), in_floats, in_int8)
        return y.squeeze(0) if input.dim() == 3 else y


class _ValueOf(torch.autograd.Function):
    """The second tensor's values with the first one's gradient."""

    @staticmethod
    def forward(ctx, trained, value):
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None
