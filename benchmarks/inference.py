"""Using 26 2x32d: our fused network beside those of PyPI in evaluation, interleaved in one process.

    pip install --no-deps pytorchcv archai
    python benchmarks/inference.py --out results/bench/inference.json

The peers' networks run as they come (fp32, their own memory format), ours is what `fuse` returns, in fp32 and in bf16.
A batch for throughput, one image for latency. Each is measured in several processes: the time of one image is another
in each, for theirs above all. The allocator keeps freed memory for all alike, or (--glibc) gives it back as it does by
default, which is what decides about a large batch then.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import shakeshake as ss
from peers import MODEL, PEERS, versions
from shakeshake.bench import interleaved
from shakeshake.train.device import choose_device, keep_freed_memory
from shakeshake.train.record import environment, write_results


def step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def measured(batch: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each network in each round, all in this process."""
    theirs = {name: make().to(device).eval() for name, make in PEERS.items()}
    fused = ss.fuse(ss.create_model(MODEL).to(device))
    half = ss.fuse(ss.create_model(MODEL).to(device)).to(torch.bfloat16)
    images = torch.randn(batch, 3, 32, 32, device=device)
    nhwc = images.contiguous(memory_format=torch.channels_last)
    steps = {name: step(network, images) for name, network in theirs.items()}
    steps |= {"fp32": step(fused, nhwc), "bf16": step(half, nhwc.to(torch.bfloat16))}
    return interleaved(steps, rounds, device)


def in_processes(given: argparse.Namespace, batch: int, rounds: int) -> list[dict[str, list[float]]]:
    found = []
    for _ in range(given.processes):
        options = [f"--batch-size={batch}", f"--rounds={rounds}", f"--device={given.device}", "--worker"]
        command = [sys.executable, __file__, *options, *(["--glibc"] if given.glibc else [])]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="for a batch; one image gets ten times as many")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--glibc", action="store_true", help="leave the allocator as it is by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = choose_device(given.device)
    if given.worker:
        if not given.glibc:
            keep_freed_memory()
        print(json.dumps(measured(given.batch_size, given.rounds, device)))
        return
    allocator = "glibc's default" if given.glibc else "keeps what is freed"
    result = {"model": MODEL, "rounds": given.rounds, "allocator": allocator, "versions": versions(), "batches": {}}
    for batch, rounds in ((given.batch_size, given.rounds), (1, 10 * given.rounds)):
        processes = in_processes(given, batch, rounds)
        medians = [{name: statistics.median(seconds) for name, seconds in one.items()} for one in processes]
        ratios = [{name: one["pytorchcv"] / median for name, median in one.items()} for one in medians]
        result["batches"][str(batch)] = {
            "milliseconds": {n: 1000 * statistics.median(one[n] for one in medians) for n in medians[0]},
            "speed_relative_to_pytorchcv": {n: statistics.median(one[n] for one in ratios) for n in ratios[0]},
            "of_each_process": ratios,
            "seconds": processes,
        }
        for name, speed in result["batches"][str(batch)]["speed_relative_to_pytorchcv"].items():
            each = " ".join(f"{1000 * one[name]:.2f}" for one in medians)
            print(f"batch {batch:<5}{name:<12}{speed:.2f}   ms in each process: {each}", flush=True)
    result["environment"] = environment(device=str(device), threads=torch.get_num_threads())
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
