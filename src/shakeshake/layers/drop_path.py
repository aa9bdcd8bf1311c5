"""Relatives of Shake-Shake for a single residual branch: ShakeDrop and stochastic depth, on the same mix."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from .mix import mix


class _OneBranch(nn.Module):
    """What the two share: a survival probability, a level, a generator."""

    def __init__(
        self,
        survival: float = 0.5,
        level: Literal["Batch", "Image"] = "Image",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < survival <= 1.0:
            raise InputError(f"survival: {survival!r} is no probability, expected 0 < survival <= 1")
        if level not in ("Batch", "Image"):
            raise InputError(f"level: got {level!r}, expected 'Batch' or 'Image'")
        self.survival, self.level, self.generator = survival, level, generator

    def _uniform(self, x: Tensor) -> Tensor:
        rows = (x.shape[0], 1) if self.level == "Image" else (1,)
        return torch.rand(rows, device=x.device, generator=self.generator)

    def _gate(self, x: Tensor) -> Tensor:
        return (self._uniform(x) < self.survival).float()

    def extra_repr(self) -> str:
        return f"survival={self.survival:g}, level={self.level}"


class StochasticDepth(_OneBranch):
    """Keep a residual branch with probability ``survival``, else drop it (Huang et al., 2016, equations 2 and 5).

        training    value b * x, gradient b * dL/dy, with b ~ Bernoulli(survival), the same b in both
        evaluation  survival * x

    x: (N, ...). level: one b for the batch, as in the paper, or one per image.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * self.survival
        gate = self._gate(x)
        return mix((x,), gate, gate)


class ShakeDrop(_OneBranch):
    """Shake a single residual branch where stochastic depth would drop it (Yamada et al., 2018, equations 5 and 6).

        training    value (b + alpha - b alpha) * x, gradient (b + beta - b beta) * dL/dy
                    b ~ Bernoulli(survival), alpha ~ U(-1, 1), beta ~ U(0, 1), independent
        evaluation  survival * x, the expectation of the training value

    x: (N, ...). The branch should end in batch normalisation, as in the paper.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * self.survival
        gate = self._gate(x)
        alpha, beta = 2.0 * self._uniform(x) - 1.0, self._uniform(x)
        return mix((x,), gate + (1.0 - gate) * alpha, gate + (1.0 - gate) * beta)


def linear_survival(block: int, blocks: int, last: float = 0.5) -> float:
    """Survival of block 1..blocks, falling linearly from 1 before the first to ``last`` (both papers' schedule)."""
    if not 1 <= block <= blocks:
        raise InputError(f"block: got {block}, expected 1 to {blocks}")
    return 1.0 - block / blocks * (1.0 - last)
