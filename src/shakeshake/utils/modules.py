"""Replacing modules of a network by equivalent ones, in the manner of ``SyncBatchNorm.convert_sync_batchnorm``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from ..errors import InputError

M = TypeVar("M", bound=nn.Module)


def logits_of(output: Any) -> Tensor:
    """The logits in a network's output: the output itself, or the ``.logits`` of a dataclass as in transformers.

    Raises:
        InputError: The output is neither.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise InputError(f"model: returns {type(output).__name__}, expected a tensor or an object with .logits")
    return logits


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class that ``module`` stands in for: ``plain_class`` of its own class, or its own class.

    The attribute is not inherited: a subclass may compute something else.
    """
    return vars(type(module)).get("plain_class", type(module))


def is_unmodified(module: nn.Module) -> bool:
    """Whether ``module`` computes what its class says: no hooks, and no ``forward`` set on the instance."""
    return "forward" not in vars(module) and not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def rebuild_as(module: nn.Module, cls: type[M]) -> M:
    """A module of class ``cls`` that shares parameters, buffers, submodules, hooks and settings with ``module``."""
    rebuilt = cls.__new__(cls)
    rebuilt.__dict__.update(vars(module))
    return rebuilt


def replace_modules(network: nn.Module, replace: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Replace modules of ``network`` in place, from the outside in.

    Args:
        network: The network to change.
        replace: Returns the module to put in the place of its argument, or the argument to keep it and go on with its
            children.

    Returns:
        The network, or what ``replace`` returned for it.
    """
    seen: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module not in seen:
            seen[module] = replace(module)
            if seen[module] is module:
                for name, child in list(module._modules.items()):
                    if child is not None and (new := visit(child)) is not child:
                        setattr(module, name, new)
        return seen[module]

    return visit(network)
