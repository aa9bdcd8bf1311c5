"""Where beta lies given alpha, for each backward rule of the paper (Table 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BetaInterval:
    """Where beta lies given alpha, for two branches: uniform between two ends (paper, Table 4).

    Args:
        ends: Maps alpha and ``edge`` to the two ends. ``edge`` is the end of [0, 1] on alpha's side of 0.5: 0 for
            alpha < 0.5, else 1. Takes floats or tensors. Equal ends make beta a function of alpha.
        words: Completes a sentence that begins with "beta is".
    """

    ends: Callable[[Any, Any], tuple[Any, Any]]
    words: str


# The only definition of the backward rules: sampling, distances, charts and descriptions derive from it.
BETA_INTERVALS = {
    "Even": BetaInterval(lambda alpha, edge: (0.5, 0.5), "always 0.5"),
    "Shake": BetaInterval(lambda alpha, edge: (0.0, 1.0), "anywhere from 0 to 1, whatever α is"),
    "Keep": BetaInterval(lambda alpha, edge: (alpha, alpha), "equal to α"),
    "M1": BetaInterval(lambda alpha, edge: (1.0 - alpha, 1.0 - alpha), "equal to 1 − α"),
    "M2": BetaInterval(lambda alpha, edge: (edge, alpha), "on α's side of 0.5, further out than α"),
    "M3": BetaInterval(lambda alpha, edge: (alpha, 0.5), "between α and 0.5"),
    "M4": BetaInterval(lambda alpha, edge: (0.5, 1.0 - alpha), "between 0.5 and 1 − α"),
    "M5": BetaInterval(
        lambda alpha, edge: (1.0 - alpha, 1.0 - edge), "on the other side of 0.5, further out than 1 − α"
    ),
}
