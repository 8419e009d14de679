"""What the examples about handwritten digits share: the data of scikit-learn, and a small convolutional network."""

import torch
from sklearn.datasets import load_digits


def data():
    """((images, labels) to train with, (images, labels) to test with), images [N, 1, 8, 8] from 0 to 1."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1300], order[1300:]
    return (images[train], labels[train]), (images[test], labels[test])


def network():
    """Convolutions with normalizations and ReLUs, and a linear layer."""
    return torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU()),
        *(torch.nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), torch.nn.BatchNorm2d(32), torch.nn.ReLU()),
        *(torch.nn.Flatten(), torch.nn.Linear(32 * 16, 10)),
    )


def train(model, images, labels, *, epochs, rate=1e-3):
    """By Adam, in batches of 64."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(1)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=generator).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, images, labels):
    """The share of right answers."""
    return (model(images).argmax(1) == labels).float().mean().item()
