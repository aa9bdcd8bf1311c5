"""ShakeShake, a module that combines residual branches, and shake_shake, the same as a function."""

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
    """Combine parallel residual branches by Shake-Shake (Gastaldi, 2017, Figure 1).

        training    value      sum_b alpha_b * x_b          alpha is drawn at every call
                    gradient   beta_b * dL/dy for branch b  beta is drawn as the rule specifies
        evaluation  value and gradient of the mean of the branches

    Args:
        *branches: Two or more tensors of one shape (N, ...).
        rule: The rule, see ShakeRule.
        training: Whether to draw coefficients or take the mean.
        generator: Source of the coefficients, on the branches' device; by default torch's own. Activation checkpointing
            restores only torch's own, so with another one recomputation would see other coefficients.

    Returns:
        A tensor of the branches' shape, dtype and memory format.

    Raises:
        InputError: If the rule is invalid or not defined for this number of branches, or if shapes differ.
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
    """Shake-Shake as a module without parameters: ``y = x + shake(branch1(x), branch2(x))``.

    In training every call draws its own coefficients, so one instance may serve several blocks. In evaluation it
    returns the mean of the branches. See shake_shake for formulas and shapes.

    Args:
        rule: The rule, see ShakeRule.
        generator: Source of the coefficients; by default torch's own.

    Raises:
        InputError: If the rule is invalid.
    """

    def __init__(self, rule: str | ShakeRule = "S-S-I", *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.rule = ShakeRule.parse(rule)
        self.generator = generator

    def forward(self, *branches: Tensor) -> Tensor:
        """Mix branches (N, ...) of one shape."""
        return shake_shake(*branches, rule=self.rule, training=self.training, generator=self.generator)

    def extra_repr(self) -> str:
        """Return the rule."""
        return str(self.rule)
