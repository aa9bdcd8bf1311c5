"""Exponential moving average of weights and batch-norm statistics."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """A copy of a network whose floating-point tensors follow ``average = decay * average + (1 - decay) * current``.

    The first update copies the current values. State dicts are compatible with ``torch.optim.swa_utils.AveragedModel``;
    unlike there, an update never waits for the device.

    Attributes:
        network: The averaged network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay, self.updates = deepcopy(network), decay, 0
        self._tensors = list(zip(_tensors(self.network), _tensors(network), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current weights."""
        for average, now in self._tensors:
            if self.updates and average[0].is_floating_point():
                torch._foreach_lerp_(average, now, 1.0 - self.decay)
            else:  # the first update, and integer counters
                torch._foreach_copy_(average, now)
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights and the number of updates."""
        weights = {f"module.{name}": value for name, value in self.network.state_dict().items()}
        return {"n_averaged": torch.tensor(self.updates), **weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.updates = int(state["n_averaged"])
        self.network.load_state_dict({k.removeprefix("module."): v for k, v in state.items() if k != "n_averaged"})


def _tensors(network: nn.Module) -> list[list[Tensor]]:
    """Weights and statistics in one list and integer counters in another, without empty lists."""
    tensors = [*network.parameters(), *network.buffers()]
    floating = [x for x in tensors if x.is_floating_point()]
    counters = [x for x in tensors if not x.is_floating_point()]
    return [some for some in (floating, counters) if some]
