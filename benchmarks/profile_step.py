"""Where a training step's time goes, operation by operation.

    python benchmarks/profile_step.py --out results/bench/profile.json

Steps as `shakeshake train` does them, under torch's profiler after a warm-up. Counted is each operation's own time,
without what it calls, and that of each kernel of ours; times are medians over the steps, in milliseconds. The profiler
costs a few percent.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from shakeshake.kernels import convs, fused
from shakeshake.train.device import choose_device, describe_device
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment
from train_step import MODEL, ours

# What an operation is counted as; the first that its name begins with.
GROUPS = {
    "convolutions forward, BN and ReLU included": ("conv_summed",),
    "gradients of their inputs, BN and ReLU included": ("conv_masked", "conv_forked", "affine_backward"),
    "gradients of their weights": ("conv_weights",),
    "weights put in order": ("conv_arrange",),
    "BN + mix + sum, both ways": ("mix", "mix_backward"),
    "BN from what was summed up": ("stats", "stats_of_images"),
    "BN + ReLU and forks by themselves": (
        *("affine_relu", "affine_relu_backward", "fork_backward", "aten::clamp_min", "aten::relu"),
        "aten::threshold_backward",
    ),
    "torch's convolutions": (
        *("aten::mkldnn_convolution", "aten::cudnn_convolution", "aten::_slow_conv2d_forward"),
        "aten::convolution_backward",
    ),
    "torch's BN": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "precision and memory format": ("aten::copy_", "aten::_to_copy", "aten::to", "aten::contiguous"),
    "optimizer": ("aten::_fused_sgd_", "aten::zero_"),
}


def group_of(name: str) -> str:
    return next((group for group, names in GROUPS.items() if name in names), "all else")


def recorded(name: str, *arguments: Any, call: Any = fused.call) -> None:
    with record_function(name):
        call(name, *arguments)


def profiled(precision: str, batch: int, device: torch.device, steps: int) -> dict[str, Any]:
    """Milliseconds of each group in a step, and of the whole step."""
    step = ours(precision, True, batch, device)
    for _ in range(3):
        step()
    rounds: list[dict[str, float]] = []
    for _ in range(steps):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            step()
        spent: dict[str, float] = defaultdict(float)
        for event in seen.key_averages():
            spent[group_of(event.key)] += event.self_cpu_time_total / 1000.0
        rounds.append(spent)
    groups = {group: statistics.median(spent.get(group, 0.0) for spent in rounds) for group in [*GROUPS, "all else"]}
    return {"milliseconds": groups, "step": statistics.median(sum(spent.values()) for spent in rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = choose_device("cpu")
    fused.call = convs.call = recorded  # a kernel is called by its address: the profiler does not see it by itself
    result = {p: profiled(p, given.batch_size, device, given.steps) for p in ("fp32", "bf16")}
    for precision, found in result.items():
        print(f"{precision}: {found['step']:.0f} ms")
        for group, spent in sorted(found["milliseconds"].items(), key=lambda item: -item[1]):
            print(f"  {group:<50}{spent:>8.1f} ms {spent / found['step']:>6.1%}")
    if given.out:
        about = {"model": MODEL, "batch_size": given.batch_size, "steps": given.steps}
        machine = environment(device=describe_device(device), threads=torch.get_num_threads())
        write_results(given.out, {**about, **result, "environment": machine})


if __name__ == "__main__":
    main()
