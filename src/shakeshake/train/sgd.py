"""Stochastic gradient descent with momentum, one fused pass over all parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class SGD:
    """What ``torch.optim.SGD(..., fused=True)`` computes, dampening 0.

        g = gradient + weight_decay * p;   m = momentum * m + g;   p = p - lr * (g + momentum * m if nesterov else m)

    The first optimizer that torch.optim makes imports torch's compiler, which takes longer than all else between the
    start of a run and its first step. This one does not.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.buffers: list[Tensor] = [torch.zeros_like(p) for p in self.parameters] if momentum else []
        self._values, self._momenta = (
            [_in_memory(x, x.detach()) for x in xs] for xs in (self.parameters, self.buffers)
        )

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update. Every parameter has a gradient."""
        torch._fused_sgd_(
            self._values,
            [_in_memory(p, p.grad).contiguous() for p in self.parameters],  # type: ignore[arg-type]
            self._momenta,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=False,
        )

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> list[Tensor]:
        return self.buffers

    @torch.no_grad()
    def load_state_dict(self, buffers: Sequence[Tensor]) -> None:
        for buffer, saved in zip(self.buffers, buffers, strict=True):
            buffer.copy_(saved)


def _in_memory(like: Tensor, tensor: Tensor) -> Tensor:
    """A tensor with its dimensions in the order in which those of ``like`` lie in memory.

    The fused update reads and writes memory in its order, whatever the order of dimensions is, and where that is not
    the usual one it also makes a copy of the gradient, for nothing.
    """
    return tensor if like.is_contiguous() else tensor.permute(0, 2, 3, 1)
