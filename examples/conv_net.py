"""A convolutional network in int8: static scales from calibration, int8 codes from layer to layer.

python examples/conv_net.py        (needs scikit-learn)
"""

import torch
from digits import accuracy, data, network, train

import quaver


def main():
    """Prints the network in int8, its accuracy beside the float one's, and where the differences come from."""
    torch.manual_seed(0)
    (images, labels), test = data()
    model = train(network(), images, labels, epochs=10)
    config = quaver.QuantConfig(activations=quaver.PerTensor(), symmetric=False, observer=quaver.observers.MSE)
    int8 = quaver.quantize_model(model, config, calibration=images[:512].split(64))
    print(int8)
    print(f"\naccuracy: float {accuracy(model, *test):.1%}, int8 {accuracy(int8, *test):.1%}\n")
    print(quaver.compare(model, int8, [test[0]]))


if __name__ == "__main__":
    main()
