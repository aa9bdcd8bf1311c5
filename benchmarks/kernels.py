"""Time the CPU kernels and the torch operations that they replace, in both directions.

    python -m benchmarks kernels --out results/bench/kernels.json

Feature maps of 64 images, interleaved in one process. BN, mix and ReLU use 32 channels of 32 x 32
pixels; they are bound by memory, so compare them with the copy. Convolutions use the head (ReLU,
two convolutions) and the tail (BN, ReLU, convolution) of a block at the sizes of 26 2x32d.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shakeshake.bench import interleaved
from shakeshake.kernels import convs, ops
from shakeshake.layers.mix import mix
from shakeshake.train.device import autocast, keep_freed_memory

from ._common import parser, save

IMAGES = 64
SHAPE = (IMAGES, 32, 32, 32)
SIZES = ((32, 32), (64, 16), (128, 8))  # channels, pixels of a side


def both_ways(compute: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor]) -> Callable[[], object]:
    """A step of ``compute``: its outputs and the gradients of ``inputs``, given fixed output gradients."""
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

    def plain_fan_out(x: Tensor) -> tuple[Tensor, ...]:
        active = F.relu(x)
        return x, active, active

    return {
        "copy": lambda: copied.copy_(from_map),
        "bn_relu": both_ways(lambda x: (ops.bn_relu(x, bns[0]),), [x]),
        "bn_relu, plain": both_ways(lambda x: (F.relu(bns[0](x)),), [x]),
        "bn_mix": both_ways(lambda skip, *xs: (ops.bn_mix(skip, xs, bns, alpha, beta, (None, None)),), maps),
        "bn_mix, plain": both_ways(plain_mix, maps),
        "relu_fan_out": both_ways(lambda x: ops.relu_fan_out(x, 2), [x]),
        "relu_fan_out, plain": both_ways(plain_fan_out, [x]),
    }


def conv_steps(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    found = {}
    for channels, side in SIZES if convs.is_supported(dtype) else ():
        x = torch.randn(IMAGES, channels, side, side, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        bn = nn.BatchNorm2d(channels)
        one, two = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
            for _ in range(2)
        )

        def head(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
            return tuple(y for y, _ in convs.relu_conv_sums(x, weights, [convs.ALL_TAPS] * 2, 1, keep=False)[1])

        def plain_head(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
            with autocast("bf16" if dtype == torch.bfloat16 else "fp32", x.device):
                active = F.relu(x)
                return tuple(F.conv2d(active, weight, padding=1) for weight in weights)

        def tail(x: Tensor, *_: Tensor, bn: nn.BatchNorm2d = bn, one: nn.Conv2d = one) -> tuple[Tensor]:
            return (convs.bn_relu_conv_sums(x, None, bn, one)[0],)

        def plain_tail(x: Tensor, weight: Tensor, *_: Tensor, bn: nn.BatchNorm2d = bn) -> tuple[Tensor]:
            with autocast("bf16" if dtype == torch.bfloat16 else "fp32", x.device):
                return (F.conv2d(F.relu(bn(x)), weight, padding=1),)

        of_head, of_tail = [x, one.weight, two.weight], [x, one.weight, bn.weight, bn.bias]
        found |= {
            f"head {channels}": both_ways(head, of_head),
            f"head {channels}, plain": both_ways(plain_head, of_head),
            f"tail {channels}": both_ways(tail, of_tail),
            f"tail {channels}, plain": both_ways(plain_tail, of_tail),
        }
    return found


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=50)
    args = options.parse_args(argv)
    device = torch.device("cpu")
    keep_freed_memory()
    found: dict[str, dict[str, float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        timed = interleaved(steps(dtype) | conv_steps(dtype), args.rounds, device)
        found[name] = {step: 1e3 * statistics.median(seconds) for step, seconds in timed.items()}
    print(f"{'ms':<20}{'fp32':>8}{'bf16':>8}")
    for step in found["fp32"]:
        print(f"{step:<20}{found['fp32'][step]:>8.2f}{found['bf16'].get(step, float('nan')):>8.2f}")
    measured = {"shape": SHAPE, "conv_sizes": SIZES, "rounds": args.rounds, "milliseconds": found}
    save(args.out, measured, device="cpu", threads=torch.get_num_threads())
