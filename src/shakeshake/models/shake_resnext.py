"""ShakeResNeXt: the paper's CIFAR-100 network 29 2x4x64d."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.rules import ShakeRule
from ..layers.shake_shake import ShakeShake
from .layers import ConvNet, conv, make_stages, stem_conv


class BottleneckBranch(nn.Module):
    """conv1x1, BN, ReLU, grouped conv3x3(stride), BN, ReLU, conv1x1, BN."""

    def __init__(self, in_channels: int, inner: int, out_channels: int, stride: int, cardinality: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups=cardinality)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))


class ProjectionSkip(nn.Module):
    """conv1x1(stride), BN: the skip connection of a block that changes the number of channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 1, stride)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return self.bn(self.conv(x))


class ShakeResNeXtBlock(nn.Module):
    """relu(skip(x) + shake(branch1(x), branch2(x)))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        cardinality: int,
        width: int,
        branches: int,
        rule: ShakeRule,
    ) -> None:
        super().__init__()
        inner = cardinality * (out_channels // 4 * width // 64)
        self.branches = nn.ModuleList(
            BottleneckBranch(in_channels, inner, out_channels, stride, cardinality) for _ in range(branches)
        )
        self.shake = ShakeShake(rule)
        self.skip = ProjectionSkip(in_channels, out_channels, stride) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        skip = x if self.skip is None else self.skip(x)
        return F.relu(skip + self.shake(*(branch(x) for branch in self.branches)))


class ShakeResNeXt(ConvNet):
    """Post-activation ResNeXt with parallel branches (paper, Table 2; author's release).

    Stem conv3x3 to 64 channels, BN, ReLU; three stages of (depth - 2) / 9 blocks with n = 64, 128, 256: inner width
    cardinality * floor(n * width / 64), 4n channels out, strides 1, 2, 2; global average pool, linear layer. Images
    above 64 pixels get a strided stem, as in ShakeResNet.

    Modules: ``stem.{conv,bn}``, ``stages.{s}.blocks.{b}.branches.{i}.{conv1,bn1,conv2,bn2,conv3,bn3}``,
    ``...skip.{conv,bn}``, ``...shake``, ``fc``.

    Args:
        depth: 9 n + 2 for n blocks per stage.
        branches: Parallel branches of a block, 2 or more.
        cardinality: Groups of a branch's 3x3 convolution.
        width: Channels per group in the first stage.
        num_classes: Outputs.
        rule: How the branches are combined.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.

    Raises:
        InputError: If the rule is invalid or not defined for this number of branches.
    """

    STEM_WIDTH = 64

    def __init__(
        self,
        depth: int,
        branches: int,
        cardinality: int,
        width: int,
        *,
        num_classes: int = 100,
        rule: str | ShakeRule = "S-E-I",
        in_channels: int = 3,
        image_size: int = 32,
    ) -> None:
        rule = ShakeRule.parse(rule)
        rule.check_branches(branches)
        widths = [256, 512, 1024]
        block = partial(ShakeResNeXtBlock, cardinality=cardinality, width=width, branches=branches, rule=rule)
        super().__init__(
            stem_conv(in_channels, self.STEM_WIDTH, image_size),
            make_stages((depth - 2) // 9, self.STEM_WIDTH, widths, block),
            widths[-1],
            num_classes,
            relu_after_stem=True,
            relu_before_pool=False,
        )
