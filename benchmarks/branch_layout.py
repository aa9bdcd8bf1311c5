"""Separate branches or merged ones? Times a training step of 26 2x32d with both layouts, interleaved in one process.

    python benchmarks/branch_layout.py --out results/bench/branch_layout.json

Merged: the first convolutions of two branches as one of twice the width, the second ones as a grouped convolution, BN
over both. Same weights, same coefficients, checked to give the same outputs before anything is timed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shakeshake.bench import interleaved
from shakeshake.layers.mix import mix
from shakeshake.models.registry import create_model
from shakeshake.models.shake_resnet import ShakeBlock
from shakeshake.train.device import autocast, choose_device, choose_precision
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment


class MergedBlock(nn.Module):
    """A ShakeBlock whose two branches run as one."""

    def __init__(self, block: ShakeBlock) -> None:
        super().__init__()
        first, second = block.branches
        self.skip, self.rule = block.skip, block.shake.rule
        self.conv1 = self._join(first.conv1, second.conv1, groups=1)
        self.bn1 = self._join_bn(first.bn1, second.bn1)
        self.conv2 = self._join(first.conv2, second.conv2, groups=2)
        self.bn2 = self._join_bn(first.bn2, second.bn2)

    @staticmethod
    def _join(a: nn.Conv2d, b: nn.Conv2d, groups: int) -> nn.Conv2d:
        inputs = a.in_channels * groups
        joined = nn.Conv2d(inputs, 2 * a.out_channels, 3, a.stride, 1, groups=groups, bias=False)
        joined.weight.data = torch.cat((a.weight.data, b.weight.data))
        return joined

    @staticmethod
    def _join_bn(a: nn.BatchNorm2d, b: nn.BatchNorm2d) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(a.num_features + b.num_features)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(x)
        skip = x if self.skip is None else self.skip(active)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(active)), inplace=True)))
        halves = y.chunk(2, dim=1)
        if not self.training:
            return skip + (halves[0] + halves[1]) / 2
        return skip + mix(halves, *self.rule.draw(len(x), 2, device=x.device))


def merged(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for stage in model.stages:
        stage.blocks = nn.ModuleList(MergedBlock(block) for block in stage.blocks)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--model", default="shake_resnet26_2x32d")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    torch.manual_seed(0)
    x = torch.randn(given.batch_size, 3, 32, 32).to(device, memory_format=torch.channels_last)
    y = torch.randint(0, 10, (given.batch_size,), device=device)
    separate = create_model(given.model)
    networks = {"separate": separate, "merged": merged(separate)}
    networks = {k: m.to(device, memory_format=torch.channels_last) for k, m in networks.items()}
    outputs = []
    for network in networks.values():
        torch.manual_seed(1)
        outputs.append(network.train()(x))
    assert torch.allclose(*outputs, atol=1e-3), "the two layouts do not compute the same"

    def step(network: nn.Module, precision: str) -> Callable[[], None]:
        def run() -> None:
            with autocast(precision, device):
                loss = F.cross_entropy(network(x).float(), y)
            loss.backward()
            for p in network.parameters():
                p.grad = None

        return run

    precisions = dict.fromkeys(("fp32", choose_precision("auto", device)))
    steps = {f"{name} {p}": step(network, p) for p in precisions for name, network in networks.items()}
    seconds = interleaved(steps, given.rounds, device)
    ratios = {
        p: statistics.median(s / m for s, m in zip(seconds[f"separate {p}"], seconds[f"merged {p}"], strict=True))
        for p in precisions
    }
    result = {
        "model": given.model,
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "milliseconds": {name: 1000 * statistics.median(s) for name, s in seconds.items()},
        "time_of_separate_relative_to_merged": ratios,
        "seconds": seconds,
        "environment": environment(device=str(device), threads=torch.get_num_threads()),
    }
    for precision, ratio in ratios.items():
        print(f"{precision}: separate / merged {ratio:.2f}")
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
