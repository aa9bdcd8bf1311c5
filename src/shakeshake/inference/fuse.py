"""Folding a trained network for evaluation: batch norm, branches, their mean and skips become single convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..kernels import revert
from ..models.baselines import DenseLayer, ResidualBlock, Transition, WideBlock
from ..models.known_blocks import has_usual_options, is_known_block
from ..models.layers import ConvNet, Stage, TwoPathSkip
from ..models.shake_resnet import Branch, ShakeBlock
from ..models.shake_resnext import BottleneckBranch, ProjectionSkip, ShakeResNeXtBlock
from ..utils.modules import is_unmodified, plain_class, rebuild_as, replace_modules
from .fused_conv import FusedConv
from .fused_stages import FusedBlock, FusedStages

Rule = Callable[[Any], nn.Module]
R = TypeVar("R", bound=Rule)

_RULES: dict[type[nn.Module], Rule] = {}


def fuse(model: nn.Module) -> nn.Module:
    """A copy of a network for evaluation that computes the same up to rounding, faster.

    In the blocks of this package BN is folded into the convolution in front of it; parallel branches become one
    convolution of their common input, and their mean one convolution of their concatenated channels, with 1/N in its
    weights; a two-path skip becomes one 3x3 convolution; average pooling moves in front of the 1x1 convolution that it
    follows. Everything else is copied: other networks, subclasses of the blocks, and blocks with hooks, with a
    ``forward`` of the instance or with other submodules.

    Args:
        model: Any network. It is not changed.

    Returns:
        The copy, in evaluation mode and without gradients. Its weights may be changed in place or
        replaced, except by ``parameter.data.mul_(...)`` and the like, which autograd does not count: packed weights
        would stay as they were.

    Raises:
        InputError: If ``model`` is not a network.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}, expected a network (a torch.nn.Module)")
    with torch.no_grad():
        copied = copy.deepcopy(model).requires_grad_(False).eval()
        return replace_modules(revert(copied), _fused).requires_grad_(False).eval()


def evaluation_network(network: nn.Module) -> nn.Module:
    """``fuse(network)`` if any of it can be fused, else the network itself, to be used in evaluation mode."""
    return fuse(network) if any(_is_known_net(m) or is_known_block(m) for m in network.modules()) else network


def is_fully_fusable(network: nn.Module) -> bool:
    """Whether all blocks of ``network``, a network of this package, are known to ``fuse``."""
    return _is_known_net(network) and all(is_known_block(block) for stage in network.stages for block in stage.blocks)  # type: ignore[union-attr]


def _fused(module: nn.Module) -> nn.Module:
    """A block folded; a network of this package with its stem folded and its blocks in FusedStages; or ``module``."""
    if is_known_block(module):
        return _RULES[plain_class(module)](module)
    if _is_known_net(module):
        assert isinstance(module, ConvNet)
        module.stem = _fold(*module.stem)  # type: ignore[assignment]
        module.stages = nn.ModuleList([FusedStages([nn.Sequential(*stage.blocks) for stage in module.stages])])  # type: ignore[misc]
    return module


def _is_known_net(module: nn.Module) -> bool:
    """Whether ``forward`` is that of ConvNet, and stem and stages are those that it was made with."""
    return (
        isinstance(module, ConvNet)
        and type(module).forward is ConvNet.forward
        and "forward" not in vars(module)
        and type(module.stem) is nn.Sequential
        and list(module.stem._modules) in (["conv"], ["conv", "bn"])
        and all(plain_class(m) in (nn.Sequential, nn.Conv2d, nn.BatchNorm2d) for m in module.stem.modules())
        and all(map(has_usual_options, module.stem.modules()))
        and all(type(stage) is Stage and all(map(is_unmodified, (stage, stage.blocks))) for stage in module.stages)
    )


def _rule(block: type[nn.Module]) -> Callable[[R], R]:
    """Register how to fold the blocks of a type."""

    def register(rule: R) -> R:
        _RULES[block] = rule
        return rule

    return register


@_rule(ShakeBlock)
def _fuse_shake_block(block: ShakeBlock) -> nn.Module:
    return FusedBlock(
        _merged([_folded(branch) for branch in block.branches]),
        None if block.skip is None else _joined_paths(block.skip),
        relu_before=True,
        relu_after=block.relu_after,
        adds_skip=block.adds_skip,
    )


@_rule(ShakeResNeXtBlock)
def _fuse_shake_resnext_block(block: ShakeResNeXtBlock) -> nn.Module:
    return FusedBlock(
        _merged([_folded(branch) for branch in block.branches]),
        None if block.skip is None else _fold(block.skip.conv, block.skip.bn),
        relu_before=False,
        relu_after=True,
    )


@_rule(ResidualBlock)
def _fuse_residual_block(block: ResidualBlock) -> nn.Module:
    skip = _fold(block.skip.conv, block.skip.bn) if isinstance(block.skip, ProjectionSkip) else block.skip
    return FusedBlock(_folded(block.branch), skip, relu_before=False, relu_after=True)


@_rule(WideBlock)
@_rule(DenseLayer)
def _fuse_preactivated_block(block: WideBlock | DenseLayer) -> nn.Module:
    """Only the second BN has a convolution in front of it."""
    folded = rebuild_as(block, type(block))
    folded._modules = dict(block._modules)
    folded.conv1 = _fold(block.conv1, block.bn2)
    folded.bn2 = nn.Identity()  # type: ignore[assignment]
    return folded


class FusedTransition(nn.Module):
    """A transition that pools before its 1x1 convolution, which commutes with pooling: a quarter of the work."""

    def __init__(self, transition: Transition) -> None:
        super().__init__()
        self.bn, self.conv = transition.bn, transition.conv

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H / 2, W / 2)."""
        return self.conv(F.avg_pool2d(F.relu(self.bn(x), inplace=True), 2))


_rule(Transition)(FusedTransition)


def _folded(branch: nn.Module) -> list[nn.Conv2d]:
    """A branch's convolutions, each with its BN folded in."""
    if isinstance(branch, Branch):
        convs = [_fold(branch.conv1, branch.bn1)]
        return convs if branch.convs == 1 else [*convs, _fold(branch.conv2, branch.bn2)]
    assert isinstance(branch, BottleneckBranch)
    pairs = ((branch.conv1, branch.bn1), (branch.conv2, branch.bn2), (branch.conv3, branch.bn3))
    return [_fold(conv, bn) for conv, bn in pairs]


def _merged(branches: list[list[nn.Conv2d]]) -> list[nn.Conv2d]:
    """The mean of branches as one chain of convolutions.

    The first convolutions share their input, so their outputs are concatenated. Those in the middle become groups. The
    last ones are summed, so their inputs are concatenated, with 1/N in the weights.
    """
    layers = list(zip(*branches, strict=True))
    if len(layers) == 1:  # a single convolution is linear: average the weights
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


def _fold(conv: nn.Conv2d, bn: nn.Module | None = None) -> nn.Conv2d:
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
