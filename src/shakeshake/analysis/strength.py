"""How strong a rule is: where beta lies relative to alpha, and how far from it (paper, Table 4)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..layers.rules import ShakeRule


def coefficients(
    rule: str | ShakeRule, draws: int = 100_000, seed: int = 0, branches: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """(alpha, beta) of the first of the branches, each (draws,), as a block draws them for that many images."""
    rule = ShakeRule.parse(rule)
    generator = torch.Generator().manual_seed(seed)
    if rule.level == "Batch":  # one draw a batch: that many batches
        rule = replace(rule, level="Image")
    alpha, beta = (x.expand(draws, branches) for x in rule.draw(draws, branches, generator=generator))
    return alpha[:, 0].double().numpy(), beta[:, 0].double().numpy()


def histogram(alpha: np.ndarray, beta: np.ndarray, bins: int = 20) -> np.ndarray:
    """Counts (bins, bins) of (alpha, beta) over the unit square, row = alpha."""
    return np.histogram2d(alpha, beta, bins=bins, range=((0, 1), (0, 1)))[0].astype(int)
