"""A training step of the other networks of the paper's tables: with our kernels, without, and pytorchcv's.

    pip install --no-deps pytorchcv
    python benchmarks/networks.py --out results/bench/networks.json

As train_step.py does for 26 2x32d: interleaved in one process, the batch already on the device, pytorchcv's networks as
they come (fp32). The paper's own are 29 2x4x64d and architectures A and B, which pytorchcv doesn't have.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from importlib.metadata import version
from pathlib import Path

import torch

from shakeshake.bench import interleaved
from shakeshake.train.device import choose_device
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment
from train_step import OURS, ours, theirs

# Ours, images in a batch, pytorchcv's module and name of the same network.
NETWORKS = {
    "shake_resnet26_2x32d_a": (64, None),
    "shake_resnet26_2x32d_b": (64, None),
    "shake_resnext29_2x4x64d": (16, None),
    "resnet56": (64, ("resnet_cifar", "resnet56_cifar10")),
    "wrn28_10": (16, ("wrn_cifar", "wrn28_10_cifar10")),
    "resnext29_16x64d": (16, ("resnext_cifar", "resnext29_16x64d_cifar10")),
}


def measure(name: str, rounds: int, device: torch.device) -> dict[str, object]:
    batch, peer = NETWORKS[name]
    steps = {how: ours(*what, batch, device, model=name) for how, what in OURS.items()}
    if peer is not None:
        module, function = peer
        network = getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)
        steps["pytorchcv"] = theirs(network(), batch, device)
    seconds = interleaved(steps, rounds, device)

    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))

    ratios = {f"{p} with kernels against without": ratio(f"{p} without kernels", p) for p in ("fp32", "bf16")}
    if peer is not None:
        ratios |= {f"{how} against pytorchcv": ratio("pytorchcv", how) for how in OURS}
    speeds = {how: batch / statistics.median(s) for how, s in seconds.items()}
    return {"batch_size": batch, "images_per_second": speeds, "ratios": ratios, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default=",".join(NETWORKS), metavar="NAMES")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device, measured = choose_device(given.device), {}
    for name in given.only.split(","):
        measured[name] = measure(name, given.rounds, device)
        print(name, *(f"{how} {value:.2f}" for how, value in measured[name]["ratios"].items()), sep="\n  ", flush=True)
    result = {
        "rounds": given.rounds,
        "pytorchcv": version("pytorchcv"),
        "networks": measured,
        "environment": environment(device=str(device), threads=torch.get_num_threads()),
    }
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
