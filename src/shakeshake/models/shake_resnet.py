"""The paper's CIFAR-10 network, 26 2xWd and its relatives of other depth, width and number of branches."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.layers import ShakeShake
from ..core.rules import ShakeRule
from .blocks import Trunk, TwoPathSkip, conv, make_stages, stem_conv


class Branch(nn.Module):
    """conv3x3(stride), BN, ReLU, conv3x3, BN. Its input has been through the block's ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x))


class ShakeBlock(nn.Module):
    """x + shake(branch1(relu(x)), branch2(relu(x))) (paper, section 1.2, equation 2, and Figure 1).

    The ReLU that each branch and the two-path skip begin with is the same, and is computed once. An identity skip
    passes x itself, before the ReLU.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, branches: int, rule: ShakeRule, skip_shift: str
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(in_channels, out_channels, stride) for _ in range(branches))
        self.shake = ShakeShake(rule)
        self.skip = TwoPathSkip(in_channels, out_channels, stride, skip_shift) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(x)
        skip = x if self.skip is None else self.skip(active)
        return skip + self.shake(*(branch(active) for branch in self.branches))


class ShakeResNet(Trunk):
    """Pre-activation residual network with parallel branches (paper, section 2.1; author's release).

    Stem conv3x3 to 16 channels and BN, without ReLU; three stages of (depth - 2) / 6 blocks, ``width``, 2 and 4 times
    ``width`` channels, strides 1, 2, 2; ReLU, global average pool, linear layer. The skip of a stage's first block has
    two paths (TwoPathSkip), the others are identities.

    Images of more than 64 pixels get a strided stem: 3x3 with stride 2 up to 128 pixels, 7x7 with stride 4 up to 224.

    Module names, for hooks and for loading weights: ``stem.{conv,bn}``,
    ``stages.{s}.blocks.{b}.branches.{i}.{conv1,bn1,conv2,bn2}``, ``...skip.{conv1,conv2,bn}``, ``...shake``, ``fc``.
    """

    STEM_WIDTH = 16

    def __init__(
        self,
        depth: int,
        branches: int,
        width: int,
        *,
        num_classes: int = 10,
        rule: str | ShakeRule = "S-S-I",
        in_channels: int = 3,
        image_size: int = 32,
        skip_shift: str = "reference",
    ) -> None:
        rule = ShakeRule.parse(rule)
        rule.check_branches(branches)
        widths = [width, 2 * width, 4 * width]
        block = partial(ShakeBlock, branches=branches, rule=rule, skip_shift=skip_shift)
        super().__init__(
            stem_conv(in_channels, self.STEM_WIDTH, image_size),
            make_stages((depth - 2) // 6, self.STEM_WIDTH, widths, block),
            widths[-1],
            num_classes,
            relu_after_stem=False,
            relu_before_pool=True,
        )
