"""Time a training step of 26 2x32d S-S-I: ours and public implementations.

    pip install --no-deps pytorchcv archai
    python -m benchmarks train_step --out results/bench/train_step.json

All run interleaved in one process. A step is forward, cross-entropy, backward and SGD with Nesterov
momentum. The public networks run unchanged (fp32, their memory format). Ours runs as `shakeshake
train` runs it, in fp32 and bf16, with and without the CPU kernels, the batch already on the device.
All use the same allocator, threads and batch; the order changes from round to round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from shakeshake.bench import interleaved, trainer_on_noise, training_step
from shakeshake.kernels import revert
from shakeshake.train.device import autocast, choose_device

from ._common import parser, save
from .peers import MODEL, PEERS, versions

# Precision, and whether the CPU kernels are used.
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
    if not kernels:
        revert(trainer.network)
    return training_step(trainer)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--device", default="cpu")
    options.add_argument("--only", default=",".join((*PEERS, *OURS)))
    args = options.parse_args(argv)
    device = choose_device(args.device)
    makers: dict[str, Callable] = {p: (lambda p=p: theirs(PEERS[p](), args.batch_size, device)) for p in PEERS}
    makers |= {n: (lambda how=how: ours(*how, args.batch_size, device)) for n, how in OURS.items()}
    steps = {name: makers[name]() for name in args.only.split(",")}

    seconds = interleaved(steps, args.rounds, device)
    first = next(iter(steps))
    ratios = {n: statistics.median(a / b for a, b in zip(seconds[first], s, strict=True)) for n, s in seconds.items()}
    result = {
        "model": MODEL,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "versions": versions(),
        "images_per_second": {name: args.batch_size / statistics.median(s) for name, s in seconds.items()},
        f"speed_relative_to_{first}": ratios,
        "seconds": seconds,
    }
    for name in steps:
        print(f"{name:<22}{result['images_per_second'][name]:>8.1f} images/s  {ratios[name]:.2f}")
    save(args.out, result, device=str(device), threads=torch.get_num_threads())
