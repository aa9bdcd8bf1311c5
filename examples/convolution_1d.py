"""A one-dimensional convolutional network with three shaken branches: ShakeShake takes tensors (N, ...) of any rank.

    python examples/convolution_1d.py [--rule S-S-I] [--branches 3] [--epochs 15]

The network reads a digit as a signal of 64 samples, row after row. ``E-E-B`` does not shake. Takes seconds.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shakeshake as ss


def branch(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv1d(channels, channels, 9, padding=4, bias=False),
        nn.BatchNorm1d(channels),
        nn.ReLU(),
        nn.Conv1d(channels, channels, 9, padding=4, bias=False),
        nn.BatchNorm1d(channels),
    )


class Block(nn.Module):
    def __init__(self, channels: int, branches: int, rule: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branch(channels) for _ in range(branches))
        self.shake = ss.ShakeShake(rule)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shake(*(branch(x) for branch in self.branches))


def signal_net(classes: int, branches: int, rule: str) -> nn.Module:
    """x: (N, 1, length). Returns logits (N, classes)."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 9, padding=4),
        Block(16, branches, rule),
        nn.Conv1d(16, 32, 2, stride=2),
        Block(32, branches, rule),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Linear(4 * 32, classes),
    )


def main(rule: str = "S-S-I", branches: int = 3, epochs: int = 15, seed: int = 0) -> float:
    """Train on the digits as signals and return the test error in %."""
    torch.manual_seed(seed)
    data = ss.load_data("digits")
    (x, y), (x_test, y_test) = (
        (torch.from_numpy(split.images).flatten(2) / 255, torch.from_numpy(split.labels))
        for split in (data.train, data.test)
    )
    network = signal_net(data.num_classes, branches, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // 64))
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        wrong = network.eval()(x_test).argmax(dim=1) != y_test
    error = 100 * float(wrong.float().mean())
    print(f"{rule}, {branches} branches: {error:.2f} % test error after {epochs} epochs")
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="S-S-I")
    parser.add_argument("--branches", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
