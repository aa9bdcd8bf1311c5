"""A batch in parts, all of which go through the network at once: what is a batch's is each part's own.

A part stands for a device of the paper's, which had statistics of batch normalisation, and coefficients at level Batch,
of its own. One after the other, parts ask for each operation as many times as there are parts, and a GPU, to which the
arithmetic of a step is little, waits for that.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ..layers.mix import mix
from ..layers.rules import ShakeRule
from ..layers.shake_shake import ShakeShake


def in_parts(network: nn.Module, images: int | None) -> None:
    """Let a network, in training, take a batch as equal parts of at most ``images``. None: as one, as networks do.

    Parts are those of Batch.microbatches(). Their running statistics follow one after the other, as if the parts did.
    """
    for module in network.modules():
        if type(module) in (nn.BatchNorm2d, _BatchNorm):
            module.__class__ = _BatchNorm
            module.images = images  # type: ignore[assignment]
        elif isinstance(module, ShakeShake):
            module.__class__ = _ShakeShake
            module.images = images  # type: ignore[assignment]
            module.of_part = dataclasses.replace(module.rule, level="Image")  # type: ignore[assignment]


def _sizes(batch: int, images: int | None) -> list[int]:
    """Of the parts; the first ones have an image more where they are not equal."""
    parts = 1 if images is None else -(-batch // images)
    return [batch // parts + (part < batch % parts) for part in range(parts)]


class _BatchNorm(nn.BatchNorm2d):
    images: int | None

    def forward(self, x: Tensor) -> Tensor:
        sizes = _sizes(len(x), self.images) if self.training else []
        if len(sizes) < 2:
            return super().forward(x)
        if torch.compiler.is_compiling() and min(sizes) == max(sizes):
            return self._written_out(x, len(sizes))
        forward = super().forward
        return torch.cat([forward(part) for part in x.split(sizes)])

    def _written_out(self, x: Tensor, parts: int) -> Tensor:
        """The same in one piece, which a compiler makes half as many kernels of."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        each = x.float().unflatten(0, (parts, -1))
        var, mean = torch.var_mean(each, (1, 3, 4), correction=0, keepdim=True)
        scale = self.weight[:, None, None] * torch.rsqrt(var + self.eps)
        y = (each - mean) * scale + self.bias[:, None, None]
        with torch.no_grad():
            values = each[0].numel() // self.num_features
            for part in range(parts):
                self.running_mean.lerp_(mean[part].flatten(), self.momentum)
                self.running_var.lerp_(var[part].flatten() * (values / (values - 1)), self.momentum)
            self.num_batches_tracked.add_(parts)
        return y.flatten(0, 1).to(x.dtype)


class _ShakeShake(ShakeShake):
    images: int | None
    of_part: ShakeRule  # draws a row for each part

    def forward(self, *branches: Tensor) -> Tensor:
        first = branches[0]
        sizes = _sizes(len(first), self.images) if self.training and self.rule.level == "Batch" else []
        if len(sizes) < 2:
            return super().forward(*branches)
        drawn = self.of_part.draw(len(sizes), len(branches), device=first.device, generator=self.generator)
        alpha, beta = (
            torch.cat([row.expand(size, -1) for row, size in zip(rows, sizes, strict=True)]) for rows in drawn
        )
        return mix(branches, alpha, beta)
