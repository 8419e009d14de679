"""QuantConv2d: torch.nn.Conv2d in int8."""

import torch

from quaver import ops
from quaver.nn.layer import Int8Layer
from quaver.nn.module import float_bias, quantized_weight
from quaver.qparams import PerChannel, PerTensor


class QuantConv2d(Int8Layer):
    """torch.nn.Conv2d with int8 weights, one scale for each output channel, and int8 activations with one scale.

    y = relu(conv2d(x, weight_scale * weight_q) + bias), its product in integers, by `quaver.int8_conv2d`.

    Activations are static, with parameters that calibration found (`input`), or dynamic: x is quantized with what it
    holds. A static layer takes int8 codes of its parameters too, and with `output` a layer gives codes: convolutions
    that agree on them pass codes along.

    Arguments:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device: as for
            torch.nn.Conv2d; padding is a number or two, of zeros.
        symmetric: of dynamic activations.
        relu: negative results become 0.
        input, output: symmetric or asymmetric QuantizationParams of one element for int8 codes, or None.
        weights: which elements of the weight share a scale: PerChannel(0), those of an output channel, or PerTensor().
        dtype: of a float result where x is codes; else it has x's dtype.

    Its state is `weight_q` int8 [O, C / groups, kH, kW], channels_last, `weight_scale` float32 [O, 1, 1, 1], `bias`
    float32 [O] or None and those of `input` and `output`; what was said of QuantLinear's holds for it.

    >>> import torch, quaver
    >>> _ = torch.manual_seed(0)
    >>> conv, x = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.randn(2, 3, 9, 9)
    >>> layer = quaver.nn.QuantConv2d.from_float(conv, input=quaver.choose_qparams(x, symmetric=False))
    >>> layer
    QuantConv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), symmetric=False, input=asymmetric)
    >>> bool((layer(x) - conv(x)).abs().max() < 0.03)
    True
    """

    float_type = torch.nn.Conv2d
    activations = PerTensor()
    _pairs = dict.fromkeys(("kernel_size", "stride", "padding", "dilation"), list)
    _sizes = dict.fromkeys(("in_channels", "out_channels", "groups"), int) | _pairs

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
        input=None,
        output=None,
        weights=PerChannel(0),
        dtype=torch.float32,
        device=None,
    ):
        super().__init__(symmetric=symmetric, relu=relu, input=input, output=output, weights=weights, dtype=dtype)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _two(kernel_size)
        self.stride = _two(stride)
        self.padding = _two(padding)
        self.dilation = _two(dilation)
        self.groups = groups
        weight_q = torch.zeros(out_channels, in_channels // groups, *self.kernel_size, dtype=torch.int8, device=device)
        self.register_buffer("weight_q", weight_q.contiguous(memory_format=torch.channels_last))
        self.register_buffer("weight_scale", torch.ones(weights.scale_shape(weight_q.shape), device=device))
        self.register_buffer("bias", torch.zeros(out_channels, device=device) if bias else None)
        self._hold_params("input", input, device)
        self._hold_params("output", output, device)

    @classmethod
    @torch.no_grad()
    def from_float(
        cls,
        conv,
        *,
        symmetric=True,
        relu=False,
        input=None,
        output=None,
        weights=PerChannel(0),
        weight_params=None,
    ):
        """The int8 layer for a torch.nn.Conv2d, which stays as it is.

        `weight_params` are symmetric QuantizationParams to take for the weight instead of those of its range. The rest
        is as above. A padding of other than zeros, or of which one side has more, is refused with a ValueError.
        """
        weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            padding_of(conv),
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            symmetric=symmetric,
            relu=relu,
            input=input,
            output=output,
            weights=weights,
            dtype=weight.dtype,
            device=weight.device,
        )
        layer.weight_q, layer.weight_scale = quantized_weight(weight, weights, weight_params)
        layer.bias = float_bias(conv.bias)
        return layer.train(conv.training)

    def config(self):
        """What JSON can hold of the constructor's arguments."""
        sizes = {name: getattr(self, name) for name in self._sizes}
        return sizes | {name: list(sizes[name]) for name in self._pairs} | super().config()

    @classmethod
    def from_config(cls, config, device=None):
        """A layer whose state has the names, shapes and dtypes of the one that gave the config, and other values.

        Raises ValueError for what is no such config.
        """
        for name in cls._pairs:
            pair = config.get(name)
            if isinstance(pair, list) and [type(value) for value in pair] != [int, int]:
                raise ValueError(f"its field {name} must be two int, got {pair!r}")
        if type(config.get("groups")) is int and config["groups"] < 1:
            raise ValueError(f"its field groups must be 1 or more, got {config['groups']}")
        return super().from_config(config, device)

    def forward(self, input):
        images = input.unsqueeze(0) if input.dim() == 3 else input
        q, params = self._codes(images)
        output = self.output
        if output is None:
            result = {"dtype": self.dtype if input.dtype == torch.int8 else input.dtype}
        else:
            result = {"dtype": torch.int8, **self._of_output()}
        weight_q, weight_scale, bias = self._held("weight_q", "weight_scale", "bias")
        y = ops.int8_conv2d(
            q,
            weight_q,
            params.scale,
            weight_scale,
            None if output is None else output.scale,
            x_zero_point=params.correction,
            bias=bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            relu=self.relu,
            weight_packed=self._packed_weight() if self.groups == 1 else None,
            **result,
        )
        return y.squeeze(0) if input.dim() == 3 else y

    def _matrix(self):
        return self.weight_q.permute(2, 3, 1, 0).flatten(0, 2)

    def extra_repr(self):
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        words += [f"padding={self.padding}"] if self.padding != (0, 0) else []
        words += [f"dilation={self.dilation}"] if self.dilation != (1, 1) else []
        words += [f"groups={self.groups}"] if self.groups != 1 else []
        words += ["bias=False"] if self.bias is None else []
        return ", ".join(words) + f", symmetric={self.symmetric}{self._more_repr()}"


def _two(value):
    """A number for rows and columns alike, or one for each."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def padding_of(conv):
    """A torch.nn.Conv2d's padding as two numbers."""
    if conv.padding_mode != "zeros":
        raise ValueError(f"QuantConv2d: padding_mode must be 'zeros', got {conv.padding_mode!r}")
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding != "same":
        return conv.padding
    both = [step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    if any(total % 2 for total in both):
        raise ValueError(
            f"QuantConv2d: padding='same' must be the same on both sides, got kernel_size={conv.kernel_size} and "
            f"dilation={conv.dilation}"
        )
    return tuple(total // 2 for total in both)
