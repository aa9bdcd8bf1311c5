"""ShakeResNet: the paper's CIFAR-10 networks 26 2xWd and its architectures A, B and C."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..layers.rules import ShakeRule
from ..layers.shake_shake import ShakeShake
from .layers import ConvNet, TwoPathSkip, conv, make_stages, stem_conv


class Branch(nn.Module):
    """conv3x3(stride), BN, ReLU, conv3x3, BN. The block applies the first ReLU of the branch to its input.

    With ``convs=1`` it ends after the first BN. With ``bn=False`` it has identities in place of BN.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, convs: int = 2, bn: bool = True) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if bn else nn.Identity
        self.convs = convs
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = norm(out_channels)
        if convs == 2:
            self.conv2 = conv(out_channels, out_channels, 3)
            self.bn2 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        x = self.bn1(self.conv1(x))
        if self.convs == 1:
            return x
        return self.bn2(self.conv2(F.relu(x, inplace=True)))


class ShakeBlock(nn.Module):
    """x + shake(branch1(relu(x)), branch2(relu(x))) (paper, equation 2 and Figure 1).

    The first ReLU of the branches and of the two-path skip is the same, so it is computed once. An identity skip passes
    x itself, before the ReLU. With ``skip=False`` the block is shake(branch1(relu(x)), branch2(relu(x))). With
    ``relu_after`` another ReLU follows the sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        branches: int,
        rule: ShakeRule,
        skip_shift: str,
        skip: bool,
        convs: int,
        bn: bool,
        relu_after: bool,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            Branch(in_channels, out_channels, stride, convs=convs, bn=bn) for _ in range(branches)
        )
        self.shake = ShakeShake(rule)
        two_paths = skip and in_channels != out_channels
        self.skip = TwoPathSkip(in_channels, out_channels, stride, skip_shift) if two_paths else None
        self.adds_skip, self.relu_after = skip, relu_after

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        active = F.relu(x)
        skip = x if self.skip is None else self.skip(active)
        y = self.shake(*(branch(active) for branch in self.branches))
        if self.adds_skip:
            y = skip + y
        return F.relu(y) if self.relu_after else y


class ShakeResNet(ConvNet):
    """Pre-activation residual network with parallel branches (paper, Table 1; author's release).

    Stem conv3x3 to 16 channels and BN, without ReLU; three stages of (depth - 2) / 6 blocks with ``width``, 2 and 4
    times ``width`` channels, strides 1, 2, 2; ReLU, global average pool, linear layer. The first block of a stage has a
    two-path skip (TwoPathSkip), the others identities. Images above 64 pixels get a strided stem: 3x3 with stride 2 up
    to 128 pixels, 7x7 with stride 4 up to 224.

    The paper's architectures A, B and C (Table 5) are variants of it:

    A (``_a``)  ``skip=False``: no skip connections, neither identities nor two-path skips.
    B (``_b``)  A with ``convs=1``: one convolution per branch (ReLU, conv, BN) and twice the blocks, so that ``depth``
        still counts sequential convolutions.
    C (``_c``)  A with ``bn=False``: no BN, also in the stem. The paper only says "without"; here nothing replaces it,
        so convolutions have no bias. The paper trains C at depth 14.

    Modules: ``stem.{conv,bn}``, ``stages.{s}.blocks.{b}.branches.{i}.{conv1,bn1,conv2,bn2}``,
    ``...skip.{conv1,conv2,bn}``, ``...shake``, ``fc``.

    Args:
        depth: 6 n + 2 for n blocks per stage.
        branches: Parallel branches of a block, 2 or more.
        width: Channels of the first stage.
        num_classes: Outputs.
        rule: How the branches are combined.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
        skip_shift: ``"reference"`` or ``"mirrored"``, see TwoPathSkip.
        activation: ``"pre"``, or ``"post"`` for a ReLU after the stem and after every block's sum, so that identity
            skips pass the branches' input. The paper does not use ``"post"``; some public weights do (see convert.py).
        skip: Whether blocks have skip connections.
        convs: Convolutions per branch, 1 or 2.
        bn: Whether the network has batch normalisation.

    Raises:
        InputError: If an option is out of range or the rule is not defined for this number of branches.
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
        activation: str = "pre",
        skip: bool = True,
        convs: int = 2,
        bn: bool = True,
    ) -> None:
        rule = ShakeRule.parse(rule)
        rule.check_branches(branches)
        if activation not in ("pre", "post"):
            raise InputError(f"activation: got {activation!r}, expected 'pre' or 'post'")
        if convs not in (1, 2):
            raise InputError(f"convs: got {convs!r}, expected 1 or 2")
        widths = [width, 2 * width, 4 * width]
        block = partial(
            ShakeBlock,
            branches=branches,
            rule=rule,
            skip_shift=skip_shift,
            skip=skip,
            convs=convs,
            bn=bn,
            relu_after=activation == "post",
        )
        super().__init__(
            stem_conv(in_channels, self.STEM_WIDTH, image_size),
            make_stages((depth - 2) // 6 * 2 // convs, self.STEM_WIDTH, widths, block),
            widths[-1],
            num_classes,
            relu_after_stem=activation == "post",
            relu_before_pool=True,
            stem_bn=bn,
        )
        self.skip_shift, self.activation = skip_shift, activation
