"""Context managers for the mode of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode; on exit restore the mode of every submodule."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
