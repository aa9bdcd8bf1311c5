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
    alpha, beta = rule.draw(draws, branches, generator=generator)
    return alpha[:, 0].double().numpy(), beta[:, 0].double().numpy()


def expected_distance(rule: str | ShakeRule, branches: int = 2) -> float:
    """E|beta - alpha| of a branch, in closed form. Raises InputError for a rule that such a number does not have.

    A coefficient of B branches that are shaken has the density (B - 1) (1 - x)^(B - 2). So two that are independent
    differ by 2 (B - 1) / (B (2 B - 1)), one differs from 1/B by 2 ((B - 1) / B)^B / B. For two branches, beyond that:

    With alpha ~ U(low, high) let m = min(alpha, 1 - alpha) and d = 0.5 - m, its distance from 0.5. Given alpha the mean
    distance of beta is d for Even, 2 s d for the strength s (M1: s = 1), m/2 for M2, d/2 for M3, 0.75 - 1.5 m for M4,
    1 - 1.5 m for M5 and (alpha^2 + (1 - alpha)^2) / 2 for Shake; each is then averaged over alpha.
    """
    rule = ShakeRule.parse(rule)
    rule.check_branches(branches)
    even = 2 * ((branches - 1) / branches) ** branches / branches
    if rule.forward == "Even":
        return even if rule.backward == "Shake" else 0.0
    if branches > 2:
        return {"Keep": 0.0, "Even": even}.get(str(rule.backward), 2 * (branches - 1) / (branches * (2 * branches - 1)))
    low, high = rule.low, rule.high
    if low <= 0.5 <= high:
        d = ((0.5 - low) ** 2 + (high - 0.5) ** 2) / (2 * (high - low))
    else:
        d = abs((low + high) / 2 - 0.5)
    m = 0.5 - d
    if rule.backward == "Shake":
        # E[a^2] + E[(1-a)^2] = 1 - 2 E[a] + 2 E[a^2]
        mean, square = (low + high) / 2, (low * low + low * high + high * high) / 3
        return (1 - 2 * mean + 2 * square) / 2
    strength = {"Keep": 0.0, "Even": 0.5, "M1": 1.0}.get(str(rule.backward), rule.backward)
    if isinstance(strength, float):
        return 2 * strength * d
    return {"M2": m / 2, "M3": d / 2, "M4": 0.75 - 1.5 * m, "M5": 1 - 1.5 * m}[str(strength)]


def histogram(alpha: np.ndarray, beta: np.ndarray, bins: int = 20) -> np.ndarray:
    """Counts (bins, bins) of (alpha, beta) over the unit square, row = alpha."""
    return np.histogram2d(alpha, beta, bins=bins, range=((0, 1), (0, 1)))[0].astype(int)
