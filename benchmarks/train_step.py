"""A training step of 26 2x32d S-S-I: ours beside those of PyPI, interleaved in one process.

    pip install --no-deps pytorchcv archai
    python benchmarks/train_step.py --out results/bench/train_step.json

All do what a user of theirs does: forward, cross-entropy, backward, SGD with Nesterov momentum. The peers' networks
run as they come (fp32, their own memory format); ours runs as `shakeshake train` runs it, in fp32 and in bf16, the
batch already on the device, and as it does on a CPU where no compiler makes the kernels. The same allocator, threads
and batch for all; the order within a round changes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from peers import MODEL, PEERS, versions
from shakeshake.bench import interleaved, trainer_on_noise, training_step
from shakeshake.kernels.fused import use
from shakeshake.train.device import autocast, choose_device
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment

# Precision, and whether there are kernels.
OURS = {
    "fp32": ("fp32", True),
    "bf16": ("bf16", True),
    "fp32 without kernels": ("fp32", False),
    "bf16 without kernels": ("bf16", False),
}


def theirs(network: nn.Module, batch: int, device: torch.device, precision: str = "fp32") -> Callable[[], None]:
    network = network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    images = torch.randn(batch, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def ours(precision: str, kernels: bool, batch: int, device: torch.device, model: str = MODEL) -> Callable[[], None]:
    trainer = trainer_on_noise(model, "S-S-I", batch, precision, str(device))
    use(trainer.network, wanted=kernels)
    return training_step(trainer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default=",".join((*PEERS, *OURS)))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    makers: dict[str, Callable] = {p: (lambda p=p: theirs(PEERS[p](), given.batch_size, device)) for p in PEERS}
    makers |= {n: (lambda how=how: ours(*how, given.batch_size, device)) for n, how in OURS.items()}
    steps = {name: makers[name]() for name in given.only.split(",")}

    seconds = interleaved(steps, given.rounds, device)
    first = next(iter(steps))
    ratios = {n: statistics.median(a / b for a, b in zip(seconds[first], s, strict=True)) for n, s in seconds.items()}
    result = {
        "model": MODEL,
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "versions": versions(),
        "images_per_second": {name: given.batch_size / statistics.median(s) for name, s in seconds.items()},
        f"speed_relative_to_{first}": ratios,
        "seconds": seconds,
        "environment": environment(device=str(device), threads=torch.get_num_threads()),
    }
    for name in steps:
        print(f"{name:<22}{result['images_per_second'][name]:>8.1f} images/s  {ratios[name]:.2f}")
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
