"""Ghost batch normalisation: statistics and coefficients per microbatch while the whole batch runs at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.mix import mix
from ..layers.rules import RegisteredRule, ShakeRule
from ..layers.shake_shake import ShakeShake
from ..utils.modules import plain_class, rebuild_as, replace_modules


def convert_ghost_batch_norm(network: nn.Module, size: int | None) -> nn.Module:
    """Replace the BatchNorm2d and ShakeShake modules of ``network`` by ghost versions, in place.

    In training the ghost versions treat a batch as microbatches of at most ``size`` images, as even as possible: each
    has its own batch statistics and, at level Batch, its own coefficients, as each GPU had in the paper. Running
    statistics are updated by one microbatch after another. This computes what a loop over the microbatches computes,
    with fewer and larger operations, which is what a GPU needs. Names, parameters, state dict and evaluation stay the
    same. Modules that are not exactly ``nn.BatchNorm2d`` or ``ShakeShake`` are not replaced.

    Args:
        network: Any network or layer.
        size: The most images in a microbatch. None undoes the conversion.

    Returns:
        The network; if it is itself such a layer, its replacement.
    """

    def replacement(module: nn.Module) -> nn.Module:
        plain = plain_class(module)
        if size is None:
            return rebuild_as(module, plain) if type(module) in (GhostBatchNorm2d, GhostShakeShake) else module
        if plain is nn.BatchNorm2d:
            bn = rebuild_as(module, GhostBatchNorm2d)
            bn.size = size
            return bn
        if plain is ShakeShake:
            shake = rebuild_as(module, GhostShakeShake)
            shake.size = size
            shake.rule_per_microbatch = dataclasses.replace(shake.rule, level="Image")
            return shake
        return module

    return replace_modules(network, replacement)


def _split_sizes(batch: int, size: int) -> list[int]:
    """The sizes of the microbatches; the first ones have one image more where they are not equal."""
    count = -(-batch // size)
    return [batch // count + (index < batch % count) for index in range(count)]


class GhostBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch statistics are those of microbatches of at most ``size`` images."""

    plain_class = nn.BatchNorm2d
    size: int

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        sizes = _split_sizes(len(x), self.size) if self.training else []
        if len(sizes) < 2:
            return super().forward(x)
        if torch.compiler.is_compiling() and min(sizes) == max(sizes):
            return self._forward_compiled(x, len(sizes))
        forward = super().forward
        return torch.cat([forward(microbatch) for microbatch in x.split(sizes)])

    def _forward_compiled(self, x: Tensor, count: int) -> Tensor:
        """All microbatches as one tensor, which a compiler turns into half as many kernels."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        each = x.float().unflatten(0, (count, -1))
        var, mean = torch.var_mean(each, (1, 3, 4), correction=0, keepdim=True)
        scale = self.weight[:, None, None] * torch.rsqrt(var + self.eps)
        y = (each - mean) * scale + self.bias[:, None, None]
        with torch.no_grad():
            values = each[0].numel() // self.num_features
            for index in range(count):
                self.running_mean.lerp_(mean[index].flatten(), self.momentum)
                self.running_var.lerp_(var[index].flatten() * (values / (values - 1)), self.momentum)
            self.num_batches_tracked.add_(count)
        return y.flatten(0, 1).to(x.dtype)


class GhostShakeShake(ShakeShake):
    """ShakeShake that at level Batch draws one row of coefficients per microbatch of at most ``size`` images."""

    plain_class = ShakeShake
    size: int
    rule_per_microbatch: ShakeRule  # at level Image, with a microbatch in the place of an image

    def forward(self, *branches: Tensor) -> Tensor:
        """Mix branches (N, ...) of one shape."""
        first, registered = branches[0], isinstance(self.rule, RegisteredRule)
        whole = not self.training or (self.rule.level == "Image" and not registered)
        sizes = [] if whole else _split_sizes(len(first), self.size)
        if len(sizes) < 2:
            return super().forward(*branches)
        drawn: Any
        options: dict[str, Any] = {"device": first.device, "generator": self.generator}
        if registered:  # its function may draw for an image or for a batch
            drawn = zip(*(self.rule.draw(size, len(branches), **options) for size in sizes), strict=True)
        else:
            drawn = self.rule_per_microbatch.draw(len(sizes), len(branches), **options)
        alpha, beta = (
            torch.cat([row.expand(size, -1) for row, size in zip(rows, sizes, strict=True)]) for rows in drawn
        )
        return mix(branches, alpha, beta)
