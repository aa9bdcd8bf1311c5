"""What the networks are built from: convolutions, the stem, the paper's two-path skip, initialisation, the trunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size, up to its stride."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)


def stem_conv(in_channels: int, width: int, image_size: int) -> nn.Conv2d:
    """The first convolution: 3x3 up to 64 pixels; 3x3 with stride 2 up to 128; 7x7 with stride 4 above.

    The stride keeps the first stage at 64x64 or less, so that cost and field of view stay near those of CIFAR.
    """
    stride = 1 if image_size <= 64 else 2 if image_size <= 128 else 4
    return conv(in_channels, width, max(3, 2 * stride - 1), stride)


class TwoPathSkip(nn.Module):
    """The skip where shapes change: two 1x1 paths, the second shifted by a pixel, joined, then BN.

    Each path is a 1x1 average pooling with the stride, which only picks pixels, and a 1x1 convolution. The shift gives
    the second path pixels that the first one's stride passes over.
    Pixels are picked before they are convolved: for few channels in channels_last, oneDNN's gradient of a strided 1x1
    convolution's weights is wrong and writes past its memory on CPUs without AVX-512 (uxlfoundation/oneDNN issue 6035).
    shift: ``"reference"``: right and down, ``out[i, j] = in[i-1, j-1]`` with zeros in row 0 and column 0;
        ``"mirrored"``: left and up, as many reimplementations have it.

    x: (N, in_channels, H, W), after the ReLU. Returns (N, out_channels, ceil(H/stride), ceil(W/stride)).
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
        step, reference = self.stride, self.shift == "reference"
        first = x[..., ::step, ::step]
        start, before = (step - 1, 1) if reference else (1, 0)
        second = x[..., start::step, start::step]
        down, right = (there - before - picked for there, picked in zip(first.shape[2:], second.shape[2:], strict=True))
        second = F.pad(second, (before, right, before, down))
        return self.bn(torch.cat((self.conv1(first), self.conv2(second)), dim=1))

    def kernel(self) -> Tensor:
        """Both paths as one kernel (out, in, 3, 3): with the stride and padding 1 it does what they do."""
        neighbour = (0, 2, 0, 2) if self.shift == "reference" else (2, 0, 2, 0)
        paths = F.pad(self.conv1.weight, (1, 1, 1, 1)), F.pad(self.conv2.weight, neighbour)
        return torch.cat(paths).contiguous(memory_format=torch.channels_last)


def initialise(model: nn.Module) -> None:
    """The author's initialisation.

    Convolutions N(0, sqrt(2 / (k * k * out_channels))), the fan-out not divided by the groups; BN 1 and 0; the linear
    layer's bias 0 and its weight as PyTorch has it.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class Stage(nn.Module):
    """Blocks one after the other; the first one changes shape."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def make_stages(
    blocks: int, in_channels: int, widths: Sequence[int], block: Callable[[int, int, int], nn.Module]
) -> list[Stage]:
    """Stages of ``blocks`` blocks with ``widths`` channels; every stage but the first one halves the size.

    block: called with (in_channels, out_channels, stride) for each block.
    """
    stages = []
    for index, width in enumerate(widths):
        first = block(in_channels, width, 1 if index == 0 else 2)
        stages.append(Stage([first, *(block(width, width, 1) for _ in range(blocks - 1))]))
        in_channels = width
    return stages


class ConvNet(nn.Module):
    """Stem, stages, global average pool, linear layer: what every network here shares.

    x: (N, C, H, W). Returns logits (N, num_classes). ``relu_after_stem`` and ``relu_before_pool`` say on which side of
    the stages the network has its ReLU: post-activation networks the former, pre-activation ones the latter. In the
    same way, ``stem_bn`` and ``last_bn`` (of ``features`` channels, in front of the last ReLU) say where it has BN.
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
