"""Add shaking to a trained ResNeXt: convert its grouped convolutions, check the result, and continue training.

    python examples/shakeified_resnext.py [--rule S-E-I] [--epochs 5]

The network is plain PyTorch in the layout of public implementations. It is trained on digits; `shakeify` turns its
blocks into two shaken halves that compute the same in evaluation; then training continues with shaking. Takes seconds.
This shows how to do it; a network this narrow gains nothing from shaking.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shakeshake as ss


class Bottleneck(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int = 1, groups: int = 8) -> None:
        super().__init__()
        width = planes
        self.conv1 = nn.Conv2d(inplanes, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * planes, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inplanes != 2 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, 2 * planes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(2 * planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


class ResNeXt(nn.Module):
    """x: (N, 1, 8, 8). Returns logits (N, classes)."""

    def __init__(self, classes: int, blocks: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Bottleneck(16, 16), *(Bottleneck(32, 16) for _ in range(blocks - 1)))
        self.layer2 = nn.Sequential(Bottleneck(32, 32, 2), *(Bottleneck(64, 32) for _ in range(blocks - 1)))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean(dim=(2, 3)))


def train(network: nn.Module, x: Tensor, y: Tensor, epochs: int, lr: float) -> None:
    optimizer = torch.optim.SGD(network.train().parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // 64))
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def error(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return 100 * float((network.eval()(x).argmax(dim=1) != y).float().mean())


def main(rule: str = "S-E-I", epochs: int = 5, seed: int = 0) -> tuple[float, float, float]:
    """Train, convert, train on; return the three test errors in %."""
    torch.manual_seed(seed)
    data = ss.load_data("digits")
    (x, y), (x_test, y_test) = (
        ((torch.from_numpy(split.images) - data.mean[0]) / data.std[0], torch.from_numpy(split.labels))
        for split in (data.train, data.test)
    )
    network = ResNeXt(data.num_classes)
    train(network, x, y, epochs, lr=0.1)
    trained = error(network, x_test, y_test)

    shaken = ss.shakeify(network, rule, example=x_test)
    converted = error(shaken, x_test, y_test)
    train(shaken, x, y, epochs, lr=0.05)
    after = error(shaken, x_test, y_test)
    print(
        f"test error of the trained ResNeXt {trained:.2f} %, converted {converted:.2f} %, "
        f"after {epochs} more epochs under {rule} {after:.2f} %"
    )
    return trained, converted, after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="S-E-I")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
