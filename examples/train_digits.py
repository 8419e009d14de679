"""Quantization-aware training: a network learns with the numbers that it will have in int8.

python examples/train_digits.py        (needs scikit-learn)
"""

import torch
from digits import accuracy, data, train

import quaver
from quaver.nn import FakeQuantLinear


def main():
    """Prints accuracies: float, trained with fake quantization, and that network in int8."""
    (images, labels), test = data()
    train_set, test_set = (images.flatten(1), labels), (test[0].flatten(1), test[1])

    torch.manual_seed(0)
    float_model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    train(float_model, *train_set, epochs=30, rate=3e-3)
    torch.manual_seed(0)
    fake = torch.nn.Sequential(FakeQuantLinear(64, 32), torch.nn.ReLU(), FakeQuantLinear(32, 10))
    train(fake, *train_set, epochs=30, rate=3e-3)
    int8 = torch.nn.Sequential(fake[0].to_int8(), torch.nn.ReLU(), fake[2].to_int8()).eval()

    for name, model in (("float", float_model), ("fake quantization", fake), ("int8", int8)):
        print(f"{name:<20} {accuracy(model, *test_set):.1%}")
    same = torch.equal(fake(test_set[0]), int8(test_set[0]))
    print(f"the trained network and its int8 form give the same bits: {same}")
    assert isinstance(int8[0], quaver.QuantLinear)
    assert same


if __name__ == "__main__":
    main()
