"""Int8 layers in ONNX's operators, for `to_onnx`: modules to be exported, not to be run."""

import torch

from quaver import reference
from quaver.nn import QuantConv2d, QuantEmbedding, QuantLinear
from quaver.qparams import full_range

SATURATES = full_range(torch.int8)  # where QuantizeLinear does


def quantize_linear(x, scale, zero_point, **attributes):
    """int8 codes of a float32 x."""
    inputs = [x, scale, zero_point]
    return torch.onnx.ops.symbolic("QuantizeLinear", inputs, attributes, dtype=torch.int8, shape=x.shape)


def dequantize_linear(q, *parameters, **attributes):
    """float32 numbers of int8 codes, by a scale and perhaps a zero point."""
    inputs = [q, *parameters]
    return torch.onnx.ops.symbolic("DequantizeLinear", inputs, attributes, dtype=torch.float32, shape=q.shape)


def matmul_integer(q, b, *zero_point):
    """The int32 product of int8 codes [..., K], perhaps with one zero point, and [K, N]."""
    shape = (*q.shape[:-1], b.shape[1])
    return torch.onnx.ops.symbolic("MatMulInteger", [q, b, *zero_point], dtype=torch.int32, shape=shape)


def without_nan(x):
    """ONNX leaves open what becomes of NaN; the zero point of equation (2) is 0's code."""
    return torch.where(torch.isnan(x), torch.zeros((), dtype=x.dtype, device=x.device), x)


def conv_integer(q, weight, zero_point, conv):
    """The int32 convolution of int8 codes [N, C, H, W], whose padding is the zero point, by `conv`'s strides."""
    size = [
        (size + 2 * more - apart * (taps - 1) - 1) // step + 1
        for size, more, apart, taps, step in zip(
            q.shape[2:], conv.padding, conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    ]
    attributes = {"strides": list(conv.stride), "pads": [*conv.padding, *conv.padding]}
    attributes |= {"dilations": list(conv.dilation), "group": conv.groups}
    inputs, shape = [q, weight, zero_point], (q.shape[0], conv.out_channels, *size)
    return torch.onnx.ops.symbolic("ConvInteger", inputs, attributes, dtype=torch.int32, shape=shape)


class _LayerInOnnx(torch.nn.Module):
    """What a QuantLinear and a QuantConv2d have in common. What each output has is laid out by `result_shape`."""

    def __init__(self, layer, weight, exact, *, weight_axis, result_shape):
        super().__init__()
        self.exact, self.relu, self.symmetric, self.dtype = exact, layer.relu, layer.symmetric, layer.dtype
        self.weight_axis, self.result_shape = weight_axis, result_shape
        self.input = None if layer.input is None else _Quantizer(layer.input, exact)
        self.output = None if layer.output is None else _Quantizer(layer.output, exact, positive=layer.relu)
        self.register_buffer("weight", weight)
        single = layer.weight_scale.numel() == 1
        weight_scale = layer.weight_scale.reshape(() if single else -1).clone()
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("weight_zero_point", torch.zeros_like(weight_scale, dtype=torch.int8))
        result_scale = weight_scale if single else weight_scale.reshape(result_shape)
        self.register_buffer("result_scale", result_scale)
        self.register_buffer("product_scale", None if self.input is None else self.input.scale * result_scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.reshape(result_shape).clone())

    def finished(self, y, input):
        """A product with its bias, in the form in which the layer gives it."""
        if self.relu:
            y = torch.relu(y)
        if self.output is not None:
            return self.output(y)
        return y.to(self.dtype if input.dtype == torch.int8 else input.dtype)

    def scaled(self, acc, scale=None):
        """Equation (7), by a dynamic scale or the static one."""
        # abs() changes no scale. Without it onnxruntime fuses as if all rows had one scale (its pull request 6169).
        factor = self.product_scale if scale is None else (scale * self.result_scale).abs()
        y = acc.to(torch.float32) * factor
        return y if self.bias is None else y + self.bias

    def float_weight(self):
        """With its zero points of 0, for onnxruntime, which with the option that to_onnx names replaces them."""
        attributes = {"axis": self.weight_axis} if self.weight_scale.dim() else {}
        return dequantize_linear(self.weight, self.weight_scale, self.weight_zero_point, **attributes)

    def parameters_of(self, x, scale_shape):
        """Dynamic (scale, zero point), by the definition of equation (4), and what to quantize in x's place."""
        scale, zero_point = reference.choose_qparams(x, scale_shape, symmetric=self.symmetric)
        x = without_nan(x)
        if self.symmetric:  # minus infinity becomes -127; a quarter of a step above it, so that nothing overflows
            x = torch.maximum(x, (0.25 - 127) * scale)
        return scale, zero_point, x


class LinearInOnnx(_LayerInOnnx):
    """A QuantLinear."""

    def __init__(self, layer, exact):
        weight = layer.weight_q.t().contiguous()
        super().__init__(layer, weight, exact, weight_axis=1, result_shape=(-1,))
        self.register_buffer("weight_sum", layer.weight_sum.reshape(-1).clone())

    def forward(self, input):
        if self.input is None:
            y = self._of_rows(input.reshape(-1, self.weight.shape[0]).to(torch.float32))
            y = y.reshape(*input.shape[:-1], self.weight.shape[1])
        else:
            y = self._of_codes(input if input.dtype == torch.int8 else self.input(input.to(torch.float32)))
        return self.finished(y, input)

    def _of_codes(self, q):
        held = self.input
        if not self.exact:
            return self._of_floats(dequantize_linear(q, held.scale, held.zero_point))
        return self.scaled(matmul_integer(q, self.weight, *([] if self.symmetric else [held.zero_point])))

    def _of_rows(self, x):
        """Each with parameters of its own."""
        scale, zero_point, x = self.parameters_of(x, (x.shape[0], 1))
        row_scale, row_zero_point = scale.reshape(-1), zero_point.reshape(-1).to(torch.int8)
        q = quantize_linear(x, row_scale, row_zero_point, axis=0)
        if not self.exact:
            return self._of_floats(dequantize_linear(q, row_scale, row_zero_point, axis=0))
        acc = matmul_integer(q, self.weight)
        return self.scaled(acc if self.symmetric else acc - zero_point * self.weight_sum, scale)

    def _of_floats(self, x):
        y = x @ self.float_weight()
        return y if self.bias is None else y + self.bias


class Conv2dInOnnx(_LayerInOnnx):
    """A QuantConv2d. Runtimes put DequantizeLinear, Conv and QuantizeLinear together."""

    def __init__(self, layer, exact):
        super().__init__(layer, layer.weight_q.contiguous(), exact, weight_axis=0, result_shape=(-1, 1, 1))
        for name in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
            setattr(self, name, getattr(layer, name))

    def forward(self, input):
        images = input.unsqueeze(0) if input.dim() == 3 else input
        scale = None
        if self.input is not None:
            held = self.input
            q, zero_point = images if images.dtype == torch.int8 else held(images.to(torch.float32)), held.zero_point
        else:
            scale, zero_point, x = self.parameters_of(images.to(torch.float32), (1, 1, 1, 1))
            scale, zero_point = scale.reshape(()), zero_point.reshape(()).to(torch.int8)
            q = quantize_linear(x, scale, zero_point)
        if self.exact:
            y = self.scaled(conv_integer(q, self.weight, zero_point, self), scale)
        else:
            x = dequantize_linear(q, held.scale if scale is None else scale, zero_point)
            bias = None if self.bias is None else self.bias.reshape(-1)
            y = torch.nn.functional.conv2d(
                x, self.float_weight(), bias, self.stride, self.padding, self.dilation, self.groups
            )
        y = self.finished(y, input)
        return y.squeeze(0) if input.dim() == 3 else y


class _Quantizer(torch.nn.Module):
    """Codes by parameters of a whole tensor, whose range of codes may be less than QuantizeLinear's."""

    def __init__(self, params, exact, positive=False):
        super().__init__()
        self.exact = exact
        self.register_buffer("scale", params.scale.reshape(()).clone())
        self.register_buffer("zero_point", params.zero_point.reshape(()).to(torch.int8))
        lowest, greatest = (params.q_min + 0.25, params.q_max - 0.25)  # they still round to the range's ends
        ends = [((code - params.zero_point) * params.scale).item() for code in (lowest, greatest)]
        self.lowest = None if positive or params.q_min == SATURATES[0] else ends[0]
        self.greatest = None if params.q_max == SATURATES[1] else ends[1]

    def forward(self, x):
        if self.lowest is not None or self.greatest is not None:
            x = x.clamp(self.lowest, self.greatest)
        return quantize_linear(without_nan(x) if self.exact else x, self.scale, self.zero_point)


class TableInOnnx(torch.nn.Module):
    """A QuantEmbedding."""

    def __init__(self, table, exact):
        super().__init__()
        self.dtype = table.dtype
        self.register_buffer("weight", table.weight_q.clone())
        self.register_buffer("weight_scale", table.weight_scale.clone())

    def forward(self, input):
        indices = input.reshape(-1)
        rows, scale = (torch.nn.functional.embedding(indices, table) for table in (self.weight, self.weight_scale))
        rows = dequantize_linear(rows, scale.reshape(-1), axis=0)
        return rows.reshape(*input.shape, self.weight.shape[1]).to(self.dtype)


IN_ONNX = {QuantLinear: LinearInOnnx, QuantConv2d: Conv2dInOnnx, QuantEmbedding: TableInOnnx}
