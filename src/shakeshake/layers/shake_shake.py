"""ShakeShake, the module for anybody's network, and shake_shake, the same as a function."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from .mix import mix
from .rules import ShakeRule


def shake_shake(
    *branches: Tensor,
    rule: str | ShakeRule = "S-S-I",
    training: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Combine parallel residual branches by Shake-Shake (X. Gastaldi, 2017, section 1.2).

        training    value      sum_b alpha_b * x_b          alpha drawn afresh at every call
                    gradient   beta_b * dL/dy for branch b  beta as the rule says
        evaluation  value and gradient of the mean of the branches

    branches: two or more tensors of one shape (N, ...).
    rule: see :class:`ShakeRule`.
    generator: where the coefficients come from; it must live on the branches' device. By default torch's own
        generator of that device, which activation checkpointing rewinds by itself (it cannot rewind a generator that
        is passed here, so recomputation would see other coefficients).

    Returns a tensor of the branches' shape, dtype and memory format. Raises InputError for a rule that is not one, for
    fewer than two branches, and for shapes that differ.
    """
    rule = ShakeRule.parse(rule)
    rule.check_branches(len(branches))
    first = branches[0]
    if not training:
        for x in branches[1:]:
            if x.shape != first.shape:
                raise InputError(f"branches: shapes {tuple(first.shape)} and {tuple(x.shape)} differ, expected one")
        return sum(branches[1:], start=first) / len(branches)
    if first.dim() == 0:
        raise InputError("branches: got tensors without axes, expected shape (N, ...)")
    alpha, beta = rule.draw(first.shape[0], len(branches), device=first.device, generator=generator)
    return mix(branches, alpha, beta)


class ShakeShake(nn.Module):
    """Shake-Shake as a layer without parameters: ``y = x + layer(branch1(x), branch2(x))``.

    Every call in training mode draws its own coefficients, so one instance may serve several blocks. In evaluation it
    is the mean of the branches. Arguments and errors are those of :func:`shake_shake`.
    """

    def __init__(self, rule: str | ShakeRule = "S-S-I", *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.rule = ShakeRule.parse(rule)
        self.generator = generator

    def forward(self, *branches: Tensor) -> Tensor:
        return shake_shake(*branches, rule=self.rule, training=self.training, generator=self.generator)

    def extra_repr(self) -> str:
        return str(self.rule)
