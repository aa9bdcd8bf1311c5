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
        """Update the parameters that have a gradient."""
        updated = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not updated:
            return
        gradients = [_like_in_memory(self.parameters[i], self.parameters[i].grad) for i in updated]  # type: ignore[arg-type]
        torch._fused_sgd_(
            [self._values[i] for i in updated],
            gradients,
            [self._momenta[i] for i in updated] if self._momenta else [],
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=False,
        )

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> list[Tensor]:
        """Return the momentum buffers."""
        return self.buffers

    @torch.no_grad()
    def load_state_dict(self, buffers: Sequence[Tensor]) -> None:
        """Continue from the buffers that ``state_dict`` returned."""
        for buffer, saved in zip(self.buffers, buffers, strict=True):
            buffer.copy_(saved)


def _in_memory(like: Tensor, tensor: Tensor) -> Tensor:
    """A view of a tensor with its dimensions in the order in which those of ``like`` lie in memory.

    The fused update goes through memory in its order, whatever the order of dimensions, and copies gradients whose
    dimensions are not in the usual one.
    """
    channels_last = like.dim() == 4 and not like.is_contiguous()
    return tensor.permute(0, 2, 3, 1) if channels_last else tensor


def _like_in_memory(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the same order in memory as the parameter."""
    if parameter.is_contiguous() or parameter.dim() == 4:
        return _in_memory(parameter, gradient).contiguous()
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
