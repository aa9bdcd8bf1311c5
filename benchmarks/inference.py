"""Time inference of 26 2x32d: our fused network and public implementations.

    pip install --no-deps pytorchcv archai
    python -m benchmarks inference --out results/bench/inference.json

The public networks run unchanged (fp32, their memory format); ours is the result of `fuse`, in fp32
and bf16. Measured are a batch (throughput), single images with the networks in turn (weights not in
the cache), and twenty single images in a row (weights in the cache). Each is measured in several
processes, because the latency of one image varies between processes. The allocator keeps freed
memory for all networks or, with --glibc, uses glibc's default, which returns the memory of large
batches to the system.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

import shakeshake as ss
from shakeshake.bench import interleaved
from shakeshake.train.device import choose_device, keep_freed_memory

from ._common import parser, run, save
from .peers import MODEL, PEERS, versions


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
    """Seconds of each network in each round, all in this process. ``times``: runs per measurement."""
    theirs = {name: make().to(device).eval() for name, make in PEERS.items()}
    fused = ss.fuse(ss.create_model(MODEL).to(device))
    half = ss.fuse(ss.create_model(MODEL).to(device)).to(torch.bfloat16)
    images = torch.randn(batch, 3, 32, 32, device=device)
    nhwc = images.contiguous(memory_format=torch.channels_last)
    steps = {name: step(network, images) for name, network in theirs.items()}
    steps |= {"fp32": step(fused, nhwc), "bf16": step(half, nhwc.to(torch.bfloat16))}
    seconds = interleaved({name: in_a_row(run, times) for name, run in steps.items()}, rounds, device)
    return {name: [spent / times for spent in rounds] for name, rounds in seconds.items()}


def in_processes(args: argparse.Namespace, batch: int, rounds: int, times: int) -> list[dict[str, list[float]]]:
    found = []
    for _ in range(args.processes):
        options = [f"--batch-size={batch}", f"--rounds={rounds}", f"--times={times}", f"--device={args.device}"]
        found.append(json.loads(run("inference", "--worker", *options, *["--glibc"][: args.glibc])))
    return found


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=10, help="for a batch; one image gets ten times as many")
    options.add_argument("--batch-size", type=int, default=256)
    options.add_argument("--processes", type=int, default=3)
    options.add_argument("--glibc", action="store_true", help="use glibc's default allocator settings")
    options.add_argument("--device", default="cpu")
    options.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = options.parse_args(argv)
    device = choose_device(args.device)
    if args.worker:
        if not args.glibc:
            keep_freed_memory()
        print(json.dumps(measured(args.batch_size, args.rounds, args.times, device)))
        return
    allocator = "glibc's default" if args.glibc else "keeps freed memory"
    result = {"model": MODEL, "rounds": args.rounds, "allocator": allocator, "versions": versions(), "batches": {}}
    batch = args.batch_size
    turns = {
        f"{batch}": (batch, args.rounds, 1),
        "1": (1, 10 * args.rounds, 1),
        "1 in a row": (1, 2 * args.rounds, 20),
    }
    for name_of_turn, turn in turns.items():
        processes = in_processes(args, *turn)
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
    save(args.out, result, device=str(device), threads=torch.get_num_threads())
