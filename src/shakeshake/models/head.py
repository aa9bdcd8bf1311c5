"""The last layer of a network: found by its number of outputs."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import InputError


def find_head(network: nn.Module, num_classes: int) -> str:
    """Name of the last layer: the linear layer or convolution with ``num_classes`` outputs that is registered last.

    Args:
        network: Any classifier.
        num_classes: Its outputs.

    Returns:
        The name, for ``network.get_submodule``.

    Raises:
        InputError: There is none.
    """
    found = [
        name
        for name, module in network.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", None)) == num_classes
        and isinstance(getattr(module, "weight", None), Tensor)
    ]
    if not found:
        raise InputError(f"model: {type(network).__name__} has no last layer with {num_classes} outputs, expected one")
    return found[-1]
