"""The fused kernels beside the operations that they stand for, forward and backward, and beside a copy.

    python benchmarks/kernels.py --out results/bench/kernels.json

Feature maps of 64 images, 32 channels, 32 x 32 pixels, interleaved in one process. What they do is bound by memory: a
kernel that takes far longer than its reads and writes cost in copies has missed this CPU's vectors.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shakeshake.bench import interleaved
from shakeshake.core.mix import mix
from shakeshake.kernels import fused
from shakeshake.train.record import environment, write_results

SHAPE = (64, 32, 32, 32)


def both_ways(compute: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor]) -> Callable[[], object]:
    """A step of ``compute``: its values and the gradients of ``inputs``, from gradients that are there."""
    gradients = [torch.randn_like(value) for value in compute(*inputs)]
    return lambda: torch.autograd.grad(compute(*inputs), inputs, gradients)


def steps(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    maps = [
        torch.randn(SHAPE, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_() for _ in range(3)
    ]
    x, bns = maps[0], (nn.BatchNorm2d(SHAPE[1]), nn.BatchNorm2d(SHAPE[1]))
    alpha = torch.rand(SHAPE[0], 1)
    alpha = torch.cat((alpha, 1 - alpha), dim=1)
    beta = alpha.flip(1)
    copied, from_map = torch.empty_like(x), x.detach()

    def plain_mix(skip: Tensor, *xs: Tensor) -> tuple[Tensor]:
        return (skip + mix([bn(x) for bn, x in zip(bns, xs, strict=True)], alpha, beta),)

    def plain_fork(x: Tensor) -> tuple[Tensor, ...]:
        active = F.relu(x)
        return x, active, active

    return {
        "copy": lambda: copied.copy_(from_map),
        "bn_relu": both_ways(lambda x: (fused.bn_relu(x, bns[0]),), [x]),
        "bn_relu, plain": both_ways(lambda x: (F.relu(bns[0](x)),), [x]),
        "bn_mix": both_ways(lambda skip, *xs: (fused.bn_mix(skip, xs, bns, alpha, beta),), maps),
        "bn_mix, plain": both_ways(plain_mix, maps),
        "relu_fork": both_ways(fused.relu_fork, [x]),
        "relu_fork, plain": both_ways(plain_fork, [x]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = torch.device("cpu")
    found: dict[str, dict[str, float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        timed = interleaved(steps(dtype), given.rounds, device)
        found[name] = {step: 1e3 * statistics.median(seconds) for step, seconds in timed.items()}
    print(f"{'ms':<20}{'fp32':>8}{'bf16':>8}")
    for step in found["fp32"]:
        print(f"{step:<20}{found['fp32'][step]:>8.2f}{found['bf16'][step]:>8.2f}")
    machine = environment(device="cpu", threads=torch.get_num_threads())
    if given.out:
        write_results(
            given.out, {"shape": SHAPE, "rounds": given.rounds, "milliseconds": found, "environment": machine}
        )


if __name__ == "__main__":
    main()
