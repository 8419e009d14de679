"""A float linear layer in four int8 ops, step by step, and in one.

python examples/drop_in_ops.py
"""

import torch

import quaver


def main():
    """Prints how near each way is to the float layer."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(64, 256), torch.randn(128, 256) / 16, torch.randn(128)
    expected = torch.nn.functional.linear(x, weight, bias)

    def show(name, y):
        error = (y - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        print(f"{name:<44} {str(y.dtype).removeprefix('torch.'):<8} relative error {error:.2%}")

    # Parameters, codes, an exact integer product, and real numbers again
    x_params = quaver.choose_qparams(x, quaver.PerToken(), symmetric=False)
    w_params = quaver.choose_qparams(weight, quaver.PerChannel(0))
    x_q, weight_q = quaver.quantize(x, x_params), quaver.quantize(weight, w_params)
    acc = quaver.int8_matmul(x_q, weight_q.t(), a_zero_point=x_params.zero_point)
    y = quaver.rescale(acc, x_params, w_params.t(), bias=bias)
    show("choose_qparams, quantize, int8_matmul, rescale", y)

    # The product and its scaling in one op
    fused = quaver.int8_matmul_dequantize(x_q, weight_q.t(), x_params, w_params.t(), bias=bias)
    show("int8_matmul_dequantize", fused)
    assert torch.equal(fused, y)  # to the last bit

    # All of it in one op: what a layer does with its activations
    y = quaver.int8_linear(x, weight_q, w_params.scale, bias, symmetric=False)
    show("int8_linear", y)
    assert torch.equal(fused, y)

    # Codes out: no float tensor between two layers
    out = quaver.choose_qparams(expected, symmetric=False)
    codes = quaver.int8_matmul_requantize(x_q, weight_q.t(), x_params, w_params.t(), out, bias=bias)
    show("int8_matmul_requantize, dequantize", quaver.dequantize(codes, out))
    assert torch.equal(codes, quaver.quantize(fused, out))

    # As a module
    layer = torch.nn.Linear(256, 128)
    layer.load_state_dict({"weight": weight, "bias": bias})
    show("QuantLinear", quaver.QuantLinear.from_float(layer, symmetric=False)(x))


if __name__ == "__main__":
    main()
