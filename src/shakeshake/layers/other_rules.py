"""Rules beyond the paper: other ways to disturb residual branches, registered under their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .rules import register_rule

if TYPE_CHECKING:
    import torch

    Coefficients = tuple[torch.Tensor, torch.Tensor]
    Device = torch.device | str | None

STOCHASTIC_DEPTH_SURVIVAL = 0.8
SHAKEDROP_SURVIVAL = 0.5  # of the last block in the ShakeDrop paper


@register_rule("stochastic-depth")
def stochastic_depth(
    images: int, branches: int, *, device: Device = None, generator: torch.Generator | None = None
) -> Coefficients:
    """Drop all branches of a block together, per image (Huang et al., Deep Networks with Stochastic Depth, 2016).

    The sum of the branches is kept with probability 0.8 in every block and scaled by 1/0.8, so that the mean is that of
    evaluation. The paper scales at evaluation instead and lets the probability fall from block to block.

    Returns:
        alpha and beta, equal, (images, branches).
    """
    import torch

    kept = torch.rand(images, 1, device=device, generator=generator) < STOCHASTIC_DEPTH_SURVIVAL
    alpha = (kept / (STOCHASTIC_DEPTH_SURVIVAL * branches)).expand(images, branches)
    return alpha, alpha


@register_rule("shakedrop")
def shakedrop(
    images: int, branches: int, *, device: Device = None, generator: torch.Generator | None = None
) -> Coefficients:
    """ShakeDrop on the sum of the branches, per image (Yamada et al., ShakeDrop Regularization, 2018, equation 6).

    With b ~ Bernoulli(0.5), a ~ U(-1, 1) and c ~ U(0, 1), the sum is multiplied by b + a - ba in the forward pass and
    by b + c - bc in the backward pass, both divided by 0.5, so that the mean of the forward pass is that of evaluation.

    Returns:
        alpha and beta, (images, branches).
    """
    import torch

    uniform = torch.rand(3, images, 1, device=device, generator=generator)
    kept = uniform[0] < SHAKEDROP_SURVIVAL
    alpha, beta = (torch.where(kept, 1.0, drawn) for drawn in (2.0 * uniform[1] - 1.0, uniform[2]))
    scale = SHAKEDROP_SURVIVAL * branches
    return (alpha / scale).expand(images, branches), (beta / scale).expand(images, branches)


@register_rule("drop-branch")
def drop_branch(
    images: int, branches: int, *, device: Device = None, generator: torch.Generator | None = None
) -> Coefficients:
    """Keep one branch of each block, chosen at random per image, with the coefficient 1 in both passes.

    Returns:
        alpha and beta, equal, (images, branches).
    """
    import torch

    kept = torch.randint(branches, (images,), device=device, generator=generator)
    alpha = torch.nn.functional.one_hot(kept, branches).float()
    return alpha, alpha
