"""ShakeDrop and stochastic depth: related regularizers for a single residual branch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from .mix import mix


class _SingleBranch(nn.Module):
    """Survival probability, level and random generator of a regularizer for one branch."""

    def __init__(
        self,
        survival_prob: float = 0.5,
        level: Literal["Batch", "Image"] = "Image",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < survival_prob <= 1.0:
            raise InputError(f"survival_prob: got {survival_prob!r}, expected 0 < survival_prob <= 1")
        if level not in ("Batch", "Image"):
            raise InputError(f"level: got {level!r}, expected 'Batch' or 'Image'")
        self.survival_prob, self.level, self.generator = survival_prob, level, generator

    def _uniform(self, x: Tensor) -> Tensor:
        rows = (x.shape[0], 1) if self.level == "Image" else (1,)
        return torch.rand(rows, device=x.device, generator=self.generator)

    def _gate(self, x: Tensor) -> Tensor:
        return (self._uniform(x) < self.survival_prob).float()

    def extra_repr(self) -> str:
        return f"survival_prob={self.survival_prob:g}, level={self.level}"


class StochasticDepth(_SingleBranch):
    """Drop a residual branch at random (Huang et al., Deep Networks with Stochastic Depth, 2016, equations 2 and 5).

    With b ~ Bernoulli(survival_prob), input x of shape (N, ...) and output y of the same shape:

        training    y = b * x, dL/dx = b * dL/dy
        evaluation  y = survival_prob * x

    Args:
        survival_prob: Probability of keeping the branch.
        level: ``"Image"`` for one b per image, ``"Batch"`` for one per batch, as in the paper.
        generator: Source of b, on the input's device; by default torch's own.

    Raises:
        InputError: If an argument is out of range.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale the branch (N, ...) of each image."""
        if not self.training:
            return x * self.survival_prob
        gate = self._gate(x)
        return mix((x,), gate, gate)


class ShakeDrop(_SingleBranch):
    """Shake a residual branch where stochastic depth drops it (Yamada et al., ShakeDrop, 2018, equations 5 and 6).

    With independent b ~ Bernoulli(survival_prob), alpha ~ U(-1, 1) and beta ~ U(0, 1), input x of shape (N, ...) and
    output y of the same shape:

        training    y = (b + alpha - b alpha) * x, dL/dx = (b + beta - b beta) * dL/dy
        evaluation  y = survival_prob * x, the expectation of the training value

    The branch should end in batch normalisation, as in the paper.

    Args:
        survival_prob: Probability of leaving the branch unshaken.
        level: ``"Image"`` for one draw per image, ``"Batch"`` for one per batch.
        generator: Source of the draws, on the input's device; by default torch's own.

    Raises:
        InputError: If an argument is out of range.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale the branch (N, ...) of each image."""
        if not self.training:
            return x * self.survival_prob
        gate = self._gate(x)
        alpha, beta = 2.0 * self._uniform(x) - 1.0, self._uniform(x)
        return mix((x,), gate + (1.0 - gate) * alpha, gate + (1.0 - gate) * beta)


def linear_survival_prob(block: int, blocks: int, last: float = 0.5) -> float:
    """Return the survival probability of a block under the linear schedule of both papers.

    Args:
        block: Index of the block, 1 to ``blocks``.
        blocks: Number of blocks.
        last: Probability of the last block. Before the first block it is 1.

    Raises:
        InputError: If the index is out of range.
    """
    if not 1 <= block <= blocks:
        raise InputError(f"block: got {block}, expected 1 to {blocks}")
    return 1.0 - block / blocks * (1.0 - last)
