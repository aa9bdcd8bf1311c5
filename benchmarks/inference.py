"""Using 26 2x32d: our fused network beside those of PyPI in evaluation, interleaved in one process.

    pip install --no-deps pytorchcv archai
    python benchmarks/inference.py --out results/bench/inference.json

The peers' networks run as they come (fp32, their own memory format), ours is what `fuse` returns, in fp32 and in bf16.
A batch for throughput, one image for latency: each network in turn, whose weights are in no cache then, and twenty
images in a row, as where nothing else runs. Each is measured in several processes: the time of one image is another in
each, for theirs above all. The allocator keeps freed memory for all alike, or (--glibc) gives it back as it does by
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
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment


def step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def in_a_row(run: Callable[[], None], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            run()

    return repeated


def measured(batch: int, rounds: int, times: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each network in each round, all in this process. times: how often it runs at its turn."""
    theirs = {name: make().to(device).eval() for name, make in PEERS.items()}
    fused = ss.fuse(ss.create_model(MODEL).to(device))
    half = ss.fuse(ss.create_model(MODEL).to(device)).to(torch.bfloat16)
    images = torch.randn(batch, 3, 32, 32, device=device)
    nhwc = images.contiguous(memory_format=torch.channels_last)
    steps = {name: step(network, images) for name, network in theirs.items()}
    steps |= {"fp32": step(fused, nhwc), "bf16": step(half, nhwc.to(torch.bfloat16))}
    seconds = interleaved({name: in_a_row(run, times) for name, run in steps.items()}, rounds, device)
    return {name: [spent / times for spent in rounds] for name, rounds in seconds.items()}


def in_processes(given: argparse.Namespace, batch: int, rounds: int, times: int) -> list[dict[str, list[float]]]:
    found = []
    for _ in range(given.processes):
        options = [
            f"--batch-size={batch}",
            f"--rounds={rounds}",
            f"--times={times}",
            f"--device={given.device}",
            "--worker",
        ]
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
    parser.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = choose_device(given.device)
    if given.worker:
        if not given.glibc:
            keep_freed_memory()
        print(json.dumps(measured(given.batch_size, given.rounds, given.times, device)))
        return
    allocator = "glibc's default" if given.glibc else "keeps what is freed"
    result = {"model": MODEL, "rounds": given.rounds, "allocator": allocator, "versions": versions(), "batches": {}}
    batch = given.batch_size
    turns = {
        f"{batch}": (batch, given.rounds, 1),
        "1": (1, 10 * given.rounds, 1),
        "1 in a row": (1, 2 * given.rounds, 20),
    }
    for name_of_turn, turn in turns.items():
        processes = in_processes(given, *turn)
        medians = [{name: statistics.median(seconds) for name, seconds in one.items()} for one in processes]
        ratios = [{name: one["pytorchcv"] / median for name, median in one.items()} for one in medians]
        result["batches"][name_of_turn] = {
            "milliseconds": {n: 1000 * statistics.median(one[n] for one in medians) for n in medians[0]},
            "speed_relative_to_pytorchcv": {n: statistics.median(one[n] for one in ratios) for n in ratios[0]},
            "of_each_process": ratios,
            "seconds": processes,
        }
        for name, speed in result["batches"][name_of_turn]["speed_relative_to_pytorchcv"].items():
            each = " ".join(f"{1000 * one[name]:.2f}" for one in medians)
            print(f"batch {name_of_turn:<12}{name:<12}{speed:.2f}   ms in each process: {each}", flush=True)
    result["environment"] = environment(device=str(device), threads=torch.get_num_threads())
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
