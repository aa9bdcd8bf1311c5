"""Networks that the paper compares with (Table 3): ResNet, Wide ResNet, ResNeXt and DenseNet-BC for CIFAR.

All are initialised by layers.initialise, as the authors' releases are. Images above 64 pixels get a strided stem, as in
ShakeResNet.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ConvNet, Stage, conv, make_stages, stem_conv
from .shake_resnet import Branch
from .shake_resnext import BottleneckBranch, ProjectionSkip


class PaddedSkip(nn.Module):
    """Skip connection without parameters: every ``stride``-th pixel, with zeros for the new channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResidualBlock(nn.Module):
    """relu(skip(x) + branch(x)): the post-activation block of ResNet and ResNeXt."""

    def __init__(self, branch: Branch | BottleneckBranch, skip: nn.Module | None) -> None:
        super().__init__()
        self.branch, self.skip = branch, skip

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return F.relu((x if self.skip is None else self.skip(x)) + self.branch(x))


class ResNet(ConvNet):
    """ResNet for CIFAR (He et al., Deep Residual Learning for Image Recognition, 2016, section 4.2).

    Stem conv3x3 to 16 channels, BN, ReLU; three stages of (depth - 2) / 6 blocks of two 3x3 convolutions, 16, 32 and 64
    channels, strides 1, 2, 2; skips without parameters (their option A: zeros for new channels); pool, linear layer.

    Args:
        depth: 6 n + 2 for n blocks per stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
    """

    def __init__(self, depth: int, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> None:
        def block(channels: int, out_channels: int, stride: int) -> ResidualBlock:
            skip = PaddedSkip(channels, out_channels, stride) if channels != out_channels else None
            return ResidualBlock(Branch(channels, out_channels, stride), skip)

        super().__init__(
            stem_conv(in_channels, 16, image_size),
            make_stages((depth - 2) // 6, 16, [16, 32, 64], block),
            64,
            num_classes,
            relu_after_stem=True,
            relu_before_pool=False,
        )


class ResNeXt(ConvNet):
    """ResNeXt for CIFAR (Xie et al., Aggregated Residual Transformations, 2017, section 5.3; authors' release).

    ShakeResNeXt's network with one branch of ``cardinality`` groups: stem conv3x3 to 64 channels, BN, ReLU; three
    stages of (depth - 2) / 9 blocks with n = 64, 128, 256: inner width cardinality * floor(n * width / 64), 4n channels
    out. Post-activation, which the release recommends over the paper's first version.

    Args:
        depth: 9 n + 2 for n blocks per stage.
        cardinality: Groups of the 3x3 convolutions.
        width: Channels per group in the first stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
    """

    def __init__(
        self,
        depth: int,
        cardinality: int,
        width: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
    ) -> None:
        def block(channels: int, out_channels: int, stride: int) -> ResidualBlock:
            inner = cardinality * (out_channels // 4 * width // 64)
            skip = ProjectionSkip(channels, out_channels, stride) if channels != out_channels else None
            return ResidualBlock(BottleneckBranch(channels, inner, out_channels, stride, cardinality), skip)

        super().__init__(
            stem_conv(in_channels, 64, image_size),
            make_stages((depth - 2) // 9, 64, [256, 512, 1024], block),
            1024,
            num_classes,
            relu_after_stem=True,
            relu_before_pool=False,
        )


class WideBlock(nn.Module):
    """x + branch(relu(bn(x))), where the branch is conv3x3(stride), BN, ReLU, conv3x3.

    Where the number of channels changes, a 1x1 convolution of relu(bn(x)) replaces x.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.skip = conv(in_channels, out_channels, 1, stride) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        active = F.relu(self.bn1(x), inplace=True)
        y = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return (x if self.skip is None else self.skip(active)) + y


class WideResNet(ConvNet):
    """Wide ResNet (Zagoruyko and Komodakis, 2016, Table 1; authors' release), pre-activation, without dropout.

    Stem conv3x3 to 16 channels; three stages of (depth - 4) / 6 blocks, 16k, 32k and 64k channels, strides 1, 2, 2; BN,
    ReLU, pool, linear layer.

    Args:
        depth: 6 n + 4 for n blocks per stage.
        k: Widening factor.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
    """

    def __init__(
        self, depth: int, k: int, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32
    ) -> None:
        super().__init__(
            stem_conv(in_channels, 16, image_size),
            make_stages((depth - 4) // 6, 16, [16 * k, 32 * k, 64 * k], WideBlock),
            64 * k,
            num_classes,
            relu_after_stem=False,
            relu_before_pool=True,
            stem_bn=False,
            last_bn=True,
        )


class DenseLayer(nn.Module):
    """Concatenate x with ``growth`` new channels: BN, ReLU, conv1x1 to 4 * growth, BN, ReLU, conv3x3 to growth."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, 4 * growth, 1)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + growth, H, W)."""
        y = self.conv1(F.relu(self.bn1(x), inplace=True))
        y = self.conv2(F.relu(self.bn2(y), inplace=True))
        return torch.cat((x, y), dim=1)


class Transition(nn.Module):
    """BN, ReLU, conv1x1 to half the channels, 2x2 average pooling."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = conv(in_channels, in_channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C / 2, H / 2, W / 2)."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x), inplace=True)), 2)


class DenseNetBC(ConvNet):
    """DenseNet-BC (Huang et al., Densely Connected Convolutional Networks, 2017, section 3; authors' release).

    Stem conv3x3 to 2 * growth channels; three stages of (depth - 4) / 6 dense layers, of which the second and third
    begin with a transition (``blocks.0``) that halves channels and size; BN, ReLU, pool, linear layer. Without dropout,
    as the paper uses for augmented data.

    Args:
        depth: 6 n + 4 for n dense layers per stage.
        growth: Channels that each dense layer adds.
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
    """

    def __init__(
        self, depth: int, growth: int, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32
    ) -> None:
        layer = partial(DenseLayer, growth=growth)
        channels, stages = 2 * growth, []
        for index in range(3):
            blocks: list[nn.Module] = []
            if index:
                blocks.append(Transition(channels))
                channels //= 2
            for _ in range((depth - 4) // 6):
                blocks.append(layer(channels))
                channels += growth
            stages.append(Stage(blocks))
        super().__init__(
            stem_conv(in_channels, 2 * growth, image_size),
            stages,
            channels,
            num_classes,
            relu_after_stem=False,
            relu_before_pool=True,
            stem_bn=False,
            last_bn=True,
        )
