"""fuse(model): the evaluation network with everything folded that is linear in evaluation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..models.baselines import DenseLayer, ResidualBlock, Transition, WideBlock
from ..models.layers import ConvNet, Stage, TwoPathSkip
from ..models.model import TrainedModel
from ..models.shake_resnet import Branch, ShakeBlock
from ..models.shake_resnext import BottleneckBranch, ProjectionSkip, ShakeResNeXtBlock
from ..models.shakeify import ShakenHalves
from .fused_conv import FusedConv
from .fused_stages import FusedBlock, FusedStages


def fuse(model: nn.Module) -> nn.Module:
    """A network of this package as it is in evaluation, equal to it up to rounding, and faster.

    BN is folded into the convolution in front of it; parallel branches become one convolution of their common input,
    and their mean one convolution of their joined channels, 1/N in its weights; the two paths of a skip become one 3x3
    convolution; average pooling goes in front of the 1x1 convolution that it follows. The model is left as it is; what
    is returned has no gradients and is in evaluation mode. Its weights can be changed in any way that torch counts;
    ``parameter.data.mul_(...)`` is not counted, and what was packed of the weight before goes on being used.

    Raises InputError for a network that is not one of this package's.
    """
    if not isinstance(model, ConvNet):
        expected = "its .network" if isinstance(model, TrainedModel) else "a network made by create_model()"
        raise InputError(f"model: {type(model).__name__} cannot be fused, expected {expected}")
    if any(isinstance(module, FusedStages | ShakenHalves) for module in model.modules()):
        raise InputError("model: it was fused or shakeified before, expected a network as create_model() makes it")
    with torch.no_grad():
        fused = copy.copy(model)
        fused._modules = dict(model._modules)
        stem = dict(model.stem.named_children())
        assert isinstance(stem["conv"], nn.Conv2d)
        fused.stem = _fold(stem["conv"], stem.get("bn"))  # type: ignore[assignment]
        stages = [stage for stage in model.stages if isinstance(stage, Stage)]
        blocks = [nn.Sequential(*(fused_block(block) for block in stage.blocks)) for stage in stages]
        fused.stages = nn.ModuleList([FusedStages(blocks)])
        return copy.deepcopy(fused).requires_grad_(False).eval()


class FusedTransition(nn.Module):
    """Pooling and a 1x1 convolution commute; pooled first there is a quarter to convolve."""

    def __init__(self, transition: Transition) -> None:
        super().__init__()
        self.bn, self.conv = transition.bn, transition.conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(F.relu(self.bn(x), inplace=True), 2))


@singledispatch
def fused_block(block: nn.Module) -> nn.Module:
    """The block in evaluation, folded. One rule for each kind of block."""
    raise InputError(f"model: a block of kind {type(block).__name__} cannot be fused, expected one of this package's")


@fused_block.register
def _(block: ShakeBlock) -> nn.Module:
    skip = _joined_paths(block.skip) if isinstance(block.skip, TwoPathSkip) else None
    convs = _merged([_folded(branch) for branch in block.branches])
    return FusedBlock(convs, skip, relu_before=True, relu_after=block.relu_after, adds_skip=block.adds_skip)


@fused_block.register
def _(block: ShakeResNeXtBlock) -> nn.Module:
    return FusedBlock(
        _merged([_folded(branch) for branch in block.branches]),
        None if block.skip is None else _fold(block.skip.conv, block.skip.bn),
        relu_before=False,
        relu_after=True,
    )


@fused_block.register
def _(block: ResidualBlock) -> nn.Module:
    projected = isinstance(block.skip, ProjectionSkip)
    skip = _fold(block.skip.conv, block.skip.bn) if projected else block.skip  # type: ignore[union-attr, arg-type]
    return FusedBlock(_folded(block.branch), skip, relu_before=False, relu_after=True)


@fused_block.register(WideBlock)
@fused_block.register(DenseLayer)
def _(block: WideBlock | DenseLayer) -> nn.Module:
    """Only the second BN has a convolution in front of it."""
    folded = copy.copy(block)
    folded._modules = dict(block._modules)
    folded.conv1 = _fold(block.conv1, block.bn2)
    folded.bn2 = nn.Identity()  # type: ignore[assignment]
    return folded


@fused_block.register
def _(block: Transition) -> nn.Module:
    return FusedTransition(block)


def _folded(branch: nn.Module) -> list[nn.Conv2d]:
    """A branch's convolutions, each with the BN behind it."""
    if isinstance(branch, Branch):
        convs = [_fold(branch.conv1, branch.bn1)]
        return convs if branch.convs == 1 else [*convs, _fold(branch.conv2, branch.bn2)]
    assert isinstance(branch, BottleneckBranch)
    pairs = ((branch.conv1, branch.bn1), (branch.conv2, branch.bn2), (branch.conv3, branch.bn3))
    return [_fold(conv, bn) for conv, bn in pairs]


def _merged(branches: list[list[nn.Conv2d]]) -> list[nn.Conv2d]:
    """The mean of branches as one chain of convolutions.

    The first ones share their input: their outputs are joined. Those in the middle stay side by side, as groups. The
    last ones are added: their inputs are joined, and 1/N goes into the weights.
    """
    layers = list(zip(*branches, strict=True))
    if len(layers) == 1:  # alone, a convolution is linear: the mean of the branches has the mean of the weights
        only = layers[0]
        weight = torch.stack([conv.weight for conv in only]).mean(dim=0)
        bias = torch.stack([_bias(conv) for conv in only]).mean(dim=0)
        return [_conv(weight, bias, stride=only[0].stride, padding=only[0].padding)]
    first, *middle, last = layers
    weight = torch.cat([conv.weight for conv in last], dim=1) / len(last)
    bias = torch.stack([_bias(conv) for conv in last]).mean(dim=0)
    return [
        _joined_outputs(first),
        *(_joined_outputs(layer, groups=sum(conv.groups for conv in layer)) for layer in middle),
        _conv(weight, bias, stride=last[0].stride, padding=last[0].padding),
    ]


def _joined_outputs(convs: Sequence[nn.Conv2d], groups: int = 1) -> nn.Conv2d:
    weight = torch.cat([conv.weight for conv in convs])
    bias = torch.cat([_bias(conv) for conv in convs])
    return _conv(weight, bias, stride=convs[0].stride, padding=convs[0].padding, groups=groups)


def _joined_paths(skip: TwoPathSkip) -> nn.Conv2d:
    weight = skip.kernel()
    joined = _conv(weight, weight.new_zeros(len(weight)), stride=(skip.stride, skip.stride), padding=(1, 1))
    return _fold(joined, skip.bn)


def _fold(conv: nn.Conv2d, bn: nn.Module | None) -> nn.Conv2d:
    """bn(conv(x)) in evaluation as one convolution with a bias."""
    weight, bias = conv.weight, _bias(conv)
    if isinstance(bn, nn.BatchNorm2d):
        assert bn.running_mean is not None
        assert bn.running_var is not None
        scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        weight = weight * scale[:, None, None, None]
        bias = (bias - bn.running_mean) * scale + bn.bias
    return _conv(weight, bias, stride=conv.stride, padding=conv.padding, groups=conv.groups)


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)


def _conv(weight: Tensor, bias: Tensor | None, **more: object) -> nn.Conv2d:
    groups = int(more.get("groups", 1))  # type: ignore[call-overload]
    out_channels, in_channels, *kernel = weight.shape
    conv = FusedConv(in_channels * groups, out_channels, tuple(kernel), device="meta", **more)  # type: ignore[arg-type]
    conv.weight, conv.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())  # type: ignore
    return conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
