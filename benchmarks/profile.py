"""Profile a training step, operation by operation.

    python -m benchmarks profile --out results/bench/profile.json

Steps as `shakeshake train` makes them, under torch's profiler after a warm-up. Counted is the self
time of each operation and of each kernel of ours, on the CPU or on the GPU: medians over the steps,
in milliseconds. The profiler costs a few percent.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from shakeshake.kernels import convs, ops
from shakeshake.train.device import choose_device, describe_device

from ._common import parser, save
from .train_step import MODEL, ours

# Group -> names of operations and kernels.
GROUPS = {
    "convolutions forward, BN and ReLU included": ("conv_sums",),
    "gradients of their inputs, BN and ReLU included": ("conv_bn_relu_backward", "conv_relu_backward", "bn_backward"),
    "gradients of their weights": ("conv_weight_grad",),
    "weights put in order": ("conv_pack_weights",),
    "BN + mix + sum, both ways": ("bn_mix", "bn_mix_backward"),
    "BN from what was summed up": ("bn_statistics", "bn_statistics_from_sums"),
    "BN + ReLU and forks by themselves": (
        *("bn_relu", "bn_relu_backward", "fan_out_backward", "aten::clamp_min", "aten::relu"),
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


def recorded(name: str, *arguments: Any, call: Any = ops.call) -> None:
    with record_function(name):
        call(name, *arguments)


def profiled(precision: str, batch: int, device: torch.device, steps: int, model: str) -> dict[str, Any]:
    """Milliseconds of each group and of the whole step."""
    step = ours(precision, device.type == "cpu", batch, device, model)
    for _ in range(3):
        step()
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA][: device.type == "cuda"]]
    own_time = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rounds: list[dict[str, float]] = []
    for _ in range(steps):
        with profile(activities=activities) as seen:
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
        spent: dict[str, float] = defaultdict(float)
        for event in seen.key_averages():
            spent[group_of(event.key)] += getattr(event, own_time) / 1000.0
        rounds.append(spent)
    groups = {group: statistics.median(spent.get(group, 0.0) for spent in rounds) for group in [*GROUPS, "all else"]}
    return {"milliseconds": groups, "step": statistics.median(sum(spent.values()) for spent in rounds)}


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--model", default=MODEL)
    options.add_argument("--device", default="cpu")
    args = options.parse_args(argv)
    device = choose_device(args.device)
    ops.call = convs.call = recorded  # kernels are called by address, so the profiler needs a marker
    result = {p: profiled(p, args.batch_size, device, args.steps, args.model) for p in ("fp32", "bf16")}
    for precision, found in result.items():
        print(f"{precision}: {found['step']:.0f} ms")
        for group, spent in sorted(found["milliseconds"].items(), key=lambda item: -item[1]):
            print(f"  {group:<50}{spent:>8.1f} ms {spent / found['step']:>6.1%}")
    about = {"model": args.model, "batch_size": args.batch_size, "steps": args.steps}
    save(args.out, {**about, **result}, device=describe_device(device), threads=torch.get_num_threads())
