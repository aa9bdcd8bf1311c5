"""Using 26 2x32d: our fused network beside those of PyPI in evaluation, interleaved in one process.

    pip install pytorchcv && pip install --no-deps archai
    python benchmarks/inference.py --out results/bench/inference.json

The peers' networks run as they come (fp32, their own memory format), ours is what `fuse` returns, in fp32 and in bf16.
A batch for throughput, one image for latency.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import shakeshake as ss
from peers import MODEL, PEERS, versions
from shakeshake.bench import interleaved
from shakeshake.train.device import choose_device
from shakeshake.train.record import environment, write_results


def step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="for a batch; one image gets ten times as many")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    theirs = {name: make().to(device).eval() for name, make in PEERS.items()}
    fused = ss.fuse(ss.create_model(MODEL).to(device))
    half = ss.fuse(ss.create_model(MODEL).to(device)).to(torch.bfloat16)
    result = {"model": MODEL, "rounds": given.rounds, "versions": versions(), "batches": {}}
    for batch, rounds in ((given.batch_size, given.rounds), (1, 10 * given.rounds)):
        images = torch.randn(batch, 3, 32, 32, device=device)
        nhwc = images.contiguous(memory_format=torch.channels_last)
        steps = {
            **{name: step(network, images) for name, network in theirs.items()},
            "fp32": step(fused, nhwc),
            "bf16": step(half, nhwc.to(torch.bfloat16)),
        }
        seconds = interleaved(steps, rounds, device)
        ratios = {n: statistics.median(seconds["pytorchcv"]) / statistics.median(s) for n, s in seconds.items()}
        result["batches"][str(batch)] = {
            "milliseconds": {n: 1000 * statistics.median(s) for n, s in seconds.items()},
            "speed_relative_to_pytorchcv": ratios,
            "seconds": seconds,
        }
        for name, ratio in ratios.items():
            print(f"batch {batch:<5}{name:<12}{1000 * statistics.median(seconds[name]):>9.2f} ms  {ratio:.2f}")
    result["environment"] = environment(device=str(device), threads=torch.get_num_threads())
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
