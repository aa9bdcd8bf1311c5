"""The blocks of this package's networks, trained by the fused kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.shake_shake import ShakeShake
from ..models.baselines import ResidualBlock, WideBlock
from ..models.known_blocks import is_known_block
from ..models.layers import TwoPathSkip
from ..models.shake_resnet import Branch, ShakeBlock
from ..models.shake_resnext import BottleneckBranch, ProjectionSkip, ShakeResNeXtBlock
from . import convs, ops


class FusedShakeBlock(ShakeBlock):
    """ShakeBlock whose training step uses the fused kernels where ``can_fuse`` allows it."""

    plain_class = ShakeBlock

    def forward(self, x: Tensor) -> Tensor:
        """Compute what ShakeBlock does."""
        if not can_fuse(x, self):
            return super().forward(x)
        alpha, beta = _draw(self.shake, x, len(self.branches))
        branches = cast(list[Branch], list(self.branches))
        return _residual(x, branches, self.skip, alpha, beta, adds_skip=self.adds_skip, relu_after=self.relu_after)


class FusedShakeResNeXtBlock(ShakeResNeXtBlock):
    """ShakeResNeXtBlock whose training step uses the fused kernels where ``can_fuse`` allows it."""

    plain_class = ShakeResNeXtBlock

    def forward(self, x: Tensor) -> Tensor:
        """Compute what ShakeResNeXtBlock does."""
        if not can_fuse(x, self):
            return super().forward(x)
        alpha, beta = _draw(self.shake, x, len(self.branches))
        return _bottleneck(x, cast(list[BottleneckBranch], list(self.branches)), self.skip, alpha, beta)


class FusedResidualBlock(ResidualBlock):
    """ResidualBlock whose training step uses the fused kernels, as a block with one branch.

    With a ``Branch`` its input must come from a ReLU, as in ResNet.
    """

    plain_class = ResidualBlock

    def forward(self, x: Tensor) -> Tensor:
        """Compute what ResidualBlock does."""
        if not can_fuse(x, self):
            return super().forward(x)
        one = torch.ones(1)
        if isinstance(self.branch, Branch):
            return _residual(x, [self.branch], self.skip, one, one, adds_skip=True, relu_after=True)
        if isinstance(self.skip, ProjectionSkip | None):
            return _bottleneck(x, [self.branch], self.skip, one, one)
        return super().forward(x)


class FusedWideBlock(WideBlock):
    """WideBlock whose training step uses the fused kernels where ``can_fuse`` allows it."""

    plain_class = WideBlock

    def forward(self, x: Tensor) -> Tensor:
        """Compute what WideBlock does."""
        if not can_fuse(x, self):
            return super().forward(x)
        if self.skip is None:
            y, sums = convs.bn_relu_conv(x, None, self.bn1, self.conv1)
        else:
            active = ops.bn_relu(x, self.bn1)
            x, sums = self.skip(active), None
            y = self.conv1(active)
        return x + convs.bn_relu_conv(y, sums, self.bn2, self.conv2)[0]


def can_fuse(x: Tensor, block: nn.Module) -> bool:
    """Whether the kernels compute what ``block`` does with ``x``; otherwise its plain operations run.

    They do in training on a CPU, in float32 or bfloat16, channels_last, with multiples of 16 channels, while nothing
    traces, compiles or transforms the operations, and as long as the submodules are those of an unmodified block.
    """
    return (
        block.training
        and not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype == (torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and len(x) > 1
        and x.shape[1] % ops.LANES == 0
        and torch.is_grad_enabled()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and is_known_block(block)
        and all(_can_fuse_bn(module) for module in block.modules() if isinstance(module, nn.BatchNorm2d))
    )


def _can_fuse_bn(bn: nn.BatchNorm2d) -> bool:
    return (
        bn.training
        and bn.momentum is not None
        and bn.weight.dtype == torch.float32
        and bn.num_features % ops.LANES == 0
    )


def _draw(shake: ShakeShake, x: Tensor, branches: int) -> tuple[Tensor, Tensor]:
    return shake.rule.draw(len(x), branches, device=x.device, generator=shake.generator)


def _residual(
    x: Tensor,
    branches: Sequence[Branch],
    skip: nn.Module | None,
    alpha: Tensor,
    beta: Tensor,
    *,
    adds_skip: bool,
    relu_after: bool,
) -> Tensor:
    """The training step of a block of ``Branch`` modules.

    A two-path skip is one more branch whose coefficients are 1. Any other skip reads ``x`` itself.
    """
    two_paths = skip if isinstance(skip, TwoPathSkip) else None
    taps = [convs.ALL_TAPS] * len(branches)
    if two_paths is not None:
        taps = [*taps, _taps(two_paths)]
    bns = [cast(nn.BatchNorm2d, branch.bn1 if branch.convs == 1 else branch.bn2) for branch in branches]
    firsts: Sequence[tuple[Tensor, ops.Sums | None]]
    identity: Tensor | None
    if convs.can_relu_conv_sums(x, [branch.conv1 for branch in branches], taps):
        weights = [branch.conv1.weight for branch in branches]
        if two_paths is not None:
            weights = [*weights, two_paths.kernel()]
            bns = [*bns, two_paths.bn]
            alpha, beta = _with_one(alpha), _with_one(beta)
        stride, keep = branches[0].conv1.stride[0], adds_skip and two_paths is None
        identity, firsts = convs.relu_conv_sums(x, weights, taps, stride, keep=keep)
    else:
        identity, *actives = ops.relu_fan_out(x, len(branches))
        if two_paths is not None:
            identity = two_paths(actives[0])
        firsts = [(branch.conv1(active), None) for branch, active in zip(branches, actives, strict=True)]
    if skip is not None and two_paths is None:
        identity = skip(identity)
    lasts = [_second_conv(branch, *first) for branch, first in zip(branches, firsts, strict=False)]
    lasts += firsts[len(branches) :]
    ys, sums = zip(*lasts, strict=True)
    return ops.bn_mix(identity if adds_skip else None, ys, bns, alpha, beta, sums, relu=relu_after)


def _second_conv(branch: Branch, x: Tensor, sums: ops.Sums | None) -> tuple[Tensor, ops.Sums | None]:
    """conv2(relu(bn1(x))) and its sums; ``x`` itself if the branch has one convolution. sums: those of ``x``."""
    if branch.convs == 1:
        return x, sums
    return convs.bn_relu_conv(x, sums, cast(nn.BatchNorm2d, branch.bn1), branch.conv2)


def _taps(skip: TwoPathSkip) -> int:
    """The taps of ``skip.kernel()`` as bits: the pixel itself and its diagonal neighbour."""
    return 1 << 4 | (1 << 0 if skip.shift == "reference" else 1 << 8)


def _with_one(coefficients: Tensor) -> Tensor:
    return F.pad(coefficients, (0, 1), value=1.0)


def _bottleneck(
    x: Tensor, branches: Sequence[BottleneckBranch], skip: ProjectionSkip | None, alpha: Tensor, beta: Tensor
) -> Tensor:
    """The training step of a block of ``BottleneckBranch`` modules; a projection is a branch with coefficients 1."""
    *inputs, identity = ops.fan_out(x, len(branches) + 1)
    ys = [_before_last_bn(branch, x) for branch, x in zip(branches, inputs, strict=True)]
    bns = [branch.bn3 for branch in branches]
    if skip is not None:
        ys, bns = [*ys, skip.conv(identity)], [*bns, skip.bn]
        alpha, beta = _with_one(alpha), _with_one(beta)
    return ops.bn_mix(identity if skip is None else None, ys, bns, alpha, beta, [None] * len(ys), relu=True)


def _before_last_bn(branch: BottleneckBranch, x: Tensor) -> Tensor:
    x, sums = convs.bn_relu_conv(branch.conv1(x), None, branch.bn1, branch.conv2)
    return branch.conv3(ops.bn_relu(x, branch.bn2, sums))
