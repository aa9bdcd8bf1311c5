"""The paper's CIFAR-10 network, 26 2xWd, its relatives of other sizes, and its architectures A, B and C."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..kernels import convs
from ..kernels import fused as kernels
from ..layers.rules import ShakeRule
from ..layers.shake_shake import ShakeShake
from .layers import Trunk, TwoPathSkip, conv, make_stages, stem_conv


class Branch(nn.Module):
    """conv3x3(stride), BN, ReLU, conv3x3, BN. Its input has been through the block's ReLU.

    With ``convs=1`` it ends after the first BN. With ``bn=False`` identities stand where BN would.
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
        x = self.bn1(self.conv1(x))
        if self.convs == 1:
            return x
        return self.bn2(self.conv2(F.relu(x, inplace=True)))

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        return cast(nn.BatchNorm2d, self.bn1 if self.convs == 1 else self.bn2)

    def tail(self, x: Tensor, sums: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """conv2(relu(bn1(x))) by fused kernels. sums: what they know of ``x``; returned are those of the result.

        A branch of one convolution has no such part: it is what goes in.
        """
        if self.convs == 1:
            return x, sums
        assert isinstance(self.bn1, nn.BatchNorm2d)
        return convs.bn_relu_conv(x, sums, self.bn1, self.conv2)


class ShakeBlock(nn.Module):
    """x + shake(branch1(relu(x)), branch2(relu(x))) (paper, section 1.2, equation 2, and Figure 1).

    The ReLU that each branch and the two-path skip begin with is the same, and is computed once. An identity skip
    passes x itself, before the ReLU. Without the skip the block is shake(branch1(relu(x)), branch2(relu(x))).
    With ``relu_after`` the sum goes through another ReLU.

    ``fused`` (kernels.fused.use) lets it train by fused kernels where they apply.
    """

    fused = False

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
        self.adds_skip, self.relu_after, self.has_bn = skip, relu_after, bn

    def forward(self, x: Tensor) -> Tensor:
        if self.has_bn and kernels.applies(x, self):
            alpha, beta = self.shake.rule.draw(
                len(x), len(self.branches), device=x.device, generator=self.shake.generator
            )
            branches = cast(list[Branch], list(self.branches))
            return train_fused(
                x, branches, self.skip, alpha, beta, adds_skip=self.adds_skip, relu_after=self.relu_after
            )
        active = F.relu(x)
        skip = x if self.skip is None else self.skip(active)
        y = self.shake(*(branch(active) for branch in self.branches))
        if self.adds_skip:
            y = skip + y
        return F.relu(y) if self.relu_after else y


def train_fused(
    x: Tensor,
    branches: Sequence[Branch],
    skip: nn.Module | None,
    alpha: Tensor,
    beta: Tensor,
    *,
    adds_skip: bool = True,
    relu_after: bool = False,
) -> Tensor:
    """What a block of such branches does in training, by fused kernels.

    A skip of two paths is one more branch, whose coefficients are 1. Another one takes what the branches take: where a
    block ends in a ReLU, ``x`` has come from one.
    """
    taps = [convs.ALL_TAPS] * len(branches)
    two_paths = skip if isinstance(skip, TwoPathSkip) else None
    if two_paths is not None:
        taps = [*taps, two_paths.taps]
    bns = [branch.last_bn for branch in branches]
    ins: Sequence[tuple[Tensor, Tensor | None]]
    kept: Tensor | None
    if convs.fit_head(x, [branch.conv1 for branch in branches], taps):
        weights = [branch.conv1.weight for branch in branches]
        if two_paths is not None:
            weights = [*weights, two_paths.kernel()]
            bns = [*bns, two_paths.bn]
            alpha, beta = (F.pad(a, (0, 1), value=1.0) for a in (alpha, beta))
        kept, ins = convs.head(x, weights, taps, branches[0].conv1.stride[0], keep=adds_skip and two_paths is None)
    else:
        kept, *actives = kernels.relu_fork(x, len(branches))
        if two_paths is not None:
            kept = two_paths(actives[0])
        ins = [(branch.conv1(active), None) for branch, active in zip(branches, actives, strict=True)]
    if skip is not None and two_paths is None:
        kept = skip(kept)
    outs = [branch.tail(*known) for branch, known in zip(branches, ins, strict=False)]
    outs += ins[len(branches) :]
    ys, sums = zip(*outs, strict=True)
    return kernels.bn_mix(kept if adds_skip else None, ys, bns, alpha, beta, sums, relu=relu_after)


class ShakeResNet(Trunk):
    """Pre-activation residual network with parallel branches (paper, section 2.1; author's release).

    Stem conv3x3 to 16 channels and BN, without ReLU; three stages of (depth - 2) / 6 blocks, ``width``, 2 and 4 times
    ``width`` channels, strides 1, 2, 2; ReLU, global average pool, linear layer. The skip of a stage's first block has
    two paths (TwoPathSkip), the others are identities.

    Images of more than 64 pixels get a strided stem: 3x3 with stride 2 up to 128 pixels, 7x7 with stride 4 up to 224.

    The paper's architectures (Table 5) are the same network with less of it:

    A (``_a``)  ``skip=False``: no skip connections, neither identities nor two paths.
    B (``_b``)  A with ``convs=1``: one convolution per branch (ReLU, conv, BN), and twice the blocks, so that the
        depth counts the same number of convolutions one after the other.
    C (``_c``)  A with ``bn=False``: no BN at all, the stem's included. The paper says no more than "without"; here
        nothing takes its place, so convolutions stay without bias. It trained this one at depth 14.

    skip_shift: ``"reference"`` or ``"mirrored"``, see TwoPathSkip.
    activation: ``"pre"``, as described; ``"post"`` has a ReLU after the stem and after every block's sum, so that an
        identity skip passes what the branches see. No architecture of the paper: public weights have it (foreign.py).

    Raises InputError for an option out of range and for a rule that does not fit the number of branches.

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
