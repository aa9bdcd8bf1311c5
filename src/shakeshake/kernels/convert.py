"""Switching a network to the fused training kernels and back."""

from __future__ import annotations

from torch import nn

from ..models.baselines import ResNet
from ..models.known_blocks import is_known_block
from ..models.shake_resnet import Branch
from ..utils.modules import plain_class, rebuild_as, replace_modules
from .blocks import FusedResidualBlock, FusedShakeBlock, FusedShakeResNeXtBlock, FusedWideBlock
from .build import load_library

_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    cls.plain_class: cls for cls in (FusedShakeBlock, FusedShakeResNeXtBlock, FusedResidualBlock, FusedWideBlock)
}


def convert(network: nn.Module) -> nn.Module:
    """Replace the blocks of ``network`` that the fused kernels can train by fused ones, in place.

    A fused block is a subclass of the block that it replaces and shares its parameters and submodules: names, state
    dict and what the network computes, up to rounding, stay the same. In evaluation, on a GPU, while hooks inside it
    are registered and wherever else the kernels do not apply, it runs the plain operations.

    Only blocks exactly of this package's types are replaced. Not replaced: subclasses, blocks with hooks, with a
    ``forward`` of the instance or with submodules of other types, and residual blocks whose input may be negative,
    which is all of them outside of ``ResNet`` if their branch is a ``Branch``.

    Args:
        network: Any network or block.

    Returns:
        The network; if it is itself a block, the fused block. Unchanged on machines without the kernels
        (``build.unavailable_reason()`` says why) and with ``SHAKESHAKE_KERNELS=0`` in the environment.
    """
    if load_library() is None:
        return network
    after_relu = {
        block for resnet in network.modules() if type(resnet) is ResNet for block in resnet.modules()
    }  # their input has come from a ReLU

    def fused(module: nn.Module) -> nn.Module:
        cls = _FUSED.get(type(module))
        if cls is None or not is_known_block(module) or any(isinstance(m, nn.Identity) for m in module.modules()):
            return module  # without BN there is nothing to fuse
        if isinstance(getattr(module, "branch", None), Branch) and module not in after_relu:
            return module
        return rebuild_as(module, cls)

    return replace_modules(network, fused)


def revert(network: nn.Module) -> nn.Module:
    """Undo ``convert``, in place.

    Returns:
        The network; if it is itself a fused block, the plain block.
    """
    return replace_modules(
        network, lambda module: rebuild_as(module, plain_class(module)) if type(module) in _FUSED.values() else module
    )


def is_converted(network: nn.Module) -> bool:
    """Whether any block of ``network`` is a fused one."""
    return any(type(module) in _FUSED.values() for module in network.modules())
