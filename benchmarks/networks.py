"""Time a training step of the paper's other networks, with and without our kernels.

    pip install --no-deps pytorchcv
    python -m benchmarks networks --out results/bench/networks.json

The same method as the benchmark train_step: interleaved in one process, the batch on the device,
pytorchcv's networks unchanged (fp32). pytorchcv does not have 29 2x4x64d and architectures A and B.
"""

from __future__ import annotations

import importlib
import statistics
from importlib.metadata import version

import torch

from shakeshake.bench import interleaved
from shakeshake.train.device import choose_device

from ._common import parser, save
from .train_step import OURS, ours, theirs

# Model name -> batch size, and the module and function of the same network in pytorchcv.
NETWORKS = {
    "shake_resnet26_2x32d_a": (64, None),
    "shake_resnet26_2x32d_b": (64, None),
    "shake_resnext29_2x4x64d": (16, None),
    "cifar_resnet56": (64, ("resnet_cifar", "resnet56_cifar10")),
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


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--device", default="cpu")
    options.add_argument("--only", default=",".join(NETWORKS), metavar="NAMES")
    args = options.parse_args(argv)
    device, measured = choose_device(args.device), {}
    for name in args.only.split(","):
        measured[name] = measure(name, args.rounds, device)
        print(name, *(f"{how} {value:.2f}" for how, value in measured[name]["ratios"].items()), sep="\n  ", flush=True)
    result = {
        "rounds": args.rounds,
        "pytorchcv": version("pytorchcv"),
        "networks": measured,
    }
    save(args.out, result, device=str(device), threads=torch.get_num_threads())
