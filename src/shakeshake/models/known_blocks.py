"""Recognising the blocks of this package, for code that computes what they compute in another way."""

from __future__ import annotations

from torch import nn

from ..layers.shake_shake import ShakeShake
from ..utils.modules import is_unmodified, plain_class
from .baselines import DenseLayer, PaddedSkip, ResidualBlock, Transition, WideBlock
from .layers import TwoPathSkip
from .shake_resnet import Branch, ShakeBlock
from .shake_resnext import BottleneckBranch, ProjectionSkip, ShakeResNeXtBlock

_CONV, _BN = (nn.Conv2d,), (nn.BatchNorm2d,)
_BN_OR_NONE = (nn.BatchNorm2d, nn.Identity)

# Block -> child -> types that the child, or the members of that ModuleList, may have.
_BLOCKS: dict[type[nn.Module], dict[str, tuple[type[nn.Module], ...]]] = {
    ShakeBlock: {"branches": (Branch,), "shake": (ShakeShake,), "skip": (TwoPathSkip,)},
    ShakeResNeXtBlock: {"branches": (BottleneckBranch,), "shake": (ShakeShake,), "skip": (ProjectionSkip,)},
    ResidualBlock: {"branch": (Branch, BottleneckBranch), "skip": (PaddedSkip, ProjectionSkip)},
    WideBlock: {"bn1": _BN, "conv1": _CONV, "bn2": _BN, "conv2": _CONV, "skip": _CONV},
    DenseLayer: {"bn1": _BN, "conv1": _CONV, "bn2": _BN, "conv2": _CONV},
    Transition: {"bn": _BN, "conv": _CONV},
}
_PARTS: dict[type[nn.Module], dict[str, tuple[type[nn.Module], ...]]] = {
    Branch: {"conv1": _CONV, "bn1": _BN_OR_NONE, "conv2": _CONV, "bn2": _BN_OR_NONE},
    BottleneckBranch: {"conv1": _CONV, "bn1": _BN, "conv2": _CONV, "bn2": _BN, "conv3": _CONV, "bn3": _BN},
    TwoPathSkip: {"conv1": _CONV, "conv2": _CONV, "bn": _BN},
    ProjectionSkip: {"conv": _CONV, "bn": _BN},
    PaddedSkip: {},
    ShakeShake: {},
    nn.Conv2d: {},
    nn.BatchNorm2d: {},
    nn.Identity: {},
}
_KNOWN = _BLOCKS | _PARTS


def is_known_block(module: nn.Module) -> bool:
    """Whether ``module`` is a block of this package that computes what its class says.

    That is: the block and its parts are exactly of this package's types (or stand in for them, see
    ``utils.modules.plain_class``) and in their places, without hooks and without a ``forward`` of the instance;
    convolutions pad with zeros; batch normalisations are affine and track running statistics.
    """
    return plain_class(module) in _BLOCKS and _is_known(module)


def _is_known(module: nn.Module) -> bool:
    expected = _KNOWN[plain_class(module)]
    return has_usual_options(module) and all(
        plain_class(part) in expected.get(name, ()) and _is_known(part)
        for name, child in module.named_children()
        for part in _members(child)
    )


def _members(child: nn.Module) -> list[nn.Module]:
    return list(child) if type(child) is nn.ModuleList else [child]


def has_usual_options(module: nn.Module) -> bool:
    """Whether a module is unmodified and, if it is a convolution or batch normalisation, has the options used here."""
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return False
    if isinstance(module, nn.BatchNorm2d) and not (module.affine and module.track_running_stats):
        return False
    return is_unmodified(module)
