"""Building blocks of the networks: convolutions, stem, two-path skip, stages and the common forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias whose output has the input's size divided by the stride."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)


def stem_conv(in_channels: int, width: int, image_size: int) -> nn.Conv2d:
    """Return the first convolution of a network.

    3x3 for images up to 64 pixels, 3x3 with stride 2 up to 128, 7x7 with stride 4 above. The stride keeps the first
    stage at 64x64 or less, so cost and receptive field stay close to those on CIFAR.
    """
    stride = 1 if image_size <= 64 else 2 if image_size <= 128 else 4
    return conv(in_channels, width, max(3, 2 * stride - 1), stride)


class TwoPathSkip(nn.Module):
    """Skip connection of a block that changes shape: two 1x1 paths, concatenated, then BN (author's release).

    Each path is a 1x1 average pooling with the stride, which only selects pixels, and a 1x1 convolution. The second
    path is shifted by one pixel, so it sees pixels that the first one skips.

    Pixels are selected before the convolution. For few channels in channels_last, oneDNN's weight gradient of a strided
    1x1 convolution is wrong and writes out of bounds on CPUs without AVX-512 (uxlfoundation/oneDNN issue 6035).

    Shapes: input (N, in_channels, H, W), after the ReLU; output (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, half from each path.
        stride: Stride of both paths.
        shift: ``"reference"`` shifts right and down, ``out[i, j] = in[i-1, j-1]`` with zeros in row 0 and column 0;
            ``"mirrored"`` shifts left and up, as many reimplementations do.

    Raises:
        InputError: If ``shift`` has another value.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shift: str = "reference") -> None:
        super().__init__()
        if shift not in ("reference", "mirrored"):
            raise InputError(f"skip_shift: got {shift!r}, expected 'reference' or 'mirrored'")
        self.stride, self.shift = stride, shift
        self.conv1 = conv(in_channels, out_channels // 2, 1)
        self.conv2 = conv(in_channels, out_channels // 2, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        step, reference = self.stride, self.shift == "reference"
        first = x[..., ::step, ::step]
        start, before = (step - 1, 1) if reference else (1, 0)
        second = x[..., start::step, start::step]
        down, right = (there - before - picked for there, picked in zip(first.shape[2:], second.shape[2:], strict=True))
        second = F.pad(second, (before, right, before, down))
        return self.bn(torch.cat((self.conv1(first), self.conv2(second)), dim=1))

    def kernel(self) -> Tensor:
        """Return both paths as one kernel (out, in, 3, 3), to be applied with the same stride and padding 1."""
        neighbour = (0, 2, 0, 2) if self.shift == "reference" else (2, 0, 2, 0)
        paths = F.pad(self.conv1.weight, (1, 1, 1, 1)), F.pad(self.conv2.weight, neighbour)
        return torch.cat(paths).contiguous(memory_format=torch.channels_last)


def initialise(model: nn.Module) -> None:
    """Initialise a network as the author's release does, in place.

    Convolutions: N(0, sqrt(2 / (k * k * out_channels))), where the fan-out is not divided by the groups. BN: 1 and 0.
    Linear layer: PyTorch's default weight, bias 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class Stage(nn.Module):
    """Blocks in sequence, of which the first changes the shape."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        for block in self.blocks:
            x = block(x)
        return x


def make_stages(
    blocks: int, in_channels: int, widths: Sequence[int], block: Callable[[int, int, int], nn.Module]
) -> list[Stage]:
    """Build the stages of a network. Every stage but the first halves the image size.

    Args:
        blocks: Blocks in each stage.
        in_channels: Channels of the stem.
        widths: Output channels of each stage.
        block: Called with (in_channels, out_channels, stride) for each block.
    """
    stages = []
    for index, width in enumerate(widths):
        first = block(in_channels, width, 1 if index == 0 else 2)
        stages.append(Stage([first, *(block(width, width, 1) for _ in range(blocks - 1))]))
        in_channels = width
    return stages


class ConvNet(nn.Module):
    """Common structure of the networks: stem, stages, global average pool, linear layer.

    Input (N, C, H, W), output logits (N, num_classes).

    Args:
        stem: The first convolution.
        stages: The stages.
        features: Channels of the last stage.
        num_classes: Outputs of the linear layer.
        relu_after_stem: Whether a ReLU follows the stem, as in post-activation networks.
        relu_before_pool: Whether a ReLU precedes the pooling, as in pre-activation networks.
        stem_bn: Whether the stem has BN.
        last_bn: Whether BN precedes the last ReLU.
    """

    def __init__(
        self,
        stem: nn.Conv2d,
        stages: list[Stage],
        features: int,
        num_classes: int,
        *,
        relu_after_stem: bool,
        relu_before_pool: bool,
        stem_bn: bool = True,
        last_bn: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.add_module("conv", stem)
        if stem_bn:
            self.stem.add_module("bn", nn.BatchNorm2d(stem.out_channels))
        self.stages = nn.ModuleList(stages)
        self.last_bn = nn.BatchNorm2d(features) if last_bn else None
        self.fc = nn.Linear(features, num_classes)
        self.relu_after_stem, self.relu_before_pool = relu_after_stem, relu_before_pool
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        x = self.stem(x)
        if self.relu_after_stem:
            x = F.relu(x, inplace=True)
        for stage in self.stages:
            x = stage(x)
        if self.last_bn is not None:
            x = self.last_bn(x)
        if self.relu_before_pool:
            x = F.relu(x)
        pooled = F.avg_pool2d(x, x.shape[2:])  # as mean() does; its gradient lies in memory as x does, which is faster
        return self.fc(pooled.flatten(1))
